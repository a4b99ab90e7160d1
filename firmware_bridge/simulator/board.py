"""A sensor board in software on a pseudo terminal, at its true rate, with real boards' faults."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from firmware_bridge.errors import FormatError, PortError
from firmware_bridge.protocol.board_schema import RAW_DTYPES, BoardSchema
from firmware_bridge.sample import Float32
from firmware_bridge.simulator.firmware import CsvFirmware, Firmware, FramedFirmware
from firmware_bridge.simulator.pseudo_port import PseudoPort
from firmware_bridge.simulator.source import Source

_RING_BYTES = 16384  # what waits on the board for a host that reads too slowly
_IDLE_S = 0.5
_MAX_SAMPLES_A_TURN = 512


class SimulatedBoard:
    """Sends the samples of a source through a pty, each at its instant, as firmware does.

    Use it as a context manager; ``port`` is then the name to open. Sampling begins when the host
    asks for it (framed) or opens the port (csv). Late samples are caught up with, none is skipped;
    what finds no reader is dropped once the board's ring is full, and counted in ``n_dropped``.

    Args:
        source: samples, with ``schema.rate_hz`` set.
        format: "framed" or "csv".
        link_path: a symbolic link to the pty, as udev makes for real boards.
        dtype: raw type on the wire of framed; float32 keeps values exact.
        scale: physical value of one raw step.
        first_t_us: device time at power-on.
        firmware: another program for the board than ``format``, ``dtype`` and ``scale`` make.

    Raises:
        FormatError: unknown format or raw type, or a source without a rate.
    """

    def __init__(
        self,
        source: Source,
        *,
        format: str = "framed",  # noqa: A002 - as in Link
        link_path: Path | str | None = None,
        dtype: str = "<f4",
        scale: float = 1.0,
        first_t_us: int = 0,
        firmware: Firmware | None = None,
    ) -> None:
        self._firmware = firmware or _make_firmware(source, format, dtype, scale)
        self._source = source
        self._samples: Iterator[Float32] | None = None
        self._upcoming: Float32 | None = None
        self._port = PseudoPort(None if link_path is None else Path(link_path))
        self._first_t_us = first_t_us
        self._powered_s = 0.0
        self._thread: threading.Thread | None = None
        self._wake_read = self._wake_write = -1
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._finished = threading.Event()
        self._is_stopping = False
        self._ring = bytearray()
        self._is_sampling = False
        self._is_exhausted = False
        self._n_to_drop = 0
        self._next_us = 0
        self.n_sent = 0
        self.n_dropped = 0

    @property
    def port(self) -> str:
        """The name to open: the link if there is one, else the pty."""
        return self._port.name

    def start(self) -> None:
        """Power on.

        Raises:
            PortError: ``link_path`` is taken by something that is no link.
        """
        self._powered_s = time.monotonic()
        self._plug_in()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="simulated-board", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Power off; a host that has the port open sees it hang up."""
        if self._thread is None:
            return
        self._is_stopping = True
        self._wake()
        self._thread.join()
        self._thread = None
        self._port.pull_out()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the source is exhausted and sent; False if that took longer."""
        return self._finished.wait(timeout_s)

    # Faults of a board, each in effect when the call returns

    def restart(self) -> None:
        """Reset, as after a crash: new boot, new epoch, what waited in the ring is cut off."""
        self._order(self._restart)

    def unplug(self) -> None:
        """Pull the cable; the board loses power."""
        self._order(self._port.pull_out)

    def replug(self) -> None:
        """Plug it in again; the name changes as it does for real, the link follows."""
        self._order(self._plug_in)

    def drop(self, n_samples: int) -> None:
        """Lose the next samples on the way."""
        self._order(lambda: self._lose(n_samples))

    def send_raw(self, noise: bytes) -> None:
        """Put bytes on the line that no firmware sent."""
        self._order(lambda: self._ring.extend(noise))

    def lose_acks(self, n_acks: int) -> None:
        """Lose the next acknowledgements on the way.

        Raises:
            FormatError: the board speaks a format without any.
        """
        firmware = self._firmware
        if not isinstance(firmware, FramedFirmware):
            raise FormatError("expected a framed board; lines of CSV are not acknowledged")
        self._order(lambda: firmware.lose_acks(n_acks))

    def _order(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the board's thread and wait for it."""
        if self._thread is None:
            raise PortError("the simulated board is off; start it first")
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._orders.put(act)
        self._wake()
        done.wait()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    # The board's thread

    def _plug_in(self) -> None:
        if not self._port.is_plugged:
            self._port.plug_in()
            self._restart()

    def _restart(self) -> None:
        self._is_sampling = False
        self._ring[:] = self._firmware.boot(self._now_us())

    def _lose(self, n_samples: int) -> None:
        self._n_to_drop += n_samples

    def _now_us(self) -> int:
        return self._first_t_us + int((time.monotonic() - self._powered_s) * 1e6)

    def _run(self) -> None:
        while not self._is_stopping:
            self._port.sleep(self._wake_read, self._idle_s(), is_writing=bool(self._ring))
            self._obey()
            if self._port.is_plugged:
                self._listen()
                self._sample_what_is_due()
                self._ring += self._firmware.tick(self._now_us())
                self._write()

    def _idle_s(self) -> float:
        if not self._is_sampling:
            return _IDLE_S
        return min(_IDLE_S, max(0.0, (self._next_us - self._now_us()) * 1e-6))

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while not self._orders.empty():
            self._orders.get()()

    def _listen(self) -> None:
        had_host = self._port.has_host
        if self._port.look_for_host():
            self._ring[:] = self._firmware.greet(self._now_us())
        if had_host or self._port.has_host:  # the last words of one who left count too
            self._ring += self._firmware.take(self._port.read(), self._now_us())

    def _sample_what_is_due(self) -> None:
        if not self._firmware.is_streaming or self._is_exhausted:
            self._is_sampling = False
            return
        now_us = self._now_us()
        if not self._is_sampling:
            self._is_sampling = True
            self._next_us = now_us
        if self._samples is None:
            self._samples = iter(self._source)
            self._upcoming = next(self._samples, None)
        for _ in range(_MAX_SAMPLES_A_TURN):
            if self._upcoming is None:
                self._is_exhausted = True
                self._queue(self._firmware.flush())
                return
            if self._next_us > now_us:
                return
            self._take_sample(self._upcoming)
            self._upcoming = next(self._samples, None)
            self._next_us += self._firmware.period_us

    def _take_sample(self, values: Float32) -> None:
        if self._n_to_drop:
            self._n_to_drop -= 1
            self._queue(self._firmware.skip())
        else:
            self.n_sent += 1
            self._queue(self._firmware.sample(values, self._next_us))

    def _queue(self, frame: bytes) -> None:
        """Put a whole frame into the ring or drop it whole."""
        if len(self._ring) + len(frame) > _RING_BYTES:
            self._write()  # after a stall of the host's machine a turn is longer than the ring
        if self._port.has_host and len(self._ring) + len(frame) <= _RING_BYTES:
            self._ring += frame
        elif frame:
            n_samples = self._firmware.note_no_room()
            self.n_dropped += n_samples
            self.n_sent -= n_samples

    def _write(self) -> None:
        if self._ring and self._port.has_host:
            del self._ring[: self._port.write(self._ring)]
        if self._is_exhausted and not (self._ring and self._port.has_host):
            self._finished.set()

    def __enter__(self) -> SimulatedBoard:  # noqa: PYI034 - Self needs Python 3.11
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _make_firmware(source: Source, name: str, dtype: str, scale: float) -> Firmware:
    """Return the program that sends ``source`` in the format called ``name``."""
    if source.schema.rate_hz is None:
        raise FormatError("expected a source with a rate, got none; set schema.rate_hz")
    if dtype not in RAW_DTYPES:
        raise FormatError(f"expected one of the raw types {', '.join(RAW_DTYPES)}, got {dtype!r}")
    if name == "framed":
        return FramedFirmware(BoardSchema.of(source.schema, dtype, scale))
    if name == "csv":
        return CsvFirmware(source.schema)
    raise FormatError(f"expected the format framed or csv, got {name!r}")
