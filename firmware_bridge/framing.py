"""Frames on the wire: delimiters, COBS, check. Bytes in, frame bodies out; no I/O, nothing raises.

A frame is ``0x00 COBS(header | payload | check) 0x00``. The delimiter stands before *and* after, so
that a board which resets in mid-frame does not glue its fragment to the next frame.
"""

from __future__ import annotations

import struct
import zlib
from binascii import crc_hqx
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

try:  # the compiled part alone: where its wheel is missing, the package is slower than ours
    _c_cobs: Any = import_module("cobs.cobs._cobs_ext")
except ImportError:
    _c_cobs = None

VERSION = 1
HEADER = struct.Struct("<BBHI")  # version << 5 | kind, epoch, seq, t_us
MAX_BODY_BYTES = 1024
MAX_CODE_BYTES = MAX_BODY_BYTES + MAX_BODY_BYTES // 254 + 1

DATA = 2
BATCH = 3
SCHEMA = 5

_CRC16_START = 0xFFFF
# Not 0, the residue of an uncomplemented check: with that one a zero byte too many goes unseen.
_CRC16_RESIDUE = 0x1D0F
_CRC32_RESIDUE = 0x2144DF1C
_CRC32_KINDS = frozenset({BATCH, SCHEMA})
_SCHEMA_CHECKED_KINDS = frozenset({DATA, BATCH})


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
    body = bytearray(code)
    size = len(code)
    position = 0
    surplus = [0] if size else []  # code bytes that stand for no zero: first, and after full runs
    while position < size:
        step = code[position]
        if step == 0:
            return None
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


cobs_decode = python_cobs_decode if _c_cobs is None else _c_cobs_decode


def encode_frame(
    kind: int, payload: bytes, *, epoch: int = 0, seq: int = 0, t_us: int = 0, schema: bytes = b""
) -> bytes:
    """Return the wire bytes of one frame, delimiters included.

    ``seq`` and ``t_us`` are reduced to 16 and 32 bits. ``schema`` enters the check of samples only.
    """
    body = HEADER.pack(VERSION << 5 | kind, epoch, seq & 0xFFFF, t_us & 0xFFFFFFFF) + payload
    context = schema if kind in _SCHEMA_CHECKED_KINDS else b""
    if kind in _CRC32_KINDS:
        body += zlib.crc32(body, zlib.crc32(context)).to_bytes(4, "little")
    else:
        crc = crc_hqx(body, crc_hqx(context, _CRC16_START)) ^ 0xFFFF
        body += crc.to_bytes(2, "big")
    return b"\0" + cobs_encode(body) + b"\0"


def payload_of(body: bytes) -> bytes:
    """Return the part of a body between header and check."""
    n_check_bytes = 4 if body[0] & 31 in _CRC32_KINDS else 2
    return body[HEADER.size : -n_check_bytes]


@dataclass
class FrameCounts:
    """What became of the bytes fed: frame_bytes + discarded_bytes + delimiters, less what waits."""

    frames_good: int = 0
    bad_code: int = 0
    bad_length: int = 0
    bad_check: int = 0
    bad_version: int = 0
    too_long: int = 0
    unverified_frames: int = 0
    frame_bytes: int = 0
    discarded_bytes: int = 0
    delimiters: int = 0


class _Check(NamedTuple):
    compute: Callable[[bytes, int], int]
    start: int
    residue: int
    n_bytes: int


def _checks(schema: bytes | None) -> tuple[_Check | None, ...]:
    """Return the check of each kind; None where it cannot be told without the schema."""
    table: list[_Check | None] = []
    for kind in range(32):
        context = schema if kind in _SCHEMA_CHECKED_KINDS else b""
        if context is None:
            table.append(None)
        elif kind in _CRC32_KINDS:
            table.append(_Check(zlib.crc32, zlib.crc32(context), _CRC32_RESIDUE, 4))
        else:
            table.append(_Check(crc_hqx, crc_hqx(context, _CRC16_START), _CRC16_RESIDUE, 2))
    return tuple(table)


class FrameDecoder:
    """Cuts a byte stream into checked frame bodies; what is no frame is counted, never raised.

    The result does not depend on how the stream was cut into chunks, a delimiter brings it back in
    sync whatever came before, and it holds at most ``MAX_CODE_BYTES`` between two calls.
    """

    def __init__(self, counts: FrameCounts | None = None) -> None:
        self.counts = FrameCounts() if counts is None else counts
        self._rest = b""
        self._skipping = False
        self._checks = _checks(None)

    @property
    def n_pending_bytes(self) -> int:
        """Bytes of a frame that has begun and not ended."""
        return len(self._rest)

    def learn(self, schema: bytes | None) -> None:
        """Check samples against these exact schema bytes; None: they cannot be verified."""
        self._checks = _checks(schema)

    def clear(self) -> None:
        """Forget a frame that has begun, as after a reconnect."""
        self.counts.discarded_bytes += len(self._rest)
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the bodies, checks included, of all frames that ``chunk`` completes."""
        *codes, rest = (self._rest + chunk).split(b"\0")
        counts = self.counts
        counts.delimiters += len(codes)
        if self._skipping and codes:
            counts.discarded_bytes += len(codes[0])
            codes[0] = b""
            self._skipping = False
        bodies = []
        n_good_bytes = 0
        for code in codes:
            if code:
                body = self._open(code)
                if body is None:
                    counts.discarded_bytes += len(code)
                else:
                    bodies.append(body)
                    n_good_bytes += len(code)
        counts.frames_good += len(bodies)
        counts.frame_bytes += n_good_bytes
        self._keep(rest)
        return bodies

    def _keep(self, rest: bytes) -> None:
        if len(rest) > MAX_CODE_BYTES or self._skipping:
            self.counts.too_long += not self._skipping
            self.counts.discarded_bytes += len(rest)
            self._skipping = True
            rest = b""
        self._rest = rest

    def _open(self, code: bytes) -> bytes | None:
        counts = self.counts
        if len(code) > MAX_CODE_BYTES:
            counts.too_long += 1
            return None
        body = cobs_decode(code)
        if body is None:
            counts.bad_code += 1
        elif not HEADER.size + 2 <= len(body) <= MAX_BODY_BYTES:
            counts.bad_length += 1
        else:
            return self._verify(body)
        return None

    def _verify(self, body: bytes) -> bytes | None:
        counts = self.counts
        check = self._checks[body[0] & 31]
        if check is None:
            counts.unverified_frames += 1
        elif check.compute(body, check.start) != check.residue:
            counts.bad_check += 1
        elif body[0] >> 5 != VERSION:
            counts.bad_version += 1
        elif len(body) < HEADER.size + check.n_bytes:
            counts.bad_length += 1
        else:
            return body
        return None
