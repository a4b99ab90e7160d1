"""The C header that makes a board's firmware match a schema, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from firmware_bridge.errors import SchemaError
from firmware_bridge.framing import HEADER, MAX_BODY_BYTES
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.protocol.messages import n_prediction_body_bytes

_C_TYPES = {
    "<f4": "float",
    "<f8": "double",
    "<i1": "int8_t",
    "<i2": "int16_t",
    "<i4": "int32_t",
    "<u1": "uint8_t",
    "<u2": "uint16_t",
    "<u4": "uint32_t",
}
_MAX_SAMPLE_BYTES = MAX_BODY_BYTES - HEADER.size - 4
_MAX_SCHEMA_BYTES = 0xFFFF
_MAX_ALARMS = 32
_N_LITERAL = 88
_MIN_RING_BYTES = 256
_N_FRAMES_IN_RING = 4
_N_FRAME_OVERHEAD = 24


def schema_header(
    board: BoardSchema, *, outputs: Sequence[str] = (), alarms: Sequence[str] = (), origin: str = ""
) -> str:
    """Write ``schema.h``: the schema's exact bytes, and names for all that the firmware numbers.

    ``outputs`` and ``alarms`` are the model's, in its order; ``origin`` says where all comes from.

    Raises:
        SchemaError: a sample does not fit a frame, or the schema is longer than a board can tell.
    """
    wire = board.to_wire()
    if board.n_sample_bytes > _MAX_SAMPLE_BYTES:
        raise SchemaError(
            f"expected at most {_MAX_SAMPLE_BYTES} bytes a sample, {len(board.channels)} channels "
            f"of {board.dtype} are {board.n_sample_bytes}; send fewer or shorter ones"
        )
    if len(wire) > _MAX_SCHEMA_BYTES:
        raise SchemaError(
            f"expected a schema of at most {_MAX_SCHEMA_BYTES} bytes, got {len(wire)}; shorten the "
            "names"
        )
    return "\n".join(_lines(board, wire, outputs, alarms, origin)) + "\n"


def _lines(
    board: BoardSchema, wire: bytes, outputs: Sequence[str], alarms: Sequence[str], origin: str
) -> Iterator[str]:
    of = f" from {origin.replace('*/', '')}" if origin else ""
    yield f"/* Written by edge-gru firmware{of}: write it anew instead of editing it. */"
    yield "#ifndef EDGE_LINK_SCHEMA_H"
    yield "#define EDGE_LINK_SCHEMA_H"
    yield ""
    yield '#include "edge_link.h"'
    yield ""
    yield "/* These exact bytes enter the check of every sample. */"
    yield "#define EDGE_LINK_SCHEMA \\"
    yield " \\\n".join(f'    "{part}"' for part in _literal(wire))
    yield ""
    yield "/* Value in its unit = raw * scale + offset, as the schema says. */"
    yield f"typedef {_C_TYPES[board.dtype]} edge_link_raw_value;"
    yield ""
    yield from _enum(_numbers(board))
    yield from _enum(_named("CHANNEL", [c.name for c in board.channels]))
    if outputs:
        yield from _enum(_named("OUTPUT", outputs))
        n_body_bytes = n_prediction_body_bytes(len(outputs))
        yield f"#if EDGE_LINK_RX_BODY_BYTES < {n_body_bytes}"
        yield f'#error "predictions need -DEDGE_LINK_RX_BODY_BYTES={n_body_bytes}"'
        yield "#endif"
        yield ""
    if alarms:
        bits = _named("ALARM", alarms[:_MAX_ALARMS])
        yield from _enum([(name, f"1ul << {bit}") for name, bit in bits], as_macros=True)
    yield "#endif"


def _numbers(board: BoardSchema) -> list[tuple[str, int]]:
    n_ring_bytes = _MIN_RING_BYTES
    while n_ring_bytes < _N_FRAMES_IN_RING * (board.n_sample_bytes + _N_FRAME_OVERHEAD):
        n_ring_bytes *= 2
    return [
        ("N_CHANNELS", len(board.channels)),
        ("N_SAMPLE_BYTES", board.n_sample_bytes),
        ("RING_BYTES", n_ring_bytes),
    ]


def _enum(rows: Sequence[tuple[str, object]], *, as_macros: bool = False) -> Iterator[str]:
    """Name numbers; those that may need 32 bits cannot be of an enum."""
    if as_macros:
        for name, value in rows:
            yield f"#define EDGE_LINK_{name} ({value})"
    else:
        yield "enum {"
        for name, value in rows:
            yield f"    EDGE_LINK_{name} = {value},"
        yield "};"
    yield ""


def _named(prefix: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return distinct C names for ``names``, numbered."""
    rows: dict[str, int] = {}
    for index, name in enumerate(names):
        word = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or str(index)
        c_name = f"{prefix}_{word}"
        rows[c_name if c_name not in rows else f"{c_name}_{index}"] = index
    return list(rows.items())


def _literal(wire: bytes) -> Iterator[str]:
    """Return parts of a C string literal; octal escapes end after three digits, others do not."""
    part = ""
    for byte in wire:
        character = chr(byte)
        if character in '"\\?':  # ?? begins a trigraph
            part += "\\" + character
        elif 32 <= byte < 127:
            part += character
        else:
            part += f"\\{byte:03o}"
        if len(part) >= _N_LITERAL:
            yield part
            part = ""
    if part:
        yield part
