"""Finds out what a port speaks, at what baud rate, with which channels, and how fast."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from firmware_bridge.clock import DeviceClock
from firmware_bridge.errors import FormatError, ProtocolError, SchemaError
from firmware_bridge.formats import new_session
from firmware_bridge.formats.session import LinkStatistics, Session, SessionSettings
from firmware_bridge.port import Port, new_port
from firmware_bridge.port_settings import PortSettings
from firmware_bridge.sample import Item, LinkUp, SampleBlock

_log = logging.getLogger(__name__)

BAUDS = (115200, 9600, 921600, 57600, 460800, 230400, 38400, 19200)
_LISTEN_S = 2.0
_MIN_SAMPLES = 3
_MIN_SHARE = 0.8  # of what came that must have been right
_READ_BYTES = 4096
_BY_STRENGTH = ("framed", "mavlink", "nmea", "jsonl", "teleplot", "pairs", "csv")


def probe_port(
    path: str,
    bauds: Sequence[int] = BAUDS,
    *,
    listen_s: float = _LISTEN_S,
    clock: Callable[[], float] = time.monotonic,
) -> PortSettings | None:
    """Listen at each baud rate, greet as a framed host does, and tell what it was.

    Ports to which the rate means nothing are listened to once. None: nothing that is known here.

    Raises:
        PortError: the port cannot be opened.
        FormatError: a time to listen, or a baud rate, that makes no sense.
    """
    if not 0 < listen_s < float("inf"):
        raise FormatError(f"expected a positive time to listen, got {listen_s:g} s")
    for baud in bauds:
        port = new_port(path, baud)
        port.open()
        try:
            listener = _Listener(port, clock)
            listener.listen(listen_s)
            result = listener.result(baud)
        finally:
            port.close()
        if result is not None:
            return result
        if port.paced_baud is None and len(bauds) == len(BAUDS):
            return None
    return None


class _Listener:
    """Gives what a port sends to a session of every format."""

    def __init__(self, port: Port, clock: Callable[[], float]) -> None:
        self._port = port
        self._clock = clock
        self._counts: dict[str, LinkStatistics] = {}
        self._sessions: dict[str, Session] = {}
        self._items: dict[str, list[Item]] = {}
        for name in _BY_STRENGTH:
            counts = LinkStatistics()
            try:
                session = new_session(name, SessionSettings(), counts, DeviceClock())
            except FormatError as error:
                _log.debug("not tried: %s", error)
                continue
            session.connected(clock(), port.path, None)
            self._counts[name], self._sessions[name], self._items[name] = counts, session, []

    def listen(self, duration_s: float) -> None:
        """Read for so long; the framed session may ask, all others listen."""
        fd = self._port.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        now_s = self._clock()
        end_s = now_s + duration_s
        while now_s < end_s:
            self._ask(fd, now_s)
            ready = poll.poll(min(20.0, (end_s - now_s) * 1000))
            now_s = self._clock()
            if ready:
                chunk = _read(fd)
                if not chunk:
                    return
                self._hear(chunk, now_s)
        _write(fd, self._sessions["framed"].farewell())

    def _ask(self, fd: int, now_s: float) -> None:
        framed = self._sessions["framed"]
        if now_s >= framed.wake_at_s:
            self._items["framed"] += framed.tick(now_s)
        _write(fd, framed.take_outgoing())

    def _hear(self, chunk: bytes, now_s: float) -> None:
        for name in self._sessions:
            self._items[name] += self._hear_as(name, chunk, now_s)

    def _hear_as(self, name: str, chunk: bytes, now_s: float) -> list[Item]:
        try:
            return self._sessions[name].receive(chunk, now_s)
        except (SchemaError, ProtocolError) as error:
            _log.info("%s: %s: %s", self._port.path, name, error)
            return []

    def result(self, baud: int) -> PortSettings | None:
        """Return the strongest format that explains what came."""
        for name, items in self._items.items():
            counts = self._counts[name]
            blocks = [item for item in items if isinstance(item, SampleBlock)]
            schema = next((item.schema for item in items if isinstance(item, LinkUp)), None)
            n_samples = sum(map(len, blocks))
            n_all = counts.frames_good + counts.frames_bad
            is_clean = counts.frames_good >= _MIN_SHARE * n_all
            if schema is not None and n_samples >= _MIN_SAMPLES and is_clean:
                if schema.rate_hz is None:
                    schema = replace(schema, rate_hz=_rate_hz(blocks))
                return PortSettings.of(self._port.path, name, baud, schema)
        return None


def _rate_hz(blocks: list[SampleBlock]) -> float | None:
    """Return the rate at which blocks arrived; the first began at an unknown time."""
    elapsed_s = blocks[-1].read_s - blocks[0].read_s
    return sum(map(len, blocks[1:])) / elapsed_s if elapsed_s > 0 else None


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_BYTES)
    except OSError:
        return b""


def _write(fd: int, wire: bytes) -> None:
    try:
        if wire:
            os.write(fd, wire)
    except OSError as error:
        _log.debug("cannot write: %s", error)
