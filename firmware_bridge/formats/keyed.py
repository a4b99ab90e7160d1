"""Values that come by name, one or some at a time: names to columns, rounds to rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

from firmware_bridge.errors import SchemaError
from firmware_bridge.formats.rows import LineParser, Row
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, describe
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


class NamedLines(LineParser):
    """Lines that each have all channels, by name and in any order."""

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._columns = NamedColumns(settings)
        super().__init__(counts)

    @abstractmethod
    def values(self, line: str) -> Mapping[str, float] | None:
        """Read the values of a line by name; None if it is none."""

    def is_whole(self, values: Mapping[str, float] | None) -> bool:
        """Tell whether a first line was surely not cut; one is taken to be."""
        del values
        return False

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        super().begin()
        self._columns.begin()

    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the values of a line."""
        values = self.values(line)
        if is_first and not self.is_whole(values):
            self._ignore(line)
            return None
        row = None if values is None else self._columns.row(values, {})
        if row is None:
            self._refuse(line)
            return None
        self._schema = self._columns.schema
        self._counts.frames_good += 1
        return row
