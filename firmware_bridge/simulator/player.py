"""Recordings on a port of their own: what a board sent, once more, at any speed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge.errors import FormatError, SchemaError
from firmware_bridge.recording import Recording
from firmware_bridge.sample import Float32, Gap, SampleBlock, Schema
from firmware_bridge.simulator.pseudo_port import PseudoPort

_WAIT_S = 0.005
_N_LOOKS = 20  # in a row that find nothing unread: some may just have been on its way
_SETTLE_S = 0.1  # a host that has opened a port discards what is there, as pyserial does


class RecordedSource:
    """The samples of a recording as a `source.Source`; what was lost then is lost again.

    Restarts of the board and unplugging are not repeated.

    Raises:
        FormatError: no recording, or no samples in it, or a speed that is not finite.
        SchemaError: a recording without a rate.
    """

    def __init__(self, path: Path | str, *, speed: float = 1.0) -> None:
        if not (speed > 0 and math.isfinite(speed)):
            raise FormatError(
                f"expected a positive speed, got {speed:g}; a board has a rate, and 1 is the "
                "recording's own pace"
            )
        self._recording = Recording(path)
        recorded = self._recording.schema
        if recorded.rate_hz is None:
            raise SchemaError(f"expected a recording with a rate, {path} has none")
        self._schema = Schema(recorded.channels, recorded.rate_hz * speed)

    @property
    def schema(self) -> Schema:
        """Channels, and the rate of the replay."""
        return self._schema

    def __iter__(self) -> Iterator[Float32]:
        """Begin with the first sample."""
        lost: Float32 | None = None
        for item in self._recording.items():
            if isinstance(item, SampleBlock):
                lost = item.values[0, :0]
                yield from item.values
            elif isinstance(item, Gap) and lost is not None:
                for _ in range(item.n_missing):
                    yield lost


class BytePlayer:
    """Puts the raw bytes of a recording on a pty, each read at its time, from when it is opened.

    For boards that print without being asked; one that answers its host cannot be played so.

    Args:
        path: the recording.
        link_path: a symbolic link to the pty.
        speed: 1 is the recording's own pace, ``inf`` as fast as the host reads.
    """

    def __init__(
        self, path: Path | str, *, link_path: Path | str | None = None, speed: float = 1.0
    ) -> None:
        if not speed > 0:
            raise FormatError(
                f"expected a positive speed, got {speed:g}; 1 is the recording's own pace"
            )
        self._recording = Recording(path)
        self._port = PseudoPort(None if link_path is None else Path(link_path))
        self._speed = speed
        self._stopped = threading.Event()
        self.n_bytes = 0

    @property
    def port(self) -> str:
        """The name to open."""
        return self._port.name

    def plug_in(self) -> None:
        """Make the port.

        Raises:
            PortError: ``link_path`` is taken.
        """
        self._port.plug_in()

    def stop(self) -> None:
        """Let ``play`` end; safe in a signal handler."""
        self._stopped.set()

    def play(self) -> None:
        """Wait for a host, send everything, wait until it is read, and hang up.

        Raises:
            FormatError: no recording.
        """
        try:
            while not self._port.look_for_host():
                if self._stopped.wait(_WAIT_S):
                    return
            if self._stopped.wait(_SETTLE_S):
                return
            begun_s = time.monotonic()
            first_s: float | None = None
            for t_s, wire in self._recording.chunks():
                first_s = t_s if first_s is None else first_s
                due_s = begun_s + (t_s - first_s) / self._speed
                if self._stopped.wait(max(0.0, due_s - time.monotonic())):
                    return
                self._send(wire)
            self._wait_until_read()
        finally:
            self._port.pull_out()

    def _wait_until_read(self) -> None:
        """Wait for the host to read or to leave: hanging up discards what is unread."""
        n_looks_left = _N_LOOKS
        while n_looks_left and not self._stopped.wait(_WAIT_S):
            self._port.look_for_host()
            is_read = not self._port.has_host or not self._port.n_unread_bytes
            n_looks_left = n_looks_left - 1 if is_read else _N_LOOKS

    def _send(self, wire: bytes) -> None:
        """Write all of it, as the host makes room."""
        while wire and not self._stopped.is_set():
            n_bytes = self._port.write(wire)
            self.n_bytes += n_bytes
            wire = wire[n_bytes:]
            if wire:
                self._stopped.wait(_WAIT_S)
