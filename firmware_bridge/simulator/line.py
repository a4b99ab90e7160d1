"""What a bad line does to bytes on their way to the host; each effect takes what was sent at once.

An effect may return less, more or other bytes than it took, and may hold some back for the next
call. Effects on whole samples are given one frame or line at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from firmware_bridge.framing import FrameDecoder
from firmware_bridge.protocol.messages import SchemaPart, decode_message, encode_message

Effect: TypeAlias = Callable[[bytes], bytes]

MODEM_WORDS = b"AT\r"


class Flips:
    """Inverts each bit with a probability."""

    def __init__(self, probability: float, seed: int = 0) -> None:
        self._byte_probability = min(1.0, 8 * probability)
        self._random = random.Random(seed)  # noqa: S311 - repeatable noise

    def __call__(self, wire: bytes) -> bytes:
        """Return ``wire`` with errors."""
        spoilt = bytearray(wire)
        for index in range(len(spoilt)):
            if self._random.random() < self._byte_probability:
                spoilt[index] ^= 1 << self._random.randrange(8)
        return bytes(spoilt)


class Bursts:
    """Replaces up to sixteen bytes in a row by noise, in a share of what is sent."""

    def __init__(self, probability: float, seed: int = 0) -> None:
        self._probability = probability
        self._random = random.Random(seed)  # noqa: S311 - repeatable noise

    def __call__(self, wire: bytes) -> bytes:
        """Return ``wire`` with at most one burst."""
        if not wire or self._random.random() >= self._probability:
            return wire
        start = self._random.randrange(len(wire))
        n_bytes = min(self._random.randint(1, 16), len(wire) - start)
        return wire[:start] + self._random.randbytes(n_bytes) + wire[start + n_bytes :]


class WrongBaud:
    """Turns everything into what a receiver at another rate sees: noise, runs of 0x00 and 0xFF."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable noise

    def __call__(self, wire: bytes) -> bytes:
        """Return as many other bytes."""
        kind = self._random.randrange(4)
        if kind < 2:
            return bytes([255 * kind]) * len(wire)
        return self._random.randbytes(len(wire))


class OnlyAt:
    """Lets bytes through unspoilt only while the host has the line at the board's baud rate."""

    def __init__(self, baud: float, host_baud: Callable[[], int]) -> None:
        self._baud = int(baud)
        self._host_baud = host_baud
        self._wrong = WrongBaud()

    def __call__(self, wire: bytes) -> bytes:
        """Return ``wire``, or noise."""
        return wire if self._host_baud() == self._baud else self._wrong(wire)


class Doubled:
    """Sends every ``n``-th sample twice."""

    def __init__(self, n: float) -> None:
        self._n = max(1, int(n))
        self._count = 0

    def __call__(self, frame: bytes) -> bytes:
        """Return ``frame``, or ``frame`` twice."""
        self._count += 1
        return frame * 2 if self._count % self._n == 0 else frame


class Swapped:
    """Sends every ``n``-th sample after the one that follows it."""

    def __init__(self, n: float) -> None:
        self._n = max(2, int(n))
        self._count = 0
        self._held = b""

    def __call__(self, frame: bytes) -> bytes:
        """Return nothing, or two frames, or ``frame``."""
        self._count += 1
        held, self._held = self._held, b""
        if self._count % self._n == 0:
            self._held = frame
            return held
        return frame + held


class Cut:
    """Loses the next ``n_bytes``, as a full kernel buffer or a late start does."""

    def __init__(self, n_bytes: float) -> None:
        self._n_left = int(n_bytes)

    def __call__(self, wire: bytes) -> bytes:
        """Return what is left."""
        n_lost = min(self._n_left, len(wire))
        self._n_left -= n_lost
        return wire[n_lost:]


class Modem:
    """Puts a modem manager's words before everything."""

    def __call__(self, wire: bytes) -> bytes:
        """Return ``wire`` and the words."""
        return MODEM_WORDS + wire if wire else wire


class Endless:
    """Fills the line with ``n_bytes`` that hold no delimiter and no line end."""

    def __init__(self, n_bytes: float) -> None:
        self._n_left = int(n_bytes)

    def __call__(self, wire: bytes) -> bytes:
        """Return as many bytes as were sent, until it has had enough."""
        if self._n_left <= 0:
            return wire
        self._n_left -= len(wire)
        return b"\x55" * len(wire)


def silence(_wire: bytes) -> bytes:
    """Lose everything."""
    return b""


def without_schema(wire: bytes) -> bytes:
    """Leave the parts of the schema out of the frames that carry them."""
    kept = bytearray()
    for body in FrameDecoder().feed(wire):
        received = decode_message(body)
        if received is not None and isinstance(received.message, SchemaPart):
            empty = SchemaPart(received.message.offset, b"")
            kept += encode_message(empty, epoch=received.epoch, t_us=received.t_us)
    return bytes(kept) or wire
