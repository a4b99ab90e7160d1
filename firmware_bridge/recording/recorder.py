"""Writes what comes over a link, in a thread of its own, so that a slow disk delays no reading."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware_bridge.errors import FormatError
from firmware_bridge.recording.library import mcap_file
from firmware_bridge.recording.messages import (
    BYTES_TOPIC,
    EVENT_SCHEMA,
    EVENTS_TOPIC,
    SAMPLES_TOPIC,
    encode_event,
    encode_samples,
    sample_schema,
)
from firmware_bridge.sample import Item, LinkUp, SampleBlock, Schema

_log = logging.getLogger(__name__)

_FLUSH_S = 1.0
_MAX_PENDING = 20_000  # reads and items; what a disk that stalls for some seconds leaves waiting


class Recorder:
    """Keeps raw bytes, samples and events of one link in an MCAP file that must not exist yet.

    What was read more than a second ago survives a crash. When the disk does not keep up, what is
    new is dropped and counted in ``n_dropped``. Give it to a `firmware_bridge.Link`, which calls
    ``note_bytes`` and ``note_items`` from its reader.

    Args:
        path: the file.
        about: what to remember beside: port, format and the like.
        has_bytes: whether to keep the raw bytes.
    """

    def __init__(
        self, path: Path | str, about: dict[str, str] | None = None, *, has_bytes: bool = True
    ) -> None:
        self._path = Path(path)
        self._about = dict(about or {})
        self._has_bytes = has_bytes
        self._queue: queue.Queue[tuple[float, bytes] | list[Item] | None] = queue.Queue(
            _MAX_PENDING
        )
        self._thread: threading.Thread | None = None
        self._schema: Schema | None = None
        self.n_dropped = 0
        self.n_samples = 0
        self.n_bytes = 0

    def open(self) -> None:
        """Make the file and start to write.

        Raises:
            FormatError: the file exists or cannot be made, or the library is not installed.
        """
        library = mcap_file()
        try:
            out = library.McapOut(self._path)
        except OSError as error:
            raise FormatError(
                f"cannot record to {self._path}: {error.strerror}; choose another file"
            ) from error
        # Messages are stamped with the wall clock, so that other programs can line them up.
        self._wall_minus_mono_s = time.time() - time.monotonic()
        offset = {"wall_minus_monotonic_s": repr(self._wall_minus_mono_s)}
        out.add_metadata("edge-gru", {**self._about, **offset})
        self._thread = threading.Thread(
            target=self._run, args=(out,), name="edge-gru-recorder", daemon=True
        )
        self._thread.start()

    def note_bytes(self, t_s: float, chunk: bytes) -> None:
        """Keep bytes as read at ``t_s``, host monotonic seconds."""
        if self._has_bytes:
            self._put((t_s, chunk))

    def note_items(self, items: Sequence[Item]) -> None:
        """Keep items in their order."""
        self._put(list(items))

    def close(self) -> None:
        """Write what waits, index and end; a second time does nothing."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def discard(self) -> None:
        """End, and leave no file: nothing was recorded."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _put(self, entry: tuple[float, bytes] | list[Item]) -> None:
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.n_dropped += 1
            if self.n_dropped == 1:
                _log.warning("%s: the disk does not keep up; what is new is dropped", self._path)

    def _run(self, out: Any) -> None:
        try:
            self._write_all(out)
            out.close()
        except OSError as error:
            _log.warning("%s: recording has ended: %s", self._path, error.strerror)
            self._discard_all()

    def _write_all(self, out: Any) -> None:
        flush_at_s = time.monotonic() + _FLUSH_S
        while True:
            entry: tuple[float, bytes] | list[Item] | None = []
            with contextlib.suppress(queue.Empty):
                entry = self._queue.get(timeout=max(0.0, flush_at_s - time.monotonic()))
            if entry is None:
                return
            self._write(out, entry)
            if time.monotonic() >= flush_at_s:
                out.flush()
                flush_at_s = time.monotonic() + _FLUSH_S

    def _discard_all(self) -> None:
        """Count what can no longer be written, until told to end."""
        while self._queue.get() is not None:
            self.n_dropped += 1

    def _write(self, out: Any, entry: tuple[float, bytes] | list[Item]) -> None:
        if isinstance(entry, tuple):
            t_s, chunk = entry
            channel = out.channel(BYTES_TOPIC, "application/octet-stream", b"")
            out.add(channel, self._log_ns(t_s), chunk)
            self.n_bytes += len(chunk)
            return
        for item in entry:
            if isinstance(item, SampleBlock):
                self._write_samples(out, item)
            else:
                if isinstance(item, LinkUp):
                    self._schema = item.schema
                channel = out.channel(EVENTS_TOPIC, "json", EVENT_SCHEMA)
                out.add(channel, self._log_ns(item.t_s), encode_event(item))

    def _write_samples(self, out: Any, block: SampleBlock) -> None:
        schema = self._schema
        if schema is None:  # nobody can say what these are
            return
        channel = out.channel(SAMPLES_TOPIC, "json", sample_schema(schema))
        for t_s, seq, message in zip(
            block.t_s.tolist(), block.seq.tolist(), encode_samples(block, schema), strict=True
        ):
            out.add(channel, self._log_ns(t_s), message, seq)
        self.n_samples += len(block)

    def _log_ns(self, t_s: float) -> int:
        return int((t_s + self._wall_minus_mono_s) * 1e9)

    def __enter__(self) -> Recorder:  # noqa: PYI034 - Self needs Python 3.11
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
