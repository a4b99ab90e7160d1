"""The framed protocol as a host speaks it: handshake, samples in order, time, watchdog."""

from __future__ import annotations

import logging
from itertools import groupby

import numpy as np

from firmware_bridge.errors import BridgeError
from firmware_bridge.formats.back_channel import BackChannel
from firmware_bridge.formats.handshake import Handshake, StartPlan
from firmware_bridge.formats.ordering import SampleOrder
from firmware_bridge.formats.pings import Pinger
from firmware_bridge.formats.requests import (
    LAST_WORDS_ID,
    PendingRequest,
    Requester,
    RequestNumbers,
)
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.watchdog import Watchdog
from firmware_bridge.framing import FrameDecoder
from firmware_bridge.protocol.messages import (
    FLAG_SENSOR_FAULT,
    Ack,
    Boot,
    Command,
    Kind,
    Log,
    Pong,
    Received,
    Request,
    Status,
    decode_message,
    encode_message,
)
from firmware_bridge.sample import EpochChanged, Item, LinkDown, LinkUp, Schema

_log = logging.getLogger(__name__)

_LOOK_S = 0.25
_SAMPLE_KINDS = frozenset({Kind.DATA, Kind.BATCH})


class FramedSession:
    """One board behind one port, as `firmware_bridge.formats.session.Session` describes it.

    ``LinkUp`` and ``EpochChanged`` come with the first sample, not with the board's promise of one.
    """

    def __init__(self, settings: SessionSettings, counts: LinkStatistics, clock: TickClock) -> None:
        self._counts = counts
        self._decoder = FrameDecoder(counts)
        numbers = RequestNumbers()
        self._handshake = Handshake(settings, numbers)
        self.back_channel = BackChannel(counts, Requester(numbers, self._prepare))
        self._start_plan: StartPlan | None = None
        self._clock = clock
        self._order = SampleOrder(self._clock, counts)
        self._clock_boot_id: int | None = None
        self._is_up = self._has_sensor_fault = False
        self._up_schema: Schema | None = None
        self._pings = Pinger(clock)
        self._watchdog = Watchdog(counts)
        self._look_at_s = 0.0
        self.connected(0.0, "", None)

    def connected(self, now_s: float, port: str, paced_baud: int | None) -> None:
        """Begin on a port just opened."""
        self._port = port
        self._paced_baud = paced_baud
        self._outbox = bytearray()
        self._decoder.clear()
        self._watchdog.connected(now_s)
        self._has_complained = False
        self._begin(now_s, "")

    def disconnected(self, now_s: float, reason: str) -> list[Item]:
        """End on a port that hung up."""
        self._is_up = False
        self.back_channel.close(reason)
        return [LinkDown(now_s, reason)]

    def take_outgoing(self) -> bytes:
        """Return, once, what is to be written."""
        for message in self._handshake.outgoing:
            self._outbox += encode_message(message)
        self._handshake.outgoing.clear()
        outgoing = bytes(self._outbox)
        self._outbox.clear()
        return outgoing

    def farewell(self) -> bytes:
        """Return a STOP; nobody waits for its answer."""
        self.back_channel.close("the link was stopped")
        return encode_message(Request(LAST_WORDS_ID, Command.STOP, b"")) if self._is_up else b""

    @property
    def wake_at_s(self) -> float:
        """When `tick` has something to do."""
        own_s = min(self._look_at_s, self._handshake.wake_at_s, self._pings.due_s)
        return min(own_s, self.back_channel.due_s)

    def receive(self, chunk: bytes, now_s: float) -> list[Item]:
        """Take bytes as read.

        Raises:
            ProtocolError, SchemaError: the board cannot be worked with.
        """
        self._counts.bytes_read += len(chunk)
        items: list[Item] = []
        bodies = self._decoder.feed(chunk)
        for _, alike in groupby(bodies, _head):
            run = list(alike)
            layout = self._layout(run[0])
            if layout is not None:
                items += self._take_samples(run, now_s)
            else:
                for body in run:
                    self._take_message(body, now_s)
        if bodies:
            self._watchdog.note_frame(now_s)
        return items

    def tick(self, now_s: float) -> list[Item]:
        """Let timers run."""
        self._handshake.tick(now_s)
        if now_s >= self._pings.due_s:
            self._outbox += self._pings.ask(now_s)
        self._outbox += self.back_channel.take(now_s)
        if now_s < self._look_at_s:
            return []
        self._look_at_s = now_s + _LOOK_S
        self._counts.clock_drift_ppm = self._clock.drift_ppm
        self._counts.clock_drift_alarms = self._clock.n_drift_alarms
        return self._look(now_s)

    def _begin(self, now_s: float, reason: str) -> None:
        """Shake hands; what comes before the next ACK belongs to no stream of ours."""
        self._reason = reason
        self._epoch: int | None = None
        self._is_announced = self._is_paused = False
        self._watchdog.begin(now_s)
        self._pings.pause()
        self.back_channel.close(reason)
        self._look_at_s = now_s + _LOOK_S
        self._handshake.begin(now_s, self._paced_baud)

    def _resync(self, now_s: float, reason: str) -> None:
        _log.info("%s: %s; shaking hands again", self._port, reason)
        self._counts.resyncs += 1
        self._begin(now_s, reason)

    # Samples

    def _layout(self, body: bytes) -> np.dtype[np.void] | None:
        codec = self._handshake.codec
        return codec.layout(body) if codec and body[0] & 31 in _SAMPLE_KINDS else None

    def _take_samples(self, bodies: list[bytes], now_s: float) -> list[Item]:
        """Return the items in frames of one layout and one epoch."""
        codec = self._handshake.codec
        if codec is None:
            return []
        epoch, seq, t_us, values = codec.decode(bodies)
        n_per_frame = len(values) // len(bodies)
        if epoch[0] != self._epoch:  # that of all: a run has one
            self._take_foreign(len(values), now_s)
            return []
        self._watchdog.note_samples(now_s)
        ticks_us = self._clock.extend(t_us)
        if n_per_frame > 1:
            within = np.arange(n_per_frame)
            seq = (seq[:, None] + within.astype(np.uint16)).ravel()
            ticks_us = (ticks_us[:, None] + within * self._handshake.period_us).ravel()
        items = self._order.sort(seq, ticks_us, values, now_s)
        return items if self._is_announced else [*self._announce(now_s), *items]

    def _take_foreign(self, n_samples: int, now_s: float) -> None:
        self._counts.foreign_epoch_samples += n_samples
        if self._epoch is not None:
            self._watchdog.note_foreign(now_s)

    def _announce(self, now_s: float) -> list[Item]:
        """Say, before the first sample of a stream, what stream it is."""
        self._is_announced = True
        schema = self._handshake.schema
        if self._is_up and schema == self._up_schema and self._epoch is not None:
            return [EpochChanged(now_s, self._epoch, self._reason)]
        if schema is None:
            return []
        items: list[Item] = [LinkUp(now_s, self._port, schema, epoch=self._epoch)]
        if self._is_up:
            changed = "the board changed its channels or its rate"
            items.insert(0, LinkDown(now_s, self._reason or changed))
        _log.info("%s: streaming", self._port)
        self._is_up = True
        self._up_schema = schema
        self._has_complained = False
        return items

    # Everything else the board says

    def _take_message(self, body: bytes, now_s: float) -> None:
        received = decode_message(body)
        if received is None:
            self._counts.unknown_frames += 1
            return
        message = received.message
        if isinstance(message, Pong):
            self._pings.take(message, received.t_us, now_s)
        elif isinstance(message, Status):
            self.back_channel.take_status(message)
            self._note_sensor(is_faulty=bool(message.flags & FLAG_SENSOR_FAULT))
            self._check_boot_id(message.boot_id, now_s)
        elif isinstance(message, Boot):
            self._check_boot_id(message.boot_id, now_s)
        elif isinstance(message, Log):
            _log.info("%s: board: %s", self._port, message.text.decode("utf-8", "replace"))
        elif not self._handshake.is_done:
            self._take_answer(received, now_s)
        elif isinstance(message, Ack):
            self._take_ack(message, received.epoch, now_s)

    def _note_sensor(self, *, is_faulty: bool) -> None:
        if is_faulty and not self._has_sensor_fault:
            self._counts.sensor_faults += 1
            _log.warning("%s: the board says that its sensor has failed", self._port)
        self._has_sensor_fault = is_faulty

    def _check_boot_id(self, boot_id: int, now_s: float) -> None:
        if self._handshake.boot_id not in (None, boot_id) and not self._handshake.is_greeting:
            self._resync(now_s, "the board restarted")

    def _take_answer(self, received: Received, now_s: float) -> None:
        """Let the handshake take an answer, and follow where it led."""
        handshake = self._handshake
        was_greeting = handshake.is_greeting
        handshake.take(received, now_s)
        self._decoder.learn(handshake.wire or None)
        if was_greeting and not handshake.is_greeting:
            self._watchdog.note_welcome()
            if handshake.boot_id != self._clock_boot_id:
                self._clock.reset()
                self._clock_boot_id = handshake.boot_id
            self._pings.begin(now_s)
        if handshake.is_done:
            self._expect_stream(now_s)
            self.back_channel.open(self._paced_baud, handshake.n_max_body_bytes)

    def _expect_stream(self, now_s: float) -> None:
        """Begin the stream that the board has just acknowledged."""
        self._epoch = self._handshake.epoch
        self._order.begin(self._epoch, self._handshake.period_us)
        self._watchdog.note_samples(now_s)
        self._is_announced = self._is_paused = False

    # Control requests

    def _prepare(self, pending: PendingRequest) -> None:
        """Fill in what a START asks for."""
        if pending.command == Command.START:
            self._start_plan = self._handshake.plan_start(pending.rate_hz)
            pending.arguments = self._start_plan.arguments

    def _take_ack(self, ack: Ack, epoch: int, now_s: float) -> None:
        """Follow a control request that the board has granted."""
        pending = self.back_channel.take_ack(ack)
        if pending is None:
            return
        if ack.command == Command.STOP:
            self._is_paused = True
        elif ack.command == Command.START and self._start_plan is not None:
            try:
                self._handshake.restarted(self._start_plan, epoch, ack.result)
            except BridgeError as error:  # the stream goes on under an epoch that is not ours
                pending.fail(error)
                return
            self._reason = "the host started it anew"
            self._expect_stream(now_s)
        pending.finish(ack.result)

    # Watchdog

    def _look(self, now_s: float) -> list[Item]:
        """Return a LinkDown when the line has been wrong for too long."""
        watchdog = self._watchdog
        complaint = watchdog.of_line(now_s, is_up=self._is_up)
        if complaint is None and self._epoch is None:
            complaint = watchdog.of_handshake(now_s)
        elif complaint is None and watchdog.is_foreign(now_s):
            self._resync(now_s, "the board streams an epoch that nobody here asked for")
        elif complaint is None and not self._is_paused:
            complaint = watchdog.of_stream(now_s, self._handshake.period_us)
        return [] if complaint is None else self._fall(now_s, complaint)

    def _fall(self, now_s: float, reason: str) -> list[Item]:
        """Shake hands again; say why, once until the next LinkUp."""
        if self._handshake.is_done:
            self._resync(now_s, reason)
        is_news = self._is_up or not self._has_complained
        self._is_up = False
        self._has_complained = True
        if not is_news:
            return []
        _log.warning("%s: %s", self._port, reason)
        return [LinkDown(now_s, reason)]


def _head(body: bytes) -> tuple[bytes, int]:
    """Return what frames that are decoded together share: kind, epoch, length."""
    return body[:2], len(body)


def new_session(
    settings: SessionSettings, counts: LinkStatistics, ticks: TickClock
) -> FramedSession:
    """Make the session of one port."""
    return FramedSession(settings, counts, ticks)
