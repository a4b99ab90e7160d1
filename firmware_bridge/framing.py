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
from typing import TypeAlias

from firmware_bridge.cobs import cobs_decode_all, cobs_encode

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


_Check: TypeAlias = tuple[Callable[[bytes, int], int], int, int, int]


def _checks(schema: bytes | None) -> tuple[_Check | None, ...]:
    """Return compute, start, residue and shortest body of each kind's check.

    None stands where it cannot be told without the schema.
    """
    table: list[_Check | None] = []
    for kind in range(32):
        context = schema if kind in _SCHEMA_CHECKED_KINDS else b""
        if context is None:
            table.append(None)
        elif kind in _CRC32_KINDS:
            table.append((zlib.crc32, zlib.crc32(context), _CRC32_RESIDUE, HEADER.size + 4))
        else:
            start = crc_hqx(context, _CRC16_START)
            table.append((crc_hqx, start, _CRC16_RESIDUE, HEADER.size + 2))
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
        stream = self._rest + chunk
        *codes, rest = stream.split(b"\0")
        counts, checks = self.counts, self._checks
        counts.delimiters += len(codes)
        if self._skipping and codes:
            counts.discarded_bytes += len(codes[0])
            codes[0] = b""
            self._skipping = False
        if len(rest) > MAX_CODE_BYTES or self._skipping:
            rest = self._skip(rest)
        self._rest = rest
        codes = [code for code in codes if code]
        if len(stream) > MAX_CODE_BYTES:
            codes = self._without_long(codes)
        bodies = []
        n_good_bytes = 0
        for code, body in zip(codes, cobs_decode_all(codes), strict=True):
            if body and _is_whole(body, checks[body[0] & 31]):
                bodies.append(body)
                n_good_bytes += len(code)
            else:
                self._refuse(code, body)
        counts.frames_good += len(bodies)
        counts.frame_bytes += n_good_bytes
        return bodies

    def _skip(self, rest: bytes) -> bytes:
        """Discard the begin of what is too long to be a frame, up to the next delimiter."""
        self.counts.too_long += not self._skipping
        self.counts.discarded_bytes += len(rest)
        self._skipping = True
        return b""

    def _without_long(self, codes: list[bytes]) -> list[bytes]:
        """Return the codes that are short enough to be frames."""
        short = [code for code in codes if len(code) <= MAX_CODE_BYTES]
        if len(short) < len(codes):
            self.counts.too_long += len(codes) - len(short)
            self.counts.discarded_bytes += sum(map(len, codes)) - sum(map(len, short))
        return short

    def _refuse(self, code: bytes, body: bytes | None) -> None:
        """Count what is no frame under the first reason that holds."""
        counts = self.counts
        counts.discarded_bytes += len(code)
        if body is None:
            counts.bad_code += 1
        elif not HEADER.size + 2 <= len(body) <= MAX_BODY_BYTES:
            counts.bad_length += 1
        elif (check := self._checks[body[0] & 31]) is None:
            counts.unverified_frames += 1
        elif check[0](body, check[1]) != check[2]:
            counts.bad_check += 1
        elif body[0] >> 5 != VERSION:
            counts.bad_version += 1
        else:
            counts.bad_length += 1


def _is_whole(body: bytes, check: _Check | None) -> bool:
    """Tell whether a body is as it was sent, of this version, and of a length there is."""
    if check is None:
        return False
    compute, start, residue, n_min_bytes = check
    return (
        compute(body, start) == residue
        and body[0] >> 5 == VERSION
        and n_min_bytes <= len(body) <= MAX_BODY_BYTES
    )
