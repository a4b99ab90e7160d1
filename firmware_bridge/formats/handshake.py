"""HELLO, schema, START: how host and board agree, whatever state either was in before."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from firmware_bridge.errors import ProtocolError, SchemaError
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
_ANSWER_S = 0.25
_N_TRIES = 4
_N_SCHEMA_PART_BYTES = 512
_MAX_FRAMES_PER_S = 1000  # beyond it samples share frames: a frame costs more than a sample
_MAX_UART_LOAD = 0.8


class Handshake:
    """Brings one board from any state to streaming. ``is_done`` once it acknowledged START.

    One question is outstanding at a time; unanswered, it is asked again, a START under its old id
    so that it acts once; after that everything begins anew with HELLO.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._request_id = 0
        self._wire = b""
        self.codec: SampleCodec | None = None
        self.schema: Schema | None = None
        self.boot_id: int | None = None
        self.epoch = 0
        self.period_us = 0
        self._asked_period_us = 0
        self._n_per_frame = 1
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
            self.wake_at_s = now_s + _ANSWER_S
        elif now_s - self._begun_s < _HELLO_IS_SLOW_AFTER_S:
            self.wake_at_s = now_s + _HELLO_S
        else:
            self.wake_at_s = now_s + _SLOW_HELLO_S

    def _turn_to(self, ask: Callable[[], Message], now_s: float) -> None:
        self._ask = ask
        self._n_tries_left = _N_TRIES
        self._send(now_s)

    def _hello(self) -> Message:
        return Hello(PROTO_MIN, PROTO_MAX, self._nonce)

    def _read_schema(self) -> Message:
        return ReadSchema(len(self._part), _N_SCHEMA_PART_BYTES)

    def _start(self) -> Message:
        arguments = START_ARGUMENTS.pack(self._asked_period_us, self._n_per_frame)
        return Request(self._request_id, Command.START, arguments)

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
        rate_hz = self._choose_rate(board)
        self.codec = SampleCodec.from_wire(self._wire)
        self.schema = board.schema(rate_hz)
        self._asked_period_us = max(1, round(1e6 / rate_hz))
        self._n_per_frame = self._choose_n_per_frame(self.codec, rate_hz)
        self._request_id = self._request_id % 255 + 1
        self._turn_to(self._start, now_s)

    def _choose_rate(self, board: BoardSchema) -> float:
        wanted_hz = self._settings.wanted_rate_hz or board.default_rate_hz
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
            self._request_id = self._request_id % 255 + 1  # the old id would bring the old answer
            return
        if ack.status != AckStatus.OK:
            raise ProtocolError(
                f"the board refused to start at {1e6 / self._asked_period_us:g} Hz: "
                f"{_status_text(ack.status)}"
            )
        self.epoch = epoch
        self.period_us = self._period_in_force(ack)
        self.is_done = True
        self.wake_at_s = float("inf")

    def _period_in_force(self, ack: Ack) -> int:
        if len(ack.result) < START_RESULT.size:
            return self._asked_period_us
        period_us: int = START_RESULT.unpack_from(ack.result)[0]
        if abs(period_us - self._asked_period_us) > 0.01 * self._asked_period_us:
            raise SchemaError(
                f"expected a sample every {self._asked_period_us} us, the board sends one every "
                f"{period_us} us; ask for a rate it can keep"
            )
        return period_us


def _status_text(status: int) -> str:
    try:
        return AckStatus(status).name.lower().replace("_", " ")
    except ValueError:
        return f"status {status}"
