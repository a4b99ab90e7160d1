"""Lines of numbers: fields, values, header; from a port or from a file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from firmware_bridge.errors import SchemaError
from firmware_bridge.sample import Channel, Float32, Schema

_NAME_AND_UNIT = re.compile(r"\s*(?P<name>.*?)\s*(?:\[(?P<unit>[^\]]*)\])?\s*")
_ENCLOSED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)")
_UNIT_WORDS = """
- % A C F Hz K N Nm Ohm Pa V W bar cm d dB deg degC degF deg/s dps g h hPa kHz kPa kg kW km/h l
l/min l/s lx m m/s m/s2 m/s^2 mA mG mV mW mbar mg min mm mm/s ms nT ppb ppm psi rad rad/s rpm s uA
uS/cm uT uV us \u00b0 \u00b0C \u00b0F \u00b0/s \u00b5A \u00b5T \u00b5V \u00b5s m/s\u00b2 \u03a9
"""
_UNITS = frozenset({"", *_UNIT_WORDS.split()})
_OVERFLOW = re.compile(r"[+-]?(?:ovf|inf|nan)", re.IGNORECASE)


def split_fields(line: str) -> list[str]:
    """Return the fields of a line: parted by ``;``, else ``,``, else tabs, else blanks."""
    for separator in ";,\t":
        if separator in line:
            fields = line.split(separator)
            return fields[:-1] if len(fields) > 1 and not fields[-1].strip() else fields
    return line.split()


def parse_numbers(fields: list[str]) -> list[float] | None:
    """Return the values of a line, NaN for what is no finite number; None if a field is text."""
    try:
        values = [float(field) for field in fields]
    except ValueError:
        texts = ["nan" if _OVERFLOW.fullmatch(field.strip()) else field for field in fields]
        if texts == fields:
            return None
        return parse_numbers(texts)
    return [value if math.isfinite(value) else math.nan for value in values]


def parse_header(fields: list[str]) -> tuple[Channel, ...] | None:
    """Return the channels that ``name [unit]`` fields name; None if they name no channels."""
    matches = [_NAME_AND_UNIT.fullmatch(field) for field in fields]
    channels = tuple(Channel(m["name"], m["unit"] or "") for m in matches if m and m["name"])
    is_whole = len(channels) == len(fields) and len({c.name for c in channels}) == len(fields)
    return channels if is_whole and parse_numbers(fields) is None else None


def parse_units(fields: list[str]) -> list[str] | None:
    """Return the units in a line of nothing else, such as ``[g],[g],[degC]`` or ``g;g;degC``."""
    units = []
    for field in fields:
        text = field.strip()
        bare = text[1:-1].strip() if _ENCLOSED.fullmatch(text) else text
        if bare == text and bare not in _UNITS:
            return None
        units.append("" if bare in ("", "-") else bare)
    return units if any(units) else None


def with_units(channels: tuple[Channel, ...], units: Sequence[str]) -> tuple[Channel, ...]:
    """Return the channels with units where they had none."""
    pairs = zip(channels, units, strict=True)
    return tuple(Channel(c.name, c.unit or unit) for c, unit in pairs)


def read_table(path: Path) -> tuple[tuple[Channel, ...], Float32]:
    """Return the channels and samples ``(T, n)`` of a file of lines.

    Raises:
        SchemaError: there is no sample, or a line is none.
        OSError: the file cannot be read.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines()
    numbered = [(i, split_fields(line)) for i, line in enumerate(lines, 1) if line.strip()]
    channels = parse_header(numbered[0][1]) if numbered else None
    rows = numbered[1:] if channels else numbered
    if channels and rows and (units := parse_units(rows[0][1])) and len(units) == len(channels):
        channels, rows = with_units(channels, units), rows[1:]
    if not rows:
        raise SchemaError(f"expected lines of numbers, {path} has none")
    channels = channels or Schema.unnamed(len(rows[0][1])).channels
    samples = np.empty((len(rows), len(channels)), np.float32)
    for row, (number, fields) in enumerate(rows):
        values = parse_numbers(fields)
        if values is None or len(values) != len(channels):
            raise SchemaError(
                f"expected {len(channels)} numbers, line {number} of {path} is "
                f"{','.join(fields)[:60]!r}; correct or remove it"
            )
        samples[row] = values
    return channels, samples
