"""Real firmware on an emulated microcontroller, behind a port like any other board's."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from firmware_bridge.errors import PortError
from firmware_bridge.simulator.pseudo_port import PseudoPort
from firmware_bridge.simulator.qemu_process import QemuProcess

_IDLE_S = 0.5
_GATHER_S = 0.001  # QEMU writes its bytes one by one; nobody has to be woken for each
_READ_BYTES = 65536
_MAX_PENDING_BYTES = 65536


class QemuBoard:
    """Runs an ELF file in qemu-system-arm; its first UART is a pty that can be unplugged.

    Use it as a context manager; ``port`` is then the name to open. The board keeps running while it
    is unplugged, as one with a supply of its own does.

    Args:
        elf: the firmware.
        machine: one of ``qemu-system-arm -M help`` whose first UART the firmware uses.
        link_path: a symbolic link to the pty, as udev makes for real boards.
        has_pty: False leaves the UART to who connects to ``uart_path``.
    """

    def __init__(
        self,
        elf: Path,
        *,
        machine: str = "mps2-an385",
        link_path: Path | None = None,
        has_pty: bool = True,
    ) -> None:
        self._elf = elf
        self._machine = machine
        self._has_pty = has_pty
        self._port = PseudoPort(link_path)
        self._qemu = QemuProcess("qemu-system-arm")
        self._cable: _Cable | None = None

    @property
    def port(self) -> str:
        """The name to open: the link if there is one, else the pty."""
        return self._port.name

    @property
    def uart_path(self) -> Path:
        """The socket of the UART, for another machine's emulated adapter.

        Raises:
            PortError: the board is off.
        """
        return self._qemu.path("uart")

    def start(self) -> None:
        """Power on, cable plugged in.

        Raises:
            PortError: QEMU is not installed, or does not run the firmware.
        """
        self._qemu.prepare()
        uart = self._qemu.server("uart")
        self._qemu.start(["-M", self._machine, "-kernel", str(self._elf), "-serial", uart])
        if self._has_pty:
            self.replug()

    def stop(self) -> None:
        """Power off."""
        self.unplug()
        self._qemu.stop()

    def unplug(self) -> None:
        """Pull the cable: a host sees the port hang up, the board sees nobody."""
        if self._cable is not None:
            self._cable.cut()
            self._cable = None

    def replug(self) -> None:
        """Plug it in again; the name of the pty changes, the link follows."""
        if self._cable is None:
            self._cable = _Cable(self._qemu.connect("uart"), self._port)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stop the board and its clock for as long as the block runs."""
        self._qemu.ask("stop")
        try:
            yield
        finally:
            self._qemu.ask("cont")

    def read_word(self, address: int) -> int:
        """Return the 32 bits at an address, such as a register that drives lights."""
        answer = self._qemu.ask("human-monitor-command", {"command-line": f"xp /1wx {address:#x}"})
        found = re.search(r": (0x[0-9a-f]+)", str(answer))
        if found is None:
            raise PortError(f"expected a word at {address:#x}, QEMU says {answer!r}")
        return int(found[1], 16)

    def __enter__(self) -> QemuBoard:  # noqa: PYI034 - Self needs Python 3.11
        try:
            self.start()
        except PortError:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Cable:
    """Carries bytes between QEMU's socket and a pty until it is cut.

    What comes while nobody has the pty open is lost, as on a real cable.
    """

    def __init__(self, uart: socket.socket, port: PseudoPort) -> None:
        self._uart = uart
        self._port = port
        self._uart.settimeout(0)
        self._is_cut = False
        self._to_host = b""
        self._to_board = b""
        port.plug_in()
        self._thread = threading.Thread(target=self._carry, name="qemu-cable", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End; both sides notice."""
        self._is_cut = True
        with contextlib.suppress(OSError):  # the thread sleeps on it; QEMU may be gone already
            self._uart.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._uart.close()
        self._port.pull_out()

    def _carry(self) -> None:
        while not self._is_cut:
            is_full = len(self._to_host) > _MAX_PENDING_BYTES
            self._port.sleep(self._uart.fileno(), _IDLE_S, is_writing=bool(self._to_host))
            time.sleep(_GATHER_S)
            self._port.look_for_host()
            if not is_full:
                self._to_host += self._received()
            if not self._port.has_host:
                self._to_host = self._to_board = b""
                continue
            self._to_host = self._to_host[self._port.write(self._to_host) :]
            self._to_board += self._port.read()
            self._send()

    def _received(self) -> bytes:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            return self._uart.recv(_READ_BYTES)
        return b""

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._to_board = self._to_board[self._uart.send(self._to_board) :]
