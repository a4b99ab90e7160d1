"""Real firmware on an emulated microcontroller, behind a port like any other board's."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware_bridge.errors import PortError
from firmware_bridge.simulator.pseudo_port import PseudoPort

_START_S = 10.0
_LOOK_S = 0.01
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
    """

    def __init__(
        self, elf: Path, *, machine: str = "mps2-an385", link_path: Path | None = None
    ) -> None:
        self._elf = elf
        self._machine = machine
        self._port = PseudoPort(link_path)
        self._process: subprocess.Popen[bytes] | None = None
        self._cable: _Cable | None = None
        self._monitor: socket.socket | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def port(self) -> str:
        """The name to open: the link if there is one, else the pty."""
        return self._port.name

    def start(self) -> None:
        """Power on, cable plugged in.

        Raises:
            PortError: QEMU is not installed, or does not run the firmware.
        """
        program = shutil.which("qemu-system-arm")
        if program is None:
            raise PortError("qemu-system-arm is not installed; apt-get install qemu-system-arm")
        self._folder = tempfile.TemporaryDirectory(prefix="edge-gru-qemu-")
        command = [program, "-M", self._machine, "-nographic", "-kernel", str(self._elf)]
        for option, name in (("-serial", "uart"), ("-qmp", "monitor")):
            command += [option, f"unix:{self._path(name)},server=on,wait=off"]
        self._process = subprocess.Popen(  # noqa: S603 - the program is QEMU, the file the caller's
            [*command, "-monitor", "none"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._monitor = self._connect("monitor")
        self._ask("qmp_capabilities")
        self.replug()

    def stop(self) -> None:
        """Power off."""
        self.unplug()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def unplug(self) -> None:
        """Pull the cable: a host sees the port hang up, the board sees nobody."""
        if self._cable is not None:
            self._cable.cut()
            self._cable = None

    def replug(self) -> None:
        """Plug it in again; the name of the pty changes, the link follows."""
        if self._cable is None:
            self._cable = _Cable(self._connect("uart"), self._port)

    def read_word(self, address: int) -> int:
        """Return the 32 bits at an address, such as a register that drives lights."""
        answer = self._ask("human-monitor-command", {"command-line": f"xp /1wx {address:#x}"})
        found = re.search(r": (0x[0-9a-f]+)", str(answer))
        if found is None:
            raise PortError(f"expected a word at {address:#x}, QEMU says {answer!r}")
        return int(found[1], 16)

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise PortError("the board is off; start it first")
        return Path(self._folder.name) / name

    def _connect(self, name: str) -> socket.socket:
        deadline_s = time.monotonic() + _START_S
        made = socket.socket(socket.AF_UNIX)
        while made.connect_ex(str(self._path(name))):
            if self._process is None or self._process.poll() is not None:
                made.close()
                raise self._explain()
            if time.monotonic() > deadline_s:
                made.close()
                raise PortError(f"QEMU opened no socket within {_START_S:g} s; is it overloaded?")
            time.sleep(_LOOK_S)
        return made

    def _explain(self) -> PortError:
        """Return the sentence for a QEMU that is gone."""
        words = b""
        if self._process is not None:
            _, words = self._process.communicate()
            self._process = None
        return PortError(
            f"QEMU ended: {words.decode(errors='replace').strip() or 'it says nothing'}"
        )

    def _ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Return QEMU's answer to a command of its monitor."""
        if self._monitor is None:
            raise PortError("the board is off; start it first")
        question = {"execute": command, "arguments": arguments or {}}
        rest = b""
        try:
            self._monitor.sendall(json.dumps(question).encode() + b"\n")
            while part := self._monitor.recv(4096):
                *lines, rest = (rest + part).split(b"\n")
                for answer in map(json.loads, lines):  # and events in between
                    if "return" in answer or "error" in answer:
                        return answer.get("return", answer)
        except ConnectionError as error:
            raise self._explain() from error
        raise self._explain()

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
