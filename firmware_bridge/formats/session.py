"""What every format offers to the link, and the counters they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from firmware_bridge.framing import FrameCounts
from firmware_bridge.sample import Float64, Int64, Item, Schema

SILENCE_S = 3.0  # boards report every second, so this long without a word is a fault
NO_FRAME_S = 2.0
FULL_CHUNK_BYTES = 4095  # the most that one read of a terminal returns: more is waiting


@dataclass
class LinkStatistics(FrameCounts):
    """Counters since the link was made; the wire's faults are here and nowhere else."""

    bytes_read: int = 0
    bytes_written: int = 0
    samples: int = 0
    lost_samples: int = 0  # on the way: the board numbered them, they never came
    duplicate_samples: int = 0  # late or doubled, dropped
    foreign_epoch_samples: int = 0  # of a stream that nobody here asked for, dropped
    overrun_samples: int = 0  # read, and dropped here because nobody took them
    unknown_frames: int = 0
    bad_lines: int = 0
    long_lines: int = 0
    reconnects: int = 0
    resyncs: int = 0  # handshakes after the first on an open port
    board_dropped_samples: int = 0  # the board's own words: its ring was full
    board_missed_samples: int = 0  # likewise: too late to sample
    unsent_predictions: int = 0  # for the board: overtaken by a newer one, or no stream to be of
    unwritten_bytes: int = 0  # for the board: the port took no more
    late_samples: int = 0  # read more than 0.1 s after they were taken, fed nevertheless
    unlocked_samples: int = 0  # whose time rests on their arrival alone
    sensor_faults: int = 0  # times that the board said its sensor had failed
    clock_drift_ppm: float = 0.0  # how much faster than the host's clock the board's runs
    clock_drift_alarms: int = 0
    rate_hz: float = 0.0  # of lines, estimated from their arrival; 0: not steady, or numbered

    @property
    def frames_bad(self) -> int:
        """Frames, or lines, that were refused."""
        return (
            self.bad_code
            + self.bad_length
            + self.bad_check
            + self.bad_version
            + self.too_long
            + self.bad_lines
            + self.long_lines
        )


@dataclass(frozen=True)
class SessionSettings:
    """What the host wants: the model's schema (None: whatever comes) and the rate to ask for."""

    schema: Schema | None = None
    rate_hz: float | None = None

    @property
    def wanted_rate_hz(self) -> float | None:
        """The rate the user named, else the schema's."""
        if self.rate_hz is not None:
            return self.rate_hz
        return None if self.schema is None else self.schema.rate_hz


class TickClock(Protocol):
    """What a format with device time needs of `firmware_bridge.clock.DeviceClock`."""

    def reset(self) -> None:
        """Forget how the two times compare, as after a reboot of the board."""

    @property
    def is_locked(self) -> bool:
        """Whether times rest on more than arrivals."""

    @property
    def drift_ppm(self) -> float:
        """How much faster than the host's clock the board's runs."""

    @property
    def n_drift_alarms(self) -> int:
        """How often the drift became too large."""

    def extend(self, t_us: npt.NDArray[np.uint32]) -> Int64:
        """Return 64-bit ticks of device times that wrap."""

    def note_pong(
        self, sent_s: float, arrived_us: int, answered_us: int, received_s: float
    ) -> None:
        """Learn from an answered ping."""

    def note_arrival(self, ticks_us: int, arrived_s: float) -> None:
        """Learn from the arrival of a sample."""

    def to_host(self, ticks_us: Int64) -> Float64:
        """Return host seconds."""


class Session(Protocol):
    """A format's side of one port, without I/O: bytes and time in, items and bytes out.

    Bytes never raise. ``receive`` and ``tick`` raise ``SchemaError`` or ``ProtocolError`` when the
    board cannot be worked with at all; the link then ends.
    """

    def connected(self, now_s: float, port: str, paced_baud: int | None, /) -> None:
        """Begin on a port just opened; ``paced_baud`` is None where the baud rate means nothing."""

    def disconnected(self, now_s: float, reason: str) -> list[Item]:
        """End on a port that hung up."""

    def receive(self, chunk: bytes, now_s: float) -> list[Item]:
        """Take bytes as read."""

    def tick(self, now_s: float) -> list[Item]:
        """Let timers run; to be called at ``wake_at_s`` at the latest."""

    def take_outgoing(self) -> bytes:
        """Return, once, what is to be written."""

    def farewell(self) -> bytes:
        """Return what to write before the port is closed in peace."""

    @property
    def wake_at_s(self) -> float:
        """When ``tick`` has something to do."""


def describe(schema: Schema) -> str:
    """Return the channels of a schema for people."""
    return ", ".join(f"{c.name} [{c.unit}]" if c.unit else c.name for c in schema.channels)


def have_same_channels(expected: Schema, offered: Schema) -> bool:
    """Tell whether names and order agree, and units where both sides know them.

    An unnamed schema knows only how many channels there are.
    """
    if expected.is_unnamed or offered.is_unnamed:
        return expected.n_channels == offered.n_channels
    return expected.names == offered.names and all(
        not mine.unit or not theirs.unit or mine.unit == theirs.unit
        for mine, theirs in zip(expected.channels, offered.channels, strict=True)
    )


def n_bytes_text(n_bytes: int) -> str:
    """Return a byte count for people."""
    return f"{n_bytes} bytes" if n_bytes < 1000 else f"{n_bytes / 1000:.0f} kB"
