"""Messages of several kinds, each with some values: the newest of all, once a round."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from firmware_bridge.formats.keyed import NamedColumns
from firmware_bridge.formats.session import SessionSettings
from firmware_bridge.sample import Schema


class NewestValues:
    """Keeps the newest values of every kind of message; one kind leads and begins each round.

    Channels are called ``KIND.field``. The kind of the first expected channel leads, or the first
    that comes a second time; ``never_leading`` are kinds that come in groups. A value that did not
    come again within a round stands as it was.
    """

    def __init__(self, settings: SessionSettings, never_leading: Collection[str] = ()) -> None:
        expected = settings.schema
        is_named = expected is not None and not expected.is_unnamed
        self._given_leader = expected.names[0].partition(".")[0] if expected and is_named else ""
        self._never_leading = frozenset(never_leading)
        self._columns = NamedColumns(settings)
        self.begin()

    def begin(self) -> None:
        """Forget everything, as after the port was opened."""
        self._columns.begin()
        self._leader = self._given_leader
        self._kinds: set[str] = set()
        self._values: dict[str, float] = {}

    @property
    def schema(self) -> Schema | None:
        """The channels; None until the first row."""
        return self._columns.schema

    def take(self, kind: str, values: Mapping[str, float]) -> list[float] | None:
        """Take a message; return the row of the round before, if this begins another.

        Raises:
            SchemaError: round after round lacks an expected channel.
        """
        if not self._leader and kind in self._kinds and kind not in self._never_leading:
            self._leader = kind
        row = None
        if kind == self._leader and kind in self._kinds and self._values:
            row = self._columns.row(self._values, {})
        self._kinds.add(kind)
        self._values.update({f"{kind}.{name}": value for name, value in values.items()})
        return row
