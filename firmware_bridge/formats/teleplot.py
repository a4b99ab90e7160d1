"""Teleplot: ``>name[:ms]:value[§unit][|flags]``, one variable a line, several values by ``;``."""

from __future__ import annotations

import re
from typing import NamedTuple

from firmware_bridge.formats.csv_text import parse_numbers
from firmware_bridge.formats.keyed import NamedColumns, Rounds
from firmware_bridge.formats.rows import LineParser, Row
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.unnumbered import UnnumberedSession

_LINE = re.compile(
    r">(?P<name>[^:|§]+):(?P<values>[^|§]*?)\s*(?:§(?P<unit>[^|]*))?(?:\|(?P<flags>\w*))?"
)
_TEXT_FLAG = "t"


class Reading(NamedTuple):
    """One variable: its name, its unit, and the values of one line, oldest first."""

    name: str
    unit: str
    values: list[float]


def parse_line(line: str) -> Reading | None:
    """Return what a line says; None if it is no reading, or one of text.

    The board's milliseconds are not used: every variable may bring others.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None or _TEXT_FLAG in (match["flags"] or ""):
        return None
    points = [point.rpartition(":") for point in match["values"].split(";") if point]
    values = parse_numbers([value for _, _, value in points])
    times = parse_numbers([time for time, _, _ in points if time])
    if not values or times is None:
        return None
    return Reading(match["name"].strip(), (match["unit"] or "").strip(), values)


class TeleplotParser(LineParser):
    """A row is complete when every variable has come once."""

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._columns = NamedColumns(settings)
        self._rounds = Rounds()
        self._units: dict[str, str] = {}
        super().__init__(counts)

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        super().begin()
        self._columns.begin()
        self._rounds.begin()
        self._units.clear()

    def feed(self, chunk: bytes) -> list[Row]:
        """Return the rows that ``chunk`` completes."""
        rows = super().feed(chunk)
        self._counts.bad_lines += self._rounds.n_broken
        self._rounds.n_broken = 0
        return rows

    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the row that a line completes."""
        reading = parse_line(line)
        if reading is None:
            (self._ignore if is_first else self._refuse)(line)
            return None
        self._counts.frames_good += 1
        self._units.setdefault(reading.name, reading.unit)
        finished = self._rounds.add(reading.name, reading.values[-1])
        if finished is None:
            return None
        row = self._columns.row(finished, self._units)
        self._schema = self._columns.schema
        return row


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    return UnnumberedSession(settings, counts, TeleplotParser(settings, counts), "Teleplot line")
