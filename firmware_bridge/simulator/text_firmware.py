"""What runs on a simulated board that prints: lines of CSV, pairs, JSON or Teleplot; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from firmware_bridge.sample import Channel, Float32, Schema

Printer = Callable[[Sequence[Channel], list[float]], str]


def _csv_header(channels: Sequence[Channel]) -> str:
    return ",".join(f"{c.name} [{c.unit}]" if c.unit else c.name for c in channels)


def _csv(_channels: Sequence[Channel], values: list[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)  # so that float32 reads back exactly


def _pairs(channels: Sequence[Channel], values: list[float]) -> str:
    return ",".join(f"{c.name}:{v:.9g}" for c, v in zip(channels, values, strict=True))


def _json(channels: Sequence[Channel], values: list[float]) -> str:
    pairs = zip(channels, values, strict=True)
    return msgspec.json.encode({c.name: v for c, v in pairs}).decode()


def _teleplot(channels: Sequence[Channel], values: list[float]) -> str:
    pairs = zip(channels, values, strict=True)
    return "\r\n".join(
        f">{c.name}:{v:.9g}" + (f"\u00a7{c.unit}" if c.unit else "") for c, v in pairs
    )


PRINTERS: dict[str, Printer] = {
    "csv": _csv,
    "pairs": _pairs,
    "jsonl": _json,
    "teleplot": _teleplot,
    "edge-impulse": _csv,
}


class TextFirmware:
    """Prints every sample; as CSV after a header line when opened, as a board that resets then."""

    def __init__(self, schema: Schema, format: str = "csv") -> None:  # noqa: A002 - as in Link
        self._channels = schema.channels
        self._has_header = format == "csv"
        self._print = PRINTERS[format]
        self.period_us = max(1, round(1e6 / (schema.rate_hz or 100.0)))
        self.is_streaming = False

    def boot(self, _t_us: int) -> bytes:
        """Wait for somebody to open the port."""
        self.is_streaming = False
        return b""

    def greet(self, _t_us: int) -> bytes:
        """Print the header, or a blank line: the first line of a port may be cut."""
        self.is_streaming = True
        return (_csv_header(self._channels).encode() if self._has_header else b"") + b"\r\n"

    def take(self, _chunk: bytes, _t_us: int) -> bytes:
        """Ignore it."""
        return b""

    def tick(self, _t_us: int) -> bytes:
        """Say nothing."""
        return b""

    def sample(self, values: Float32, _t_us: int) -> bytes:
        """Print the values."""
        return self._print(self._channels, values.tolist()).encode() + b"\r\n"

    def skip(self) -> bytes:
        """Print nothing."""
        return b""

    def flush(self) -> bytes:
        """Return nothing: every line went out at once."""
        return b""

    def reverse_channels(self) -> None:
        """Name the channels in the other order."""
        self._channels = self._channels[::-1]

    def note_no_room(self) -> int:
        """Return 1; nobody can be told."""
        return 1
