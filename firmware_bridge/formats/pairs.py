"""Lines of ``label:value`` pairs, as for the Arduino Serial Plotter."""

from __future__ import annotations

import re

from firmware_bridge.formats.csv_text import parse_numbers
from firmware_bridge.formats.keyed import NamedColumns
from firmware_bridge.formats.rows import LineParser, Row
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.unnumbered import UnnumberedSession

_PAIR = re.compile(r"\s*([^:,\t]+?)\s*:\s*([^:,\t\s]+)\s*")


def parse_pairs(line: str) -> dict[str, float] | None:
    """Return the pairs of a line, parted by commas, tabs or blanks; None if it is anything else."""
    separator = next((s for s in ",\t" if s in line), None)
    fields = (
        [f for f in line.split(separator) if f.strip()] if separator else _split_at_blanks(line)
    )
    matches = [_PAIR.fullmatch(field) for field in fields]
    texts = {match[1]: match[2] for match in matches if match}
    values = parse_numbers(list(texts.values()))
    if values is None or not fields or len(texts) != len(fields):
        return None
    return dict(zip(texts, values, strict=True))


def _split_at_blanks(line: str) -> list[str]:
    """Split ``a:1 b: 2`` before every label."""
    return re.split(r"(?<=[^:\s])\s+(?=\S+\s*:)", line.strip())


class PairsParser(LineParser):
    """Every line has all channels, by name and in any order."""

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._columns = NamedColumns(settings)
        super().__init__(counts)

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        super().begin()
        self._columns.begin()

    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the values of a line."""
        values = parse_pairs(line)
        if is_first:
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
    parser = PairsParser(settings, counts)
    return UnnumberedSession(settings, counts, parser, "line of label:value pairs")
