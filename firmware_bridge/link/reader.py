"""The thread that reads a port: poll, os.read, decode, reconnect. No inference happens here."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from firmware_bridge.errors import BridgeError, PortError, PortNotFoundError
from firmware_bridge.formats.session import LinkStatistics, Session
from firmware_bridge.link.item_queue import ItemQueue
from firmware_bridge.link.pace import Pace
from firmware_bridge.port import Port
from firmware_bridge.sample import Item, LinkDown

_log = logging.getLogger(__name__)

_READ_BYTES = 65536
_MAX_WAIT_MS = 60_000
_FIRST_RETRY_S = 0.05
_MAX_RETRY_S = 0.5  # so that a port is open within a second of its return
_STOP, _WAKE = b"\0", b"\1"


class _HangUpError(Exception):
    """The port went away while it was open."""


class Tap(Protocol):
    """Is shown everything on its way, such as a `firmware_bridge.recording.Recorder`.

    It is called by the reader's thread, so it must not wait for anything.
    """

    def note_bytes(self, t_s: float, chunk: bytes, /) -> None:
        """See bytes as they were read."""

    def note_items(self, items: Sequence[Item], /) -> None:
        """See items as they are handed on."""


class Reader:
    """Runs a session over a port until told to stop, and puts its items into a queue."""

    def __init__(
        self,
        port: Port,
        session: Session,
        queue: ItemQueue,
        counts: LinkStatistics,
        clock: Callable[[], float],
        tap: Tap | None = None,
    ) -> None:
        self._port = port
        self._session = session
        self._queue = queue
        self._counts = counts
        self._clock = clock
        self._tap = tap
        self._told_fd, self._tell_fd = -1, -1
        self._wake_lock = threading.Lock()  # not for stop: a signal handler must not wait
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self, *, is_open: bool) -> None:
        """Start the thread; ``is_open``: the port was opened already."""
        self._told_fd, self._tell_fd = os.pipe()
        os.set_blocking(self._told_fd, False)
        os.set_blocking(self._tell_fd, False)
        self._thread = threading.Thread(
            target=self._run, kwargs={"is_open": is_open}, name="edge-gru-link", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; safe in a signal handler."""
        self._tell(_STOP)

    def wake(self) -> None:
        """Let the session run its timers now, as there is something to send."""
        with self._wake_lock:
            self._tell(_WAKE)

    def _tell(self, what: bytes) -> None:
        fd = self._tell_fd
        if fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(fd, what)

    def join(self) -> None:
        """Wait for the end of the thread; close what it used."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        with self._wake_lock:
            tell_fd, self._tell_fd = self._tell_fd, -1
            os.close(tell_fd)
        os.close(self._told_fd)

    def _run(self, *, is_open: bool) -> None:
        error: BridgeError | None = BridgeError("the reader failed; its traceback is in the log")
        try:
            if is_open or self._reopen():
                self._serve_until_stopped()
            error = None
        except BridgeError as raised:
            error = raised
        finally:
            self._port.close()
            self._queue.close(error)

    def _serve_until_stopped(self) -> None:
        while True:
            now_s = self._clock()
            self._session.connected(now_s, self._port.path, self._port.paced_baud)
            try:
                self._serve()
            except _HangUpError as hang_up:
                # Before anything else: a port still held comes back under another name.
                self._port.close()
                _log.warning("%s: %s", self._port.path, hang_up)
                self._hand_on(self._session.disconnected(self._clock(), str(hang_up)))
            else:
                return
            if not self._reopen():
                return
            self._counts.reconnects += 1

    def _serve(self) -> None:
        """Read until told to stop.

        Raises:
            _HangUpError: the port went away.
        """
        fd = self._port.fileno()
        session, clock = self._session, self._clock
        pace = Pace()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._told_fd, select.POLLIN)
        now_s = clock()
        while True:
            wait_s = session.wake_at_s - now_s
            if wait_s <= 0:
                self._deliver(session.tick(now_s), fd)
                wait_s = max(0.0, session.wake_at_s - now_s)
            ready = poll.poll(min(wait_s * 1000 + 1, _MAX_WAIT_MS))
            now_s = clock()
            for ready_fd, _ in ready:
                if ready_fd == fd:
                    self._take(fd, now_s, pace)
                elif self._is_told_to_stop():
                    self._write(fd, session.farewell())
                    return

    def _take(self, fd: int, now_s: float, pace: Pace) -> None:
        """Read once, hand on what it makes, and let a fast line fill up again."""
        chunk = self._read(fd)
        if self._tap is not None:
            self._tap.note_bytes(now_s, chunk)
        n_before = self._counts.samples
        self._deliver(self._session.receive(chunk, now_s), fd)
        pause_s = pace.pause_s(now_s, self._counts.samples - n_before, len(chunk))
        if pause_s:
            time.sleep(pause_s)

    def _deliver(self, items: list[Item], fd: int) -> None:
        if items:
            self._hand_on(items)
        outgoing = self._session.take_outgoing()
        if outgoing:
            self._write(fd, outgoing)

    def _hand_on(self, items: list[Item]) -> None:
        if self._tap is not None:
            self._tap.note_items(items)
        self._queue.put(items)

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            chunk = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise _HangUpError(f"the port hung up: {error.strerror}") from error
        if not chunk:
            raise _HangUpError("the port hung up: unplugged, or the board lost power")
        return chunk

    def _write(self, fd: int, outgoing: bytes) -> None:
        """Write what fits; the rest is asked again, so a board that does not read is no fault."""
        n_written = 0
        try:
            if outgoing:
                n_written = os.write(fd, outgoing)
        except BlockingIOError:
            _log.debug("%s takes no bytes", self._port.path)
        except OSError as error:
            raise _HangUpError(f"the port hung up: {error.strerror}") from error
        self._counts.bytes_written += n_written
        self._counts.unwritten_bytes += len(outgoing) - n_written

    def _reopen(self) -> bool:
        """Open the port as soon as it is there; False if told to stop before."""
        retry_s = _FIRST_RETRY_S
        last_reason = ""
        while not self._is_stopped_within(retry_s):
            if not self._port.is_present:
                retry_s = _FIRST_RETRY_S
                continue
            try:
                self._port.open()
            except PortError as error:
                if not isinstance(error, PortNotFoundError) and str(error) != last_reason:
                    last_reason = str(error)
                    self._hand_on([LinkDown(self._clock(), last_reason)])
                    _log.warning("%s", last_reason)
                retry_s = min(2 * retry_s, _MAX_RETRY_S)
            else:
                _log.info("%s is open again", self._port.path)
                return True
        return False

    def _is_stopped_within(self, timeout_s: float) -> bool:
        if self._is_stopping:  # told, and the port hung up over the last words
            return True
        poll = select.poll()
        poll.register(self._told_fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000)) and self._is_told_to_stop()

    def _is_told_to_stop(self) -> bool:
        """Take what was told since the last call; a stop holds for ever."""
        with contextlib.suppress(BlockingIOError):
            self._is_stopping |= _STOP in os.read(self._told_fd, 4096)
        return self._is_stopping
