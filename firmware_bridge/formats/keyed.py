"""Values that come by name, one or some at a time: names to columns, rounds to rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from firmware_bridge.errors import SchemaError
from firmware_bridge.formats.session import SessionSettings, describe
from firmware_bridge.sample import Channel, Schema

_N_FOREIGN_ROWS = 5


class NamedColumns:
    """Puts named values into the order of the expected schema, or of the first row.

    A name that is not a column is ignored: boards print more than a model reads.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self._expected = settings.schema
        self._rate_hz = settings.wanted_rate_hz
        self.begin()

    def begin(self) -> None:
        """Forget the order."""
        self.schema: Schema | None = None
        self._n_foreign = 0

    def row(self, values: Mapping[str, float], units: Mapping[str, str]) -> list[float] | None:
        """Return the values in the order of the columns; None if one is missing.

        Raises:
            SchemaError: row after row lacks an expected column.
        """
        schema = self.schema or self._settle(values, units)
        row = [values.get(name, math.nan) for name in schema.names]
        if all(name in values for name in schema.names):
            self.schema = schema
            return row
        if self.schema is None:
            self._n_foreign += 1
            if self._n_foreign >= _N_FOREIGN_ROWS:
                raise SchemaError(
                    f"expected the channels {describe(schema)}; the port sends "
                    f"{', '.join(values)}; is this the right sensor for the model?"
                )
        return None

    def _settle(self, values: Mapping[str, float], units: Mapping[str, str]) -> Schema:
        if self._expected is None:
            channels = tuple(Channel(name, units.get(name, "")) for name in values)
            return Schema(channels, self._rate_hz)
        if self._expected.is_unnamed and len(values) == self._expected.n_channels:
            return Schema(tuple(Channel(name) for name in values), self._rate_hz)
        return Schema(self._expected.channels, self._rate_hz)


class Rounds:
    """Gathers named values that come one after the other, and says when a round is complete.

    The first round ends when a name comes a second time; from then on a round ends with the last of
    its names, so that no row waits for the next one.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget which names there are."""
        self._values: dict[str, float] = {}
        self._names: frozenset[str] = frozenset()
        self.n_broken = 0

    def add(self, name: str, value: float) -> dict[str, float] | None:
        """Take a value; return the round that it completes, or that it shows to be over."""
        finished = None
        if name in self._values:
            if self._names:
                self.n_broken += 1  # a value of this round was lost
            else:
                self._names = frozenset(self._values)
                finished = self._values
            self._values = {}
        self._values[name] = value
        if self._names and self._names <= self._values.keys():
            finished, self._values = self._values, {}
        return finished
