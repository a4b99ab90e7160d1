"""What a port may speak: table name -> module with a ``new_session``."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from firmware_bridge.errors import FormatError
from firmware_bridge.formats.session import LinkStatistics, Session, SessionSettings, TickClock


class FormatRow(NamedTuple):
    """The module of a format, what it is, and the extra that has its library."""

    module: str
    help: str
    extra: str = ""


FORMATS = {
    "framed": FormatRow("firmware_bridge.formats.framed", "checked, numbered frames"),
    "csv": FormatRow("firmware_bridge.formats.csv", "lines of numbers, a header if there is one"),
    "pairs": FormatRow("firmware_bridge.formats.pairs", "label:value pairs, as for a plotter"),
    "jsonl": FormatRow("firmware_bridge.formats.jsonl", "lines of JSON"),
    "teleplot": FormatRow("firmware_bridge.formats.teleplot", "Teleplot's >name:value"),
    "edge-impulse": FormatRow(
        "firmware_bridge.formats.edge_impulse", "lines for the Edge Impulse data forwarder"
    ),
    "nmea": FormatRow("firmware_bridge.formats.nmea", "NMEA 0183 sentences", "nmea"),
    "mavlink": FormatRow("firmware_bridge.formats.mavlink", "MAVLink messages", "mavlink"),
}


def new_session(
    name: str, settings: SessionSettings, counts: LinkStatistics, ticks: TickClock
) -> Session:
    """Make the session of the format called ``name``; ``ticks`` serves those with device time.

    Raises:
        FormatError: there is no such format, or its library is not installed.
    """
    if name not in FORMATS:
        raise FormatError(f"expected one of the formats {', '.join(FORMATS)}, got {name!r}")
    row = FORMATS[name]
    try:
        module = import_module(row.module)
    except ModuleNotFoundError as error:
        if not row.extra:
            raise
        raise FormatError(
            f"the format {name} needs {error.name}; pip install 'edge-gru[{row.extra}]'"
        ) from error
    session: Session = module.new_session(settings, counts, ticks)
    return session
