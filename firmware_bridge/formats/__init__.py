"""What a port may speak: table name -> module with a ``new_session``."""

from __future__ import annotations

from importlib import import_module

from firmware_bridge.errors import FormatError
from firmware_bridge.formats.session import LinkStatistics, Session, SessionSettings, TickClock

FORMATS = {
    "framed": "firmware_bridge.formats.framed",
    "csv": "firmware_bridge.formats.csv",
}


def new_session(
    name: str, settings: SessionSettings, counts: LinkStatistics, ticks: TickClock
) -> Session:
    """Make the session of the format called ``name``; ``ticks`` serves those with device time.

    Raises:
        FormatError: there is no such format.
    """
    if name not in FORMATS:
        raise FormatError(f"expected one of the formats {', '.join(FORMATS)}, got {name!r}")
    session: Session = import_module(FORMATS[name]).new_session(settings, counts, ticks)
    return session
