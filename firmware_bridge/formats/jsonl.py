"""Lines of JSON: an object of numbers, or ``{"t": time, "v": [values]}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from firmware_bridge.formats.keyed import NamedLines
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


class JsonParser(NamedLines):
    """Every line is an object; a first line that is whole JSON was not cut."""

    def values(self, line: str) -> dict[str, float] | None:
        """Read the numbers of an object."""
        return parse_object(line.strip())

    def is_whole(self, values: Mapping[str, float] | None) -> bool:
        """Tell whether it could be read."""
        return values is not None


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    return UnnumberedSession(settings, counts, JsonParser(settings, counts), "line of JSON")
