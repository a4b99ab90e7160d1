"""What runs on a simulated board, without I/O: the framed protocol."""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec
import numpy as np

from firmware_bridge.framing import MAX_BODY_BYTES, FrameDecoder
from firmware_bridge.protocol.board_schema import BoardSchema, schema_crc32
from firmware_bridge.protocol.messages import (
    FLAG_ALARM_LIT,
    FLAG_STREAMING,
    PREDICTION_HAS_ALARM,
    START_ARGUMENTS,
    START_RESULT,
    Ack,
    AckStatus,
    Alarm,
    Boot,
    Command,
    Hello,
    Message,
    Ping,
    Pong,
    Prediction,
    ReadSchema,
    Received,
    Request,
    SchemaPart,
    Status,
    Welcome,
    decode_message,
    encode_message,
)
from firmware_bridge.protocol.samples import SampleCodec
from firmware_bridge.sample import Float32

_log = logging.getLogger(__name__)

_STATUS_US = 1_000_000
_N_SCHEMA_PART_BYTES = 200  # what a small board has room for
_RESET_BY_SOFTWARE = 3


class Firmware(Protocol):
    """A board's program. Times are its own microseconds; every method returns bytes to send."""

    is_streaming: bool
    period_us: int

    def boot(self, t_us: int, /) -> bytes:
        """Start with fresh memory."""

    def greet(self, t_us: int, /) -> bytes:
        """React to a host that opened the port."""

    def take(self, chunk: bytes, t_us: int, /) -> bytes:
        """React to bytes from the host."""

    def tick(self, t_us: int, /) -> bytes:
        """Send what is due without being asked."""

    def sample(self, values: Float32, t_us: int, /) -> bytes:
        """Send a sample taken at ``t_us``; empty while a batch fills."""

    def skip(self) -> bytes:
        """Take a sample that is not sent although it was counted."""

    def flush(self) -> bytes:
        """Send what waits for its batch to fill."""

    def reverse_channels(self) -> None:
        """Send the channels in the other order from the next start on."""

    def note_no_room(self) -> int:
        """Learn that the last frame found no room; return the number of samples in it."""


