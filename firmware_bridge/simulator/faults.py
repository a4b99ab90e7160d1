"""The faults of boards, cables and hosts, on demand: table name -> what it does, and when."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from firmware_bridge.errors import FormatError
from firmware_bridge.protocol.messages import START_ARGUMENTS, Command, Request, encode_message
from firmware_bridge.sample import Float32
from firmware_bridge.simulator.board_clock import BoardClock
from firmware_bridge.simulator.firmware import Firmware, FramedFirmware
from firmware_bridge.simulator.line import (
    MODEM_WORDS,
    Bursts,
    Cut,
    Doubled,
    Effect,
    Endless,
    Flips,
    Modem,
    OnlyAt,
    Swapped,
    WrongBaud,
    silence,
    without_schema,
)
from firmware_bridge.simulator.transmitter import Transmitter


class Patient(Protocol):
    """What a fault may touch of a simulated board, in the board's own thread."""

    firmware: Firmware
    clock: BoardClock
    out: Transmitter
    boot_s: float | None  # how long it is deaf after a start; it restarts when opened; None: never

    def schedule(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""

    def pull_out(self) -> None:
        """Unplug."""

    def plug_in(self) -> None:
        """Plug in, and start the firmware."""

    def crash(self) -> None:
        """Restart the firmware, in the middle of a frame if one is on its way."""

    def host_baud(self) -> int:
        """Return what the host has set the line to."""

    def lose(self, n_samples: int) -> None:
        """Lose the next samples on the way; their numbers are used up."""

    def spoil(self, effect: Callable[[Float32], Float32]) -> None:
        """Let ``effect`` change every sample before it is sent."""

    def jump(self, duration_us: int) -> None:
        """Let the clock jump, and sampling with it."""

    def flood(self, rate_hz: float) -> None:
        """Sample at another rate than the host asked for."""

    def framed(self, fault: str) -> FramedFirmware:
        """Return the firmware; raises FormatError if it speaks without frames."""


@dataclass(frozen=True)
class FaultKind:
    """One fault: what it does with a value, the default, a line of help, the value's bounds."""

    apply: Callable[[Patient, float], None]
    value: float
    help: str
    low: float = 0.0
    high: float = math.inf

    def allows(self, value: float) -> bool:
        """Tell whether the value makes sense; infinite it may only be where it is by default."""
        return self.low <= value <= self.high and (math.isfinite(value) or value == self.value)


def _unplug(board: Patient, duration_s: float) -> None:
    board.pull_out()
    board.schedule(duration_s, board.plug_in)


def _stall(_board: Patient, duration_s: float) -> None:
    time.sleep(duration_s)


def _modem(board: Patient, _value: float) -> None:
    board.out.send(board.firmware.take(MODEM_WORDS, board.clock.now_us))
    board.out.line_effects.append(Modem())


def _silent(board: Patient, duration_s: float) -> None:
    effects = board.out.line_effects
    effects.append(silence)
    if math.isfinite(duration_s):
        board.schedule(duration_s, lambda: effects.remove(silence))


def _slow(board: Patient, bytes_per_s: float) -> None:
    board.out.bytes_per_s = bytes_per_s
    board.out.ring_bytes = 1024


def _wrap(board: Patient, left_s: float) -> None:
    board.framed("wrap").count_from(65_530)
    board.clock.restart(2**32 - int(left_s * 1e6))
    board.crash()


def _channels(board: Patient, _value: float) -> None:
    board.firmware.reverse_channels()
    board.crash()


def _baud(board: Patient, baud: float) -> None:
    board.out.line_effects.append(OnlyAt(baud, board.host_baud))


def _version(board: Patient, version: float) -> None:
    board.framed("version").speak_only(int(version))


def _acks(board: Patient, n_acks: float) -> None:
    board.framed("lost-ack").lose_acks(int(n_acks))


def _schema(board: Patient, _value: float) -> None:
    board.framed("no-schema")
    board.out.line_effects.append(without_schema)


def _old_stream(board: Patient, _value: float) -> None:
    firmware = board.framed("old-stream")
    start = Request(1, Command.START, START_ARGUMENTS.pack(firmware.period_us, 1))
    firmware.take(encode_message(start), board.clock.now_us)


def _reset_on_open(board: Patient, boot_s: float) -> None:
    board.boot_s = boot_s


def _on_line(make: Callable[[float], Effect]) -> Callable[[Patient, float], None]:
    return lambda board, value: board.out.line_effects.append(make(value))


def _on_samples(make: Callable[[float], Effect]) -> Callable[[Patient, float], None]:
    return lambda board, value: board.out.sample_effects.append(make(value))


def _now_and_then(bad: float) -> Callable[[Patient, float], None]:
    """Make a fault that puts ``bad`` into the first channel of a share of the samples."""

    def apply(board: Patient, share: float) -> None:
        chance = random.Random(repr(bad))  # noqa: S311 - repeatable faults

        def spoil(values: Float32) -> Float32:
            if chance.random() >= share:
                return values
            spoilt = values.copy()
            spoilt[0] = bad
            return spoilt

        board.spoil(spoil)

    return apply


def _stuck(board: Patient, channel: float) -> None:
    held: Float32 | None = None

    def spoil(values: Float32) -> Float32:
        nonlocal held
        held = values if held is None else held
        index = int(channel) % len(values)
        spoilt = values.copy()
        spoilt[index] = held[index]
        return spoilt

    board.spoil(spoil)


FAULTS: dict[str, FaultKind] = {
    "unplug": FaultKind(_unplug, 1.0, "pull the cable for so many seconds; the name changes"),
    "cut": FaultKind(_on_line(Cut), 7, "lose so many bytes, as when joining in mid-stream", low=1),
    "overrun": FaultKind(_on_line(Cut), 4096, "lose so many bytes: a full kernel buffer", low=1),
    "flips": FaultKind(_on_line(Flips), 1e-4, "invert bits with this probability", high=1),
    "bursts": FaultKind(
        _on_line(Bursts), 0.02, "spoil up to 16 bytes in this share of frames", high=1
    ),
    "wrong-baud": FaultKind(_on_line(lambda _: WrongBaud()), 0, "send noise, zeros and 0xFF"),
    "baud": FaultKind(_baud, 9600, "send noise to a host at any other rate than this", low=1),
    "reset": FaultKind(lambda board, _: board.crash(), 0, "restart in mid-frame"),
    "doubled": FaultKind(_on_samples(Doubled), 10, "send every n-th sample twice", low=1),
    "swapped": FaultKind(
        _on_samples(Swapped), 10, "send every n-th sample after its successor", low=1
    ),
    "wrap": FaultKind(
        _wrap, 3.0, "let time wrap after so many seconds, and sample numbers at once", high=4294
    ),
    "lost": FaultKind(lambda board, n: board.lose(int(n)), 40_000, "lose so many samples", low=1),
    "drift": FaultKind(
        lambda board, ppm: board.clock.drift(ppm),
        500,
        "run fast by so many ppm",
        low=-100_000,
        high=100_000,
    ),
    "jump": FaultKind(
        lambda board, s: board.jump(int(s * 1e6)),
        7.0,
        "step the clock by seconds",
        low=-3600,
        high=3600,
    ),
    "stall": FaultKind(_stall, 0.5, "stop for so many seconds, then send all at once", high=3600),
    "flood": FaultKind(
        lambda board, hz: board.flood(hz), 20_000, "send at this rate, unasked", low=1
    ),
    "nan": FaultKind(_now_and_then(math.nan), 0.01, "make this share of the samples NaN", high=1),
    "inf": FaultKind(
        _now_and_then(math.inf), 0.01, "make this share of the samples infinite", high=1
    ),
    "range": FaultKind(_now_and_then(1e30), 0.01, "make this share of the samples huge", high=1),
    "stuck": FaultKind(_stuck, 0, "hold the value of this channel"),
    "channels": FaultKind(_channels, 0, "come back with the channels in another order"),
    "version": FaultKind(_version, 2, "speak only this version of the protocol", high=255),
    "modem": FaultKind(_modem, 0, "a modem manager writes AT commands into the port"),
    "silent": FaultKind(_silent, math.inf, "say nothing for so many seconds"),
    "reset-on-open": FaultKind(_reset_on_open, 0.5, "restart when opened, deaf for so long"),
    "no-schema": FaultKind(_schema, 0, "cut the schema short"),
    "endless": FaultKind(_on_line(Endless), 10_000_000, "so many bytes without a delimiter", low=1),
    "lost-ack": FaultKind(_acks, 1, "lose so many acknowledgements", low=1),
    "old-stream": FaultKind(_old_stream, 0, "stream already when the host comes"),
    "slow": FaultKind(
        _slow, 2000, "a line of so many bytes a second: the board drops samples", low=1
    ),
}


@dataclass(frozen=True)
class Fault:
    """A fault of `FAULTS`, its value, and when it strikes.

    ``after_s`` counts from the first sample; None: from power-on, before anything is sent.
    """

    name: str
    value: float
    after_s: float | None = None

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``NAME[=VALUE][@SECONDS]``.

        Raises:
            FormatError: no such fault, or a number that is none or out of bounds.
        """
        rest, _, after = text.partition("@")
        name, _, value = rest.partition("=")
        if name not in FAULTS:
            raise FormatError(f"expected one of the faults {', '.join(FAULTS)}; got {name!r}")
        kind = FAULTS[name]
        try:
            strength = float(value) if value else kind.value
            after_s = float(after) if after else None
        except ValueError as error:
            raise FormatError(f"expected NAME=NUMBER@SECONDS, got {text!r}") from error
        if not kind.allows(strength):
            raise FormatError(f"expected {name} from {kind.low:g} to {kind.high:g}, got {value}")
        if after_s is not None and not 0 <= after_s < math.inf:
            raise FormatError(f"expected seconds from the first sample on after @, got {after}")
        return cls(name, strength, after_s)

    def strike(self, board: Patient) -> None:
        """Let it happen."""
        FAULTS[self.name].apply(board, self.value)
