"""Consistent overhead byte stuffing: bytes without zeros and back, one code or many at a time."""

from __future__ import annotations

from importlib import import_module
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

try:  # the compiled part alone: where its wheel is missing, the package is slower than ours
    _c_cobs: Any = import_module("cobs.cobs._cobs_ext")
except ImportError:
    _c_cobs = None

_MIN_ROWS = 64  # below, one pass over an array costs more than it saves
_MAX_ROW_BYTES = 254  # longer codes may hold full runs, whose next code byte stands for no zero


def cobs_encode(body: bytes) -> bytes:
    """Return ``body`` without zero bytes."""
    code = bytearray()
    runs = body.split(b"\0")
    last = len(runs) - 1
    for number, run in enumerate(runs):
        start = 0
        while len(run) - start > 254 or (len(run) - start == 254 and number < last):
            code += b"\xff" + run[start : start + 254]
            start += 254
        code.append(len(run) - start + 1)
        code += run[start:]
    return bytes(code)


def python_cobs_decode(code: bytes) -> bytes | None:
    """Return the bytes that ``code`` stands for, or None if it is not COBS."""
    if 0 in code:
        return None
    body = bytearray(code)
    size = len(code)
    position = 0
    surplus = [0] if size else []  # code bytes that stand for no zero: first, and after full runs
    while position < size:
        step = code[position]
        body[position] = 0
        position += step
        if step == 0xFF and position < size:
            surplus.append(position)
    if position != size:
        return None
    for index in reversed(surplus):
        del body[index]
    return bytes(body)


def _c_cobs_decode(code: bytes) -> bytes | None:
    """Return the bytes that ``code`` stands for, or None if it is not COBS."""
    try:
        return _c_cobs.decode(code)
    except _c_cobs.DecodeError:
        return None


def python_cobs_decode_all(codes: list[bytes]) -> list[bytes | None]:
    """Return what each of ``codes``, which hold no zero, stands for; None for what is not COBS."""
    if len(codes) < _MIN_ROWS:
        return [python_cobs_decode(code) for code in codes]
    bodies: list[bytes | None] = []
    for n_bytes, run in groupby(codes, len):
        alike = list(run)
        if len(alike) < _MIN_ROWS or not 1 < n_bytes <= _MAX_ROW_BYTES:
            bodies += [python_cobs_decode(code) for code in alike]
        else:
            bodies += _decode_rows(alike, n_bytes)
    return bodies


def _decode_rows(codes: list[bytes], n_bytes: int) -> list[bytes | None]:
    """Decode codes of one length together: every pass resolves one code byte of each."""
    flat = np.frombuffer(bytearray().join(codes), np.uint8)
    ends = np.arange(n_bytes, len(flat) + 1, n_bytes)
    positions = ends - n_bytes
    ragged: list[npt.NDArray[np.intp]] = []
    while len(positions):
        steps = flat[positions]
        flat[positions] = 0
        positions = positions + steps
        inside = positions < ends
        if not inside.all():
            ragged.append(ends[positions > ends])
            positions, ends = positions[inside], ends[inside]
    decoded = flat.reshape(-1, n_bytes)[:, 1:].tobytes()
    n_body_bytes = n_bytes - 1
    bodies: list[bytes | None] = [
        decoded[end - n_body_bytes : end]
        for end in range(n_body_bytes, len(codes) * n_body_bytes + 1, n_body_bytes)
    ]
    for end in np.concatenate(ragged).tolist():
        bodies[end // n_bytes - 1] = None
    return bodies


def _c_cobs_decode_all(codes: list[bytes]) -> list[bytes | None]:
    return [_c_cobs_decode(code) for code in codes]


cobs_decode_all = python_cobs_decode_all if _c_cobs is None else _c_cobs_decode_all