class FramedFirmware:
    """Speaks the framed protocol as a board does.

    ``proto_min``, ``proto_max`` and ``first_seq`` make boards that tests need. ``prediction`` is
    the last that came for the stream that runs, ``alarms`` what was last said of alerts.
    """

    def __init__(
        self, board: BoardSchema, *, first_seq: int = 0, proto_min: int = 1, proto_max: int = 1
    ) -> None:
        self._board = board
        self._wire = board.to_wire()
        self._codec = SampleCodec(board)
        self._first_seq = first_seq
        self._proto_min, self._proto_max = proto_min, proto_max
        self._boot_id = 0
        self._n_acks_to_lose = 0
        self.prediction: Prediction | None = None
        self.alarms = 0
        self.period_us = max(1, round(1e6 / (board.default_rate_hz or 100.0)))

    def boot(self, t_us: int) -> bytes:
        """Forget everything but the boot counter, which outlives a reset."""
        self._boot_id += 1
        self._epoch = self._boot_id * 97 % 256  # far from the epochs of the boot before
        self._booted_us = t_us
        self._next_status_us = t_us + _STATUS_US
        self._decoder = FrameDecoder()
        self._last_ack: Ack | None = None
        self._n_per_frame = 1
        self._n_samples = self._n_dropped = self._n_rx_bad = self._n_predictions = 0
        self.prediction, self.alarms = None, 0
        self._n_in_frame = 0
        self.is_streaming = False
        self._forget_batch()
        boot = Boot(self._boot_id, _RESET_BY_SOFTWARE, self._proto_min, self._proto_max)
        return self._encode(boot, t_us)

    def greet(self, _t_us: int) -> bytes:
        """Say nothing: the host speaks first."""
        return b""

    def count_from(self, first_seq: int) -> None:
        """Number samples from here on, after the next START."""
        self._first_seq = first_seq

    def speak_only(self, proto: int) -> None:
        """Know one version of the protocol."""
        self._proto_min = self._proto_max = proto

    def reverse_channels(self) -> None:
        """Become a board that sends its channels in the other order, from the next boot on."""
        self._board = msgspec.structs.replace(self._board, channels=self._board.channels[::-1])
        self._wire = self._board.to_wire()
        self._codec = SampleCodec(self._board)

    def lose_acks(self, n_acks: int) -> None:
        """Let the line swallow the next acknowledgements."""
        self._n_acks_to_lose = n_acks

    def take(self, chunk: bytes, t_us: int) -> bytes:
        """Answer what is a message; count the rest."""
        answers = b""
        for body in self._decoder.feed(chunk):
            received = decode_message(body)
            if received is not None:
                answers += self._answer(received, t_us)
        counts = self._decoder.counts
        self._n_rx_bad = counts.bad_code + counts.bad_check + counts.bad_length
        return answers

    def _answer(self, received: Received, t_us: int) -> bytes:
        message = received.message
        answer: Message
        if isinstance(message, Hello):
            self._last_ack = None
            answer = self._welcome(message)
        elif isinstance(message, ReadSchema):
            n_bytes = min(message.n_bytes, _N_SCHEMA_PART_BYTES)
            part = self._wire[message.offset : message.offset + n_bytes]
            answer = SchemaPart(message.offset, part)
        elif isinstance(message, Ping):
            answer = Pong(message.token, t_us & 0xFFFFFFFF)
            return self._encode(answer, t_us, seq=received.seq)
        elif isinstance(message, Request):
            return self._acknowledge(message, t_us)
        else:
            self._heed(message, received.epoch)
            return b""
        return self._encode(answer, t_us)

    def _heed(self, message: Message, epoch: int) -> None:
        """Take what the model says."""
        if isinstance(message, Alarm):
            if message.alarms != self.alarms:
                _log.info("the board's alarms are now %#x", message.alarms)
            self.alarms = message.alarms
        elif isinstance(message, Prediction) and self.is_streaming and epoch == self._epoch:
            self.prediction = message
            self._n_predictions += 1

    @property
    def has_alarm(self) -> bool:
        """Whether an alert of the model is active."""
        flags = 0 if self.prediction is None else self.prediction.flags
        return bool(self.alarms or flags & PREDICTION_HAS_ALARM)

    def _welcome(self, hello: Hello) -> Welcome:
        common = min(self._proto_max, hello.proto_max)
        return Welcome(
            proto=common if common >= max(self._proto_min, hello.proto_min) else 0,
            proto_min=self._proto_min,
            proto_max=self._proto_max,
            reset_cause=_RESET_BY_SOFTWARE,
            boot_id=self._boot_id,
            schema_crc32=schema_crc32(self._wire),
            n_schema_bytes=len(self._wire),
            n_max_body_bytes=MAX_BODY_BYTES,
            nonce=hello.nonce,
        )

    def _acknowledge(self, request: Request, t_us: int) -> bytes:
        """Act, unless this id was answered before: then the answer was lost, not the command."""
        if self._last_ack is None or self._last_ack.request_id != request.request_id:
            status = self._act(request, t_us)
            result = START_RESULT.pack(self.period_us) if request.command == Command.START else b""
            self._last_ack = Ack(request.request_id, request.command, status, result)
            if request.command == Command.RESET:
                return self._encode(self._last_ack, t_us) + self.boot(t_us)
        if self._n_acks_to_lose:
            self._n_acks_to_lose -= 1
            return b""
        return self._encode(self._last_ack, t_us)

    def _act(self, request: Request, t_us: int) -> AckStatus:
        if request.command == Command.STOP:
            self.is_streaming = False
            return AckStatus.OK
        if request.command in (Command.IDENTIFY, Command.RESET):
            return AckStatus.OK
        if request.command != Command.START:
            is_known = request.command == Command.SET
            return AckStatus.NOT_SUPPORTED if is_known else AckStatus.UNKNOWN_COMMAND
        if len(request.arguments) != START_ARGUMENTS.size:
            return AckStatus.BAD_ARGUMENT
        period_us, n_per_frame = START_ARGUMENTS.unpack(request.arguments)
        if not period_us or not 1 <= n_per_frame <= self._codec.n_max_batch:
            return AckStatus.BAD_ARGUMENT
        self.period_us, self._n_per_frame = period_us, n_per_frame
        self._epoch = (self._epoch + 1) % 256
        self._seq = self._first_seq
        self._n_samples = self._n_dropped = 0
        self.is_streaming = True
        self._forget_batch()
        _log.debug("streaming every %d us from %d us on", period_us, t_us)
        return AckStatus.OK

    def tick(self, t_us: int) -> bytes:
        """Send STATUS every second, streaming or not."""
        if t_us < self._next_status_us:
            return b""
        self._next_status_us += _STATUS_US
        status = Status(
            boot_id=self._boot_id,
            uptime_s=(t_us - self._booted_us) // 1_000_000,
            n_samples=self._n_samples,
            n_dropped=self._n_dropped,
            n_missed=0,
            n_rx_bad=self._n_rx_bad & 0xFFFF,
            n_rx_overrun=0,
            ring_high_water=0,
            reset_cause=_RESET_BY_SOFTWARE,
            flags=FLAG_STREAMING * self.is_streaming | FLAG_ALARM_LIT * self.has_alarm,
            n_rx_good=self._decoder.counts.frames_good,
            n_predictions=self._n_predictions,
        )
        return self._encode(status, t_us)

    def sample(self, values: Float32, t_us: int) -> bytes:
        """Return the frame that this sample completes."""
        if not self._batch:
            self._batch_t_us = t_us
        self._batch.append(values)
        if len(self._batch) < self._n_per_frame:
            return b""
        return self.flush()

    def flush(self) -> bytes:
        """Return a frame of the samples that wait for their batch to fill."""
        if not self._batch:
            return b""
        frame = self._codec.encode(
            np.array(self._batch), epoch=self._epoch, seq=self._seq, t_us=self._batch_t_us
        )
        self._n_in_frame = len(self._batch)
        self._n_samples += self._n_in_frame
        self._seq += self._n_in_frame
        self._forget_batch()
        return frame

    def skip(self) -> bytes:
        """Leave a sample out; its number is used up."""
        pending = self.flush()
        self._seq += 1
        return pending

    def note_no_room(self) -> int:
        """Count the samples of the last frame as dropped, for STATUS."""
        self._n_dropped += self._n_in_frame
        return self._n_in_frame

    def _forget_batch(self) -> None:
        self._batch: list[Float32] = []
        self._batch_t_us = 0

    def _encode(self, message: Message, t_us: int, *, seq: int = 0) -> bytes:
        return encode_message(message, epoch=self._epoch, seq=seq, t_us=t_us)
