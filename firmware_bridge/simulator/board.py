"""A sensor board in software on a pseudo terminal, at its true rate, with real boards' faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from firmware_bridge.errors import FormatError, PortError
from firmware_bridge.sample import Float32
from firmware_bridge.simulator.agenda import Agenda
from firmware_bridge.simulator.board_clock import BoardClock
from firmware_bridge.simulator.faults import Fault
from firmware_bridge.simulator.firmware import Firmware, FramedFirmware
from firmware_bridge.simulator.programs import make_firmware
from firmware_bridge.simulator.pseudo_port import PseudoPort
from firmware_bridge.simulator.source import Source
from firmware_bridge.simulator.transmitter import Transmitter

_IDLE_S = 0.5
_MAX_SAMPLES_A_TURN = 512


class SimulatedBoard:
    """Sends the samples of a source through a pty, each at its instant, as firmware does.

    Use it as a context manager; ``port`` is then the name to open. Sampling begins when the host
    asks for it (framed) or opens the port (text). Late samples are caught up with, none is skipped;
    what finds no reader is dropped once the board's ring is full, and counted in ``n_dropped``.

    Args:
        source: samples, with ``schema.rate_hz`` set.
        format: "framed", or a name in `firmware_bridge.simulator.text_firmware.PRINTERS`.
        link_path: a symbolic link to the pty, as udev makes for real boards.
        dtype: raw type on the wire of framed; float32 keeps values exact.
        scale: physical value of one raw step.
        first_t_us: device time at power-on.
        firmware: another program for the board than ``format``, ``dtype`` and ``scale`` make.
        faults: what goes wrong, and when.

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
        faults: Sequence[Fault] = (),
    ) -> None:
        self.firmware = firmware or make_firmware(source, format, dtype, scale)
        self.clock = BoardClock(first_t_us)
        self._source = source
        self._samples: Iterator[Float32] | None = None
        self._upcoming: Float32 | None = None
        self._port = PseudoPort(None if link_path is None else Path(link_path))
        self.out = Transmitter(self._port)
        self._faults = tuple(faults)
        self._spoilers: list[Callable[[Float32], Float32]] = []
        self.boot_s: float | None = None
        self._deaf_until_us = 0
        self._flood_period_us = 0.0
        self._thread: threading.Thread | None = None
        self._agenda = Agenda()
        self._finished = threading.Event()
        self._is_stopping = False
        self._is_sampling = False
        self._is_exhausted = False
        self._n_to_drop = 0
        self._next_us = 0.0
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
            FormatError: a fault that this board cannot have.
        """
        self.clock.restart()
        self.plug_in()
        try:
            for fault in self._faults:
                if fault.after_s is None:
                    fault.strike(self)
        except FormatError:
            self.pull_out()
            raise
        self._agenda.open()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="simulated-board", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Power off; a host that has the port open sees it hang up."""
        if self._thread is None:
            return
        self._is_stopping = True
        self._agenda.wake()
        self._thread.join()
        self._thread = None
        self._port.pull_out()
        self._agenda.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the source is exhausted and sent; False if that took longer."""
        return self._finished.wait(timeout_s)

    # Faults of a board, each in effect when the call returns

    def inject(self, fault: Fault | str) -> None:
        """Let a fault strike now; as text it is what `Fault.parse` reads.

        Raises:
            FormatError: no such fault, or this board cannot have it.
        """
        parsed = Fault.parse(fault) if isinstance(fault, str) else fault
        self._order(lambda: parsed.strike(self))

    def restart(self) -> None:
        """Reset, as after a crash: new boot, new epoch, what waited in the ring is cut off."""
        self._order(self._restart)

    def unplug(self) -> None:
        """Pull the cable; the board loses power."""
        self._order(self.pull_out)

    def replug(self) -> None:
        """Plug it in again; the name changes as it does for real, the link follows."""
        self._order(self.plug_in)

    def send_raw(self, noise: bytes) -> None:
        """Put bytes on the line that no firmware sent."""
        self._order(lambda: self.out.send(noise))

    def _order(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the board's thread and wait for it."""
        if self._thread is None:
            raise PortError("the simulated board is off; start it first")
        self._agenda.order(action)

    # What faults do, in the board's thread

    def schedule(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._agenda.schedule(delay_s, action)

    def pull_out(self) -> None:
        """Unplug."""
        self._port.pull_out()

    def plug_in(self) -> None:
        """Plug in, and start the firmware."""
        if not self._port.is_plugged:
            self._port.plug_in()
            self._restart()

    def crash(self) -> None:
        """Restart the firmware in the middle of a frame."""
        frame = b""
        if self.firmware.is_streaming and self._upcoming is not None:
            frame = self.firmware.sample(self._upcoming, self.clock.now_us)
        self._restart(frame[: len(frame) // 2])

    def host_baud(self) -> int:
        """Return what the host has set the line to."""
        return self._port.baud

    def lose(self, n_samples: int) -> None:
        """Lose the next samples on the way; their numbers are used up."""
        self._n_to_drop += n_samples

    def spoil(self, effect: Callable[[Float32], Float32]) -> None:
        """Let ``effect`` change every sample before it is sent."""
        self._spoilers.append(effect)

    def jump(self, duration_us: int) -> None:
        """Let the clock jump, and sampling with it."""
        self.clock.jump(duration_us)
        self._next_us += duration_us

    def flood(self, rate_hz: float) -> None:
        """Sample at another rate than the host asked for."""
        self._flood_period_us = 1e6 / rate_hz

    def framed(self, fault: str) -> FramedFirmware:
        """Return the firmware.

        Raises:
            FormatError: it prints lines, so it cannot have this ``fault``.
        """
        if not isinstance(self.firmware, FramedFirmware):
            raise FormatError(f"expected a framed board; one that prints has no {fault}")
        return self.firmware

    # The board's thread

    def _restart(self, fragment: bytes = b"") -> None:
        self._is_sampling = False
        now_us = self.clock.now_us
        self._deaf_until_us = now_us + int(1e6 * (self.boot_s or 0.0))
        self.out.restart(fragment + self.firmware.boot(now_us))

    def _run(self) -> None:
        while not self._is_stopping:
            is_writing = bool(self.out) and not self.out.wait_s
            self._port.sleep(self._agenda.wake_fd, self._idle_s(), is_writing=is_writing)
            self._agenda.run()
            if self._port.is_plugged:
                self._listen()
                self._sample_what_is_due()
                self.out.send(self.firmware.tick(self.clock.now_us))
                self._write()

    def _idle_s(self) -> float:
        idle_s = min(_IDLE_S, self._agenda.wait_s)
        if self.out and self.out.wait_s:
            idle_s = min(idle_s, self.out.wait_s)
        if not self._is_sampling:
            return idle_s
        return min(idle_s, max(0.0, self.clock.true_s(self._next_us - self.clock.now_us)))

    def _listen(self) -> None:
        had_host = self._port.has_host
        now_us = self.clock.now_us
        if self._port.look_for_host():
            if self.boot_s is not None:
                self._restart()
            self.out.restart(self.firmware.greet(now_us))
        if had_host or self._port.has_host:  # the last words of one who left count too
            heard = self._port.read()
            if now_us >= self._deaf_until_us:
                self.out.send(self.firmware.take(heard, now_us))

    def _sample_what_is_due(self) -> None:
        if not self.firmware.is_streaming or self._is_exhausted:
            self._is_sampling = False
            return
        now_us = self.clock.now_us
        if not self._is_sampling:
            self._begin(now_us)
        for _ in range(_MAX_SAMPLES_A_TURN):
            if self._upcoming is None or self._samples is None:
                self._is_exhausted = True
                self._count(self.out.send_sample(self.firmware.flush()))
                return
            if self._next_us > now_us:
                return
            self._take_sample(self._upcoming)
            self._upcoming = next(self._samples, None)
            self._next_us += self._flood_period_us or self.firmware.period_us

    def _begin(self, now_us: int) -> None:
        """Sample from now on; what is to happen some time after the first sample counts from it."""
        self._is_sampling = True
        self._next_us = now_us
        if self._samples is None:
            self._samples = iter(self._source)
            self._upcoming = next(self._samples, None)
            for fault in self._faults:
                if fault.after_s is not None:
                    self.schedule(fault.after_s, partial(fault.strike, self))

    def _take_sample(self, values: Float32) -> None:
        if self._n_to_drop or not len(values):
            self._n_to_drop = max(0, self._n_to_drop - 1)
            self._count(self.out.send_sample(self.firmware.skip()))
            return
        for effect in self._spoilers:
            values = effect(values)
        self.n_sent += 1
        self._count(self.out.send_sample(self.firmware.sample(values, int(self._next_us))))

    def _count(self, was_sent: bool) -> None:  # noqa: FBT001 - what `send_sample` said
        if not was_sent:
            n_samples = self.firmware.note_no_room()
            self.n_dropped += n_samples
            self.n_sent -= n_samples

    def _write(self) -> None:
        self.out.write()
        if self._is_exhausted and not (self.out and self._port.has_host):
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
