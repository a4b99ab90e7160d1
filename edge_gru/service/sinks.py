"""Where events go: whole JSON lines into a file or to stdout, never delaying the loop."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from edge_gru.errors import ConfigError
from edge_gru.service.config import BOARD, STDOUT
from edge_gru.service.events import Event, encode_line

_log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 16 << 20
_CHUNK_BYTES = select.PIPE_BUF  # a pipe that polls as writable takes this much without blocking
_MANY_BYTES = 1 << 15
_MAX_TORN_BYTES = 1 << 20
_PATIENCE_S = 5.0
_BEGINNING = b'{"kind":"'  # of every event


class Sink(Protocol):
    """Takes events in order; ``n_dropped`` counts those that it had to give up."""

    n_dropped: int

    def write(self, event: Event) -> None:
        """Take one event, perhaps only into memory."""

    def flush(self) -> bool:
        """Pass on what can be without waiting; False: the reader has left, which ends the run."""

    def close(self) -> None:
        """Pass on the rest as far as that is possible, and free what is held."""


class StreamSink:
    """Lines to a descriptor that somebody else opened, such as stdout, and that is not closed here.

    Lines wait in bounded memory while the reader is slow or the disk is full; beyond the bound new
    ones are dropped. The descriptor stays blocking, since it may be shared, but is only written
    to when it takes it. A reader that takes nothing for five seconds at the end loses the rest.
    """

    def __init__(
        self, descriptor: int, name: str = "stdout", *, max_pending_bytes: int = MAX_PENDING_BYTES
    ) -> None:
        self.n_dropped = 0
        self._descriptor = descriptor
        self._name = name
        self._max_pending_bytes = max_pending_bytes
        self._pending = bytearray()
        self._causes_warned: set[int | None] = set()
        self._reader_has_left = False

    def write(self, event: Event) -> None:
        """Keep the event as a line until the next flush, or until many wait."""
        if self._reader_has_left:
            return
        if len(self._pending) >= _MANY_BYTES:  # a pipe holds less than a busy flush interval makes
            self._write_pending(0.0)
        if len(self._pending) < self._max_pending_bytes:
            encode_line(event, self._pending)
            return
        self.n_dropped += 1
        if self.n_dropped == 1:
            _log.warning("%s does not take events; the newest are dropped and counted", self._name)

    def flush(self) -> bool:
        """Write while the descriptor takes it; False: the reader has left."""
        self._write_pending(0.0)
        return not self._reader_has_left

    def close(self) -> None:
        """Write the rest, as long as the reader keeps taking it."""
        self._write_pending(_PATIENCE_S)
        self.n_dropped += self._pending.count(b"\n")
        self._pending.clear()

    def _write_pending(self, patience_s: float) -> None:
        while self._pending and self._is_writable(patience_s):
            try:
                written = os.write(self._descriptor, self._pending[:_CHUNK_BYTES])
            except BrokenPipeError:
                self._reader_has_left = True
                self._pending.clear()
                return
            except OSError as error:
                self._note_failure(error)
                return
            del self._pending[:written]  # maybe half a line: the other half goes first next time

    def _is_writable(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(timeout_s * 1000))

    def _note_failure(self, error: OSError) -> None:
        if error.errno not in self._causes_warned:
            self._causes_warned.add(error.errno)
            _log.warning(
                "cannot write to %s: %s; predicting goes on and writing is tried again",
                self._name,
                error.strerror,
            )


class FileSink(StreamSink):
    """Lines at the end of a file, which is this run's alone while it is open.

    A torn last line, as a power cut leaves it, is dropped when the file is opened; a full disk
    leaves none behind.
    """

    def __init__(self, path: Path, *, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        super().__init__(-1, str(path), max_pending_bytes=max_pending_bytes)
        self.torn_bytes = 0
        self._path = path
        self._is_new = False

    def open(self) -> FileSink:
        """Open or make the file and repair its end.

        Raises:
            ConfigError: it cannot be written, another run holds it, or it holds something else.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        self._is_new = not self._path.exists()
        try:
            self._descriptor = os.open(self._path, flags, 0o644)
            if self._is_regular():
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._check_beginning()
                self.torn_bytes = self._drop_torn_line()
        except BlockingIOError as error:
            self._release()
            raise ConfigError(f"another run writes to {self._path}; choose another file") from error
        except OSError as error:
            self._release()
            raise ConfigError(
                f"cannot write events to {self._path}: {error.strerror}; choose another file"
            ) from error
        except ConfigError:
            self._release()
            raise
        if self.torn_bytes:
            _log.warning("%s ended in a torn line; dropped %d bytes", self._path, self.torn_bytes)
        return self

    def close(self) -> None:
        """Write the rest and make it durable."""
        if self._descriptor < 0:
            return
        super().close()
        with suppress(OSError):  # a device that cannot be synced, or a disk that fails for good
            if self._is_regular():
                self._drop_torn_line()
                if self._is_new and os.fstat(self._descriptor).st_size == 0:
                    self._path.unlink()  # the run never began
            os.fsync(self._descriptor)
        self._release()

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _check_beginning(self) -> None:
        """Refuse to touch a file that is not ours."""
        beginning = os.pread(self._descriptor, len(_BEGINNING), 0)
        if not _BEGINNING.startswith(beginning.rstrip(b"\0")):
            raise ConfigError(
                f"expected a new file or one with events of edge-gru, got {self._path} with "
                "something else in it; choose another file"
            )

    def _drop_torn_line(self) -> int:
        """Cut the file behind its last whole line; return the number of bytes that went."""
        size = os.fstat(self._descriptor).st_size
        start = max(0, size - _MAX_TORN_BYTES)
        tail = os.pread(self._descriptor, size - start, start)
        n_torn = len(tail) - (tail.rfind(b"\n") + 1)
        if n_torn == len(tail) and start > 0:
            raise ConfigError(
                f"expected lines in {self._path}, got {n_torn} bytes without an end of line; "
                "choose another file"
            )
        if n_torn:
            os.ftruncate(self._descriptor, size - n_torn)
        return n_torn


def open_sinks(outputs: Sequence[str]) -> list[Sink]:
    """Open a sink for each name: a file, or ``-`` for stdout. ``board`` needs a link: not here.

    Raises:
        ConfigError: one cannot be opened; then none stays open.
    """
    with ExitStack() as opened:
        sinks: list[Sink] = []
        for name in outputs:
            if name == BOARD:
                continue
            sink: Sink = _stdout() if name == STDOUT else FileSink(Path(name)).open()
            opened.callback(sink.close)
            sinks.append(sink)
        opened.pop_all()
    return sinks


def _stdout() -> StreamSink:
    if sys.stdout is None:  # its number may be the port's by now
        raise ConfigError("expected an open stdout, got a closed one; give --output FILE")
    return StreamSink(1)
