"""The framed protocol as a host speaks it: handshake, samples in order, time, watchdog."""

from __future__ import annotations

import logging
from itertools import groupby

import numpy as np

from firmware_bridge.formats.handshake import Handshake
from firmware_bridge.formats.ordering import SampleOrder
from firmware_bridge.formats.pings import Pinger
from firmware_bridge.formats.session import (
    NO_FRAME_S,
    SILENCE_S,
    LinkStatistics,
    SessionSettings,
    TickClock,
    n_bytes_text,
)
from firmware_bridge.framing import FrameDecoder
from firmware_bridge.protocol.messages import (
    FLAG_SENSOR_FAULT,
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
_FOREIGN_EPOCH_S = 1.0
_STOP_ID = 0xFF
_SAMPLE_KINDS = frozenset({Kind.DATA, Kind.BATCH})


class FramedSession:
    """One board behind one port, as `firmware_bridge.formats.session.Session` describes it.

    ``LinkUp`` and ``EpochChanged`` come with the first sample, not with the board's promise of one.
    """

    def __init__(self, settings: SessionSettings, counts: LinkStatistics, clock: TickClock) -> None:
        self._counts = counts
        self._decoder = FrameDecoder(counts)
        self._handshake = Handshake(settings)
        self._clock = clock
        self._order = SampleOrder(self._clock, counts)
        self._clock_boot_id: int | None = None
        self._is_up = self._has_sensor_fault = False
        self._up_schema: Schema | None = None
        self._pings = Pinger(clock)
        self._look_at_s = 0.0
        self.connected(0.0, "", None)

    def connected(self, now_s: float, port: str, paced_baud: int | None) -> None:
        """Begin on a port just opened."""
        self._port = port
        self._paced_baud = paced_baud
        self._outbox = bytearray()
        self._decoder.clear()
        self._frame_s = now_s
        self._bytes_at_frame = self._counts.bytes_read
        self._has_complained = False
        self._begin(now_s, "")

    def disconnected(self, now_s: float, reason: str) -> list[Item]:
        """End on a port that hung up."""
        self._is_up = False
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
        return encode_message(Request(_STOP_ID, Command.STOP, b"")) if self._is_up else b""

    @property
    def wake_at_s(self) -> float:
        """When `tick` has something to do."""
        return min(self._look_at_s, self._handshake.wake_at_s, self._pings.due_s)

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
            self._frame_s = now_s
            self._bytes_at_frame = self._counts.bytes_read
        return items

    def tick(self, now_s: float) -> list[Item]:
        """Let timers run."""
        self._handshake.tick(now_s)
        if now_s >= self._pings.due_s:
            self._outbox += self._pings.ask(now_s)
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
        self._is_announced = self._was_welcomed = False
        self._foreign_since_s: float | None = None
        self._sample_s = now_s
        self._pings.pause()
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
        self._foreign_since_s = None
        self._sample_s = now_s
        ticks_us = self._clock.extend(t_us)
        if n_per_frame > 1:
            within = np.arange(n_per_frame)
            seq = (seq[:, None] + within.astype(np.uint16)).ravel()
            ticks_us = (ticks_us[:, None] + within * self._handshake.period_us).ravel()
        items = self._order.sort(seq, ticks_us, values, now_s)
        return items if self._is_announced else [*self._announce(now_s), *items]

    def _take_foreign(self, n_samples: int, now_s: float) -> None:
        self._counts.foreign_epoch_samples += n_samples
        if self._epoch is not None and self._foreign_since_s is None:
            self._foreign_since_s = now_s

    def _announce(self, now_s: float) -> list[Item]:
        """Say, before the first sample of a stream, what stream it is."""
        self._is_announced = True
        schema = self._handshake.schema
        if self._is_up and schema == self._up_schema and self._epoch is not None:
            return [EpochChanged(now_s, self._epoch, self._reason)]
        if schema is None:
            return []
        items: list[Item] = [LinkUp(now_s, self._port, schema)]
        if self._is_up:
            items.insert(0, LinkDown(now_s, "the board changed its channels"))
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
            self._counts.board_dropped_samples = message.n_dropped
            self._counts.board_missed_samples = message.n_missed
            self._note_sensor(is_faulty=bool(message.flags & FLAG_SENSOR_FAULT))
            self._check_boot_id(message.boot_id, now_s)
        elif isinstance(message, Boot):
            self._check_boot_id(message.boot_id, now_s)
        elif isinstance(message, Log):
            _log.info("%s: board: %s", self._port, message.text.decode("utf-8", "replace"))
        else:
            self._take_answer(received, now_s)

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
        was_greeting, was_done = handshake.is_greeting, handshake.is_done
        handshake.take(received, now_s)
        self._decoder.learn(handshake.wire or None)
        if was_greeting and not handshake.is_greeting:
            self._was_welcomed = True
            if handshake.boot_id != self._clock_boot_id:
                self._clock.reset()
                self._clock_boot_id = handshake.boot_id
            self._pings.begin(now_s)
        if handshake.is_done and not was_done:
            self._epoch = handshake.epoch
            self._order.begin(handshake.epoch, handshake.period_us)
            self._sample_s = now_s

    # Watchdog

    def _look(self, now_s: float) -> list[Item]:
        """Return a LinkDown when the line has been wrong for too long."""
        quiet_s = now_s - self._frame_s
        n_bytes = self._counts.bytes_read - self._bytes_at_frame
        if n_bytes and quiet_s >= (SILENCE_S if self._is_up else NO_FRAME_S):
            text = f"{n_bytes_text(n_bytes)} and no valid frame: wrong baud rate or format?"
            return self._fall(now_s, text)
        if quiet_s >= SILENCE_S:
            return self._fall(now_s, f"no valid frame for {quiet_s:.0f} s: is the board alive?")
        if self._epoch is None:
            return self._look_at_handshake(now_s)
        foreign_since_s = self._foreign_since_s
        if foreign_since_s is not None and now_s - foreign_since_s >= _FOREIGN_EPOCH_S:
            self._resync(now_s, "the board streams an epoch that nobody here asked for")
        elif now_s - self._sample_s >= max(SILENCE_S, 3e-6 * self._handshake.period_us):
            return self._fall(now_s, "the board answers but sends no samples")
        return []

    def _look_at_handshake(self, now_s: float) -> list[Item]:
        if now_s - self._sample_s < SILENCE_S:
            return []
        if self._was_welcomed:
            return self._fall(now_s, "the board answers but does not finish the handshake")
        return self._fall(now_s, "the board sends but does not answer: does it receive?")

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
