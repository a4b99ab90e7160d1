"""Lines of JSON: an object of numbers, or ``{"t": time, "v": [values]}``."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from firmware_bridge.formats.keyed import NamedColumns
from firmware_bridge.formats.rows import LineParser, Row
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.unnumbered import UnnumberedSession

_decoder = msgspec.json.Decoder(dict[str, Any])


def parse_object(line: str) -> dict[str, float] | None:
    """Return the numbers in an object by their names; null is NaN, text and the like left out.

    The values of ``{"v": [..]}`` are named ``ch0`` and so on, its time is that of the board and not
    used. None if the line is no object or has no number.
    """
    try:
        fields = _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return None
    values = fields.get("v")
    if isinstance(values, list):
        fields = {f"ch{i}": value for i, value in enumerate(values)}
    numbers = {
        name: math.nan if value is None else float(value)
        for name, value in fields.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }
    return numbers or None


class JsonParser(LineParser):
    """Every line has all channels, by name and in any order."""

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._columns = NamedColumns(settings)
        super().__init__(counts)

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        super().begin()
        self._columns.begin()

    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the values of a line; a first line that is whole JSON was not cut."""
        values = parse_object(line.strip())
        if values is None and is_first:
            self._ignore(line)
            return None
        row = None if values is None else self._columns.row(values, {})
        if row is None:
            self._refuse(line)
            return None
        self._schema = self._columns.schema
        self._counts.frames_good += 1
        return row


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    return UnnumberedSession(settings, counts, JsonParser(settings, counts), "line of JSON")
