"""Lines of ``label:value`` pairs, as for the Arduino Serial Plotter."""

from __future__ import annotations

import re

from firmware_bridge.formats.csv_text import parse_numbers
from firmware_bridge.formats.keyed import NamedLines
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


class PairsParser(NamedLines):
    """Every line has pairs; a first one may be cut."""

    def values(self, line: str) -> dict[str, float] | None:
        """Read the pairs of a line."""
        return parse_pairs(line)


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    parser = PairsParser(settings, counts)
    return UnnumberedSession(settings, counts, parser, "line of label:value pairs")
