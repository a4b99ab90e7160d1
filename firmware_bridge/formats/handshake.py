"""HELLO, schema, START: how host and board agree, whatever state either was in before."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from firmware_bridge.errors import ProtocolError, SchemaError
from firmware_bridge.formats.requests import ANSWER_S, N_TRIES, RequestNumbers, status_text
from firmware_bridge.formats.session import SessionSettings, describe, have_same_channels
from firmware_bridge.protocol.board_schema import BoardSchema, RateRange, schema_crc32
from firmware_bridge.protocol.messages import (
    START_ARGUMENTS,
    START_RESULT,
    Ack,
    AckStatus,
    Command,
    Hello,
    Message,
    ReadSchema,
    Received,
    Request,
    SchemaPart,
    Welcome,
)
from firmware_bridge.protocol.samples import SampleCodec
from firmware_bridge.sample import Schema

PROTO_MIN = PROTO_MAX = 1
_HELLO_S = 0.2
_SLOW_HELLO_S = 1.0
_HELLO_IS_SLOW_AFTER_S = 5.0
_N_SCHEMA_PART_BYTES = 512
_MAX_FRAMES_PER_S = 1000  # beyond it samples share frames: a frame costs more than a sample
_MAX_UART_LOAD = 0.8


class StartPlan(NamedTuple):
    """What to ask a board for."""

    rate_hz: float
    period_us: int
    n_per_frame: int

    @property
    def arguments(self) -> bytes:
        """The arguments of START."""
        return START_ARGUMENTS.pack(self.period_us, self.n_per_frame)


class Handshake:
    """Brings one board from any state to streaming. ``is_done`` once it acknowledged START.

    One question is outstanding at a time; unanswered, it is asked again, a START under its old id
    so that it acts once; after that everything begins anew with HELLO.
    """

    def __init__(self, settings: SessionSettings, numbers: RequestNumbers) -> None:
        self._settings = settings
        self._numbers = numbers
        self._request_id = 0
        self._wanted_rate_hz = settings.wanted_rate_hz
        self._wire = b""
        self.codec: SampleCodec | None = None
        self.schema: Schema | None = None
        self.boot_id: int | None = None
        self.epoch = 0
        self.period_us = 0
        self._plan = StartPlan(0.0, 0, 1)
        self.outgoing: list[Message] = []
        self.begin(0.0, None)

    def begin(self, now_s: float, paced_baud: int | None) -> None:
        """Start over with HELLO at once."""
        self.is_done = False
        self._paced_baud = paced_baud
        self._nonce = secrets.randbits(32)
        self._begun_s = now_s
        self._welcome: Welcome | None = None
        self._part = b""
        self._ask = self._hello
        self._n_tries_left = 0
        self.wake_at_s = now_s

    @property
    def is_greeting(self) -> bool:
        """Whether the board has not answered HELLO yet."""
        return self._ask == self._hello

    @property
    def n_max_body_bytes(self) -> int:
        """The longest frame body that the board takes; 0 until it was welcome."""
        return 0 if self._welcome is None else self._welcome.n_max_body_bytes

    @property
    def wire(self) -> bytes:
        """The schema exactly as sent; empty until it is known."""
        return self._wire

    def tick(self, now_s: float) -> None:
        """Ask, or ask again, what is due."""
        if self.is_done or now_s < self.wake_at_s:
            return
        if self._ask != self._hello and self._n_tries_left == 0:
            self.begin(now_s, self._paced_baud)
        self._send(now_s)

    def _send(self, now_s: float) -> None:
        self.outgoing.append(self._ask())
        self._n_tries_left -= 1
        if self._ask != self._hello:
            self.wake_at_s = now_s + ANSWER_S
        elif now_s - self._begun_s < _HELLO_IS_SLOW_AFTER_S:
            self.wake_at_s = now_s + _HELLO_S
        else:
            self.wake_at_s = now_s + _SLOW_HELLO_S

    def _turn_to(self, ask: Callable[[], Message], now_s: float) -> None:
        self._ask = ask
        self._n_tries_left = N_TRIES
        self._send(now_s)

    def _hello(self) -> Message:
        return Hello(PROTO_MIN, PROTO_MAX, self._nonce)

    def _read_schema(self) -> Message:
        return ReadSchema(len(self._part), _N_SCHEMA_PART_BYTES)

    def _start(self) -> Message:
        return Request(self._request_id, Command.START, self._plan.arguments)

    def take(self, received: Received, now_s: float) -> None:
        """Take a message of the board.

        Raises:
            ProtocolError: no common version, or START was refused.
            SchemaError: the schema is malformed or not the expected one.
        """
        message = received.message
        if self.is_done:
            return
        if isinstance(message, Welcome):
            self._take_welcome(message, now_s)
        elif isinstance(message, SchemaPart):
            self._take_schema_part(message, now_s)
        elif isinstance(message, Ack):
            self._take_ack(message, received.epoch)

    def _take_welcome(self, welcome: Welcome, now_s: float) -> None:
        if welcome.nonce != self._nonce or self._ask != self._hello:
            return
        if not PROTO_MIN <= welcome.proto <= PROTO_MAX:
            raise ProtocolError(
                f"no common protocol version: this host speaks {PROTO_MIN} to {PROTO_MAX}, the "
                f"board {welcome.proto_min} to {welcome.proto_max}; update one of them"
            )
        self._welcome = welcome
        self.boot_id = welcome.boot_id
        if self._is_known(self._wire, welcome):
            self._agree(now_s)
        else:
            self._part = b""
            self._turn_to(self._read_schema, now_s)

    @staticmethod
    def _is_known(wire: bytes, welcome: Welcome) -> bool:
        return len(wire) == welcome.n_schema_bytes and schema_crc32(wire) == welcome.schema_crc32

    def _take_schema_part(self, message: SchemaPart, now_s: float) -> None:
        welcome = self._welcome
        if self._ask != self._read_schema or welcome is None:
            return
        if message.offset != len(self._part) or not message.part:
            return
        self._part += message.part
        if len(self._part) < welcome.n_schema_bytes:
            self._turn_to(self._read_schema, now_s)
        elif self._is_known(self._part, welcome):
            self._wire = self._part
            self._agree(now_s)
        else:  # not in a tight loop with a board whose fingerprint is wrong
            self.begin(now_s, self._paced_baud)
            self.wake_at_s = now_s + _HELLO_S

    def _agree(self, now_s: float) -> None:
        """Compare the board's schema with the expected one, then ask for samples."""
        board = BoardSchema.from_wire(self._wire)
        offered = board.schema()
        expected = self._settings.schema
        if expected is not None and not have_same_channels(expected, offered):
            raise SchemaError(
                f"expected the channels {describe(expected)}; the board sends "
                f"{describe(offered)}; is this the right sensor for the model?"
            )
        self.codec = SampleCodec.from_wire(self._wire)
        self._plan = self.plan_start(None)
        self.schema = board.schema(self._plan.rate_hz)
        self._request_id = self._numbers.next()
        self._turn_to(self._start, now_s)

    def plan_start(self, rate_hz: float | None) -> StartPlan:
        """Plan a START at ``rate_hz``, None: as always, for a board whose schema is known.

        Raises:
            SchemaError: the board does not offer the rate, or nobody named one.
            ProtocolError: the baud rate cannot carry it.
        """
        board = BoardSchema.from_wire(self._wire)
        rate_hz = self._choose_rate(board, rate_hz or self._wanted_rate_hz)
        n_per_frame = self._choose_n_per_frame(SampleCodec.from_wire(self._wire), rate_hz)
        return StartPlan(rate_hz, max(1, round(1e6 / rate_hz)), n_per_frame)

    def restarted(self, plan: StartPlan, epoch: int, result: bytes) -> None:
        """Note that the board streams as planned; later handshakes ask for the same.

        Raises:
            SchemaError: it keeps another rate.
        """
        self.period_us = _period_in_force(result, plan.period_us)
        self.epoch = epoch
        self._wanted_rate_hz = plan.rate_hz
        self.schema = BoardSchema.from_wire(self._wire).schema(plan.rate_hz)

    @staticmethod
    def _choose_rate(board: BoardSchema, wanted_hz: float | None) -> float:
        wanted_hz = wanted_hz or board.default_rate_hz
        if wanted_hz is None:
            raise SchemaError(
                "the board names no sampling rate and none was asked for; give the rate in Hz"
            )
        if not board.offers_rate(wanted_hz):
            offer = board.rate_hz
            text = (
                f"{offer.min:g} to {offer.max:g}"
                if isinstance(offer, RateRange)
                else ", ".join(f"{rate_hz:g}" for rate_hz in offer or ())
            )
            raise SchemaError(f"expected samples at {wanted_hz:g} Hz; the board offers {text} Hz")
        return wanted_hz

    def _choose_n_per_frame(self, codec: SampleCodec, rate_hz: float) -> int:
        if codec.n_max_batch < 1:
            raise SchemaError("a sample of the board does not fit a frame; send fewer channels")
        wanted = -(-int(rate_hz) // _MAX_FRAMES_PER_S)
        n_per_frame = max(1, min(wanted, codec.n_max_batch))
        needed_baud = rate_hz / n_per_frame * codec.n_frame_bytes(n_per_frame) * 10 / _MAX_UART_LOAD
        if self._paced_baud is not None and needed_baud > self._paced_baud:
            raise ProtocolError(
                f"{rate_hz:g} samples a second need {needed_baud:.0f} baud, the port runs at "
                f"{self._paced_baud}; raise the baud rate on both sides or lower the rate"
            )
        return n_per_frame

    def _take_ack(self, ack: Ack, epoch: int) -> None:
        is_answer = ack.request_id == self._request_id and ack.command == Command.START
        if self._ask != self._start or not is_answer:
            return
        if ack.status == AckStatus.BUSY:
            self._request_id = self._numbers.next()  # the old id would bring the old answer
            return
        if ack.status != AckStatus.OK:
            raise ProtocolError(
                f"the board refused to start at {self._plan.rate_hz:g} Hz: "
                f"{status_text(ack.status)}"
            )
        self.epoch = epoch
        self.period_us = _period_in_force(ack.result, self._plan.period_us)
        self.is_done = True
        self.wake_at_s = float("inf")


def _period_in_force(result: bytes, asked_us: int) -> int:
    if len(result) < START_RESULT.size:
        return asked_us
    period_us: int = START_RESULT.unpack_from(result)[0]
    if abs(period_us - asked_us) > 0.01 * asked_us:
        raise SchemaError(
            f"expected a sample every {asked_us} us, the board sends one every "
            f"{period_us} us; ask for a rate it can keep"
        )
    return period_us
