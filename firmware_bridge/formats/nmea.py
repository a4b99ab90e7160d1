"""NMEA 0183 through pynmea2: positions, courses, depths, wind, as receivers print them."""

from __future__ import annotations

import re
from functools import reduce
from operator import xor

import pynmea2

from firmware_bridge.formats.rows import LineParser, Row
from firmware_bridge.formats.sentences import NewestValues
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.unnumbered import UnnumberedSession

_SENTENCE = re.compile(r"[$!]([^$!*]*)\*([0-9A-Fa-f]{2})")
_IN_GROUPS = ("GSV", "GSA", "VDM", "VDO", "TXT", "RTE", "XDR")
_DEGREES = {"lat": "latitude", "lon": "longitude"}


def is_valid(line: str) -> bool:
    """Tell whether a line is a sentence with the checksum that it ought to have."""
    match = _SENTENCE.fullmatch(line)
    return match is not None and reduce(xor, match[1].encode(), 0) == int(match[2], 16)


def numbers_of(line: str) -> tuple[str, dict[str, float]]:
    """Return the kind of a valid sentence, and what it says in numbers; nothing if unknown.

    Latitude and longitude are in degrees, north and east positive.
    """
    try:
        sentence = pynmea2.parse(line)
    except pynmea2.ParseError:  # also for kinds that the library does not know
        return "", {}
    kind = getattr(sentence, "sentence_type", "")
    values = {}
    for field in getattr(sentence, "fields", ()):
        name = field[1]
        try:
            values[name] = float(getattr(sentence, _DEGREES.get(name, name)))
        except (TypeError, ValueError, AttributeError):  # text, nothing, or a time
            continue
    return kind, values


class NmeaParser(LineParser):
    """Sentences with a right checksum; every other line is refused, comments by ``#`` apart."""

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._newest = NewestValues(settings, _IN_GROUPS)
        super().__init__(counts)

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        super().begin()
        self._newest.begin()

    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the row of the round that a sentence ends."""
        sentence = line.strip()
        if not is_valid(sentence):
            is_harmless = is_first or sentence.startswith("#")
            (self._ignore if is_harmless else self._refuse)(line)
            return None
        self._counts.frames_good += 1
        row = self._newest.take(*numbers_of(sentence))
        self._schema = self._newest.schema
        return row


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    return UnnumberedSession(settings, counts, NmeaParser(settings, counts), "valid NMEA sentence")
