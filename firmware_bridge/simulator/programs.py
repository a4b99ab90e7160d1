"""Which program a simulated board runs, by the name of its format."""

from __future__ import annotations

from firmware_bridge.errors import FormatError
from firmware_bridge.protocol.board_schema import RAW_DTYPES, BoardSchema
from firmware_bridge.simulator.firmware import Firmware, FramedFirmware
from firmware_bridge.simulator.source import Source
from firmware_bridge.simulator.text_firmware import PRINTERS, TextFirmware


def make_firmware(source: Source, name: str, dtype: str, scale: float) -> Firmware:
    """Return the program that sends ``source`` in the format called ``name``.

    Raises:
        FormatError: unknown format or raw type, or a source without a rate.
    """
    if source.schema.rate_hz is None:
        raise FormatError("expected a source with a rate, got none; set schema.rate_hz")
    if dtype not in RAW_DTYPES:
        raise FormatError(f"expected one of the raw types {', '.join(RAW_DTYPES)}, got {dtype!r}")
    if name == "framed":
        return FramedFirmware(BoardSchema.of(source.schema, dtype, scale))
    if name in PRINTERS:
        return TextFirmware(source.schema, name)
    raise FormatError(f"expected the format framed, {', '.join(PRINTERS)}, got {name!r}")
