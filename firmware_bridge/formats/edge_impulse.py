"""What the Edge Impulse data forwarder reads: lines of values, no names, no time, one rate."""

from __future__ import annotations

from firmware_bridge.formats.csv import CsvParser
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.unnumbered import UnnumberedSession


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port; a line of text is never taken for names."""
    parser = CsvParser(settings, counts, has_header=False)
    return UnnumberedSession(settings, counts, parser, "line of numbers")
