"""A QEMU that runs, with its sockets in a folder of its own and its monitor to ask."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firmware_bridge.errors import PortError

_START_S = 10.0
_LOOK_S = 0.01
_ANSWER_S = 60.0


class QemuProcess:
    """Starts a machine and stops it the hard way, as pulling its supply does.

    Args:
        program: such as ``qemu-system-arm``.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Conversation | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the machine is on."""
        return self._process is not None and self._process.poll() is None

    def server(self, name: str) -> str:
        """Return what makes QEMU open the socket ``name``, for a command line.

        Raises:
            PortError: as `path`.
        """
        return f"unix:{self.path(name)},server=on,wait=off"

    def path(self, name: str) -> Path:
        """Return where the socket ``name`` is.

        Raises:
            PortError: the machine is off.
        """
        if self._folder is None:
            raise PortError("the board is off; start it first")
        return Path(self._folder.name) / name

    def prepare(self) -> None:
        """Make the folder of the sockets.

        Raises:
            PortError: this QEMU is not installed.
        """
        if shutil.which(self._program) is None:
            raise PortError(
                f"{self._program} is not installed; apt-get install qemu-system-arm brings it"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="edge-gru-qemu-")

    def start(self, options: Sequence[str]) -> None:
        """Switch on.

        Raises:
            PortError: QEMU does not run with these options.
        """
        self._process = subprocess.Popen(  # noqa: S603 - the program is QEMU, the rest the caller's
            [self._program, *options, "-nographic", "-monitor", "none", "-qmp", self.server("qmp")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._monitor = Conversation(self.connect("qmp"))
        self.ask("qmp_capabilities")

    def stop(self) -> None:
        """Pull the supply: nothing is told, nothing is written any more."""
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

    def wait(self, timeout_s: float) -> bool:
        """Return whether the machine went off by itself in time."""
        if self._process is not None:
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
        return True

    def connect(self, name: str) -> socket.socket:
        """Connect to one of QEMU's sockets.

        Raises:
            PortError: QEMU has ended, with what it said, or opens none.
        """
        deadline_s = time.monotonic() + _START_S
        made = socket.socket(socket.AF_UNIX)
        while made.connect_ex(str(self.path(name))):
            if not self.is_running:
                made.close()
                raise self._explain()
            if time.monotonic() > deadline_s:
                made.close()
                raise PortError(f"QEMU opened no socket within {_START_S:g} s; is it overloaded?")
            time.sleep(_LOOK_S)
        return made

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Return the answer of QEMU's monitor to a command.

        Raises:
            PortError: off, refused, or QEMU has ended.
        """
        if self._monitor is None:
            raise PortError("the board is off; start it first")
        try:
            return self._monitor.ask(command, arguments, timeout_s=_ANSWER_S)
        except ConnectionError as error:
            raise self._explain() from error

    def _explain(self) -> PortError:
        """Return the sentence for a QEMU that is gone."""
        words = b""
        if self._process is not None:
            _, words = self._process.communicate()
            self._process = None
        return PortError(
            f"QEMU ended: {words.decode(errors='replace').strip() or 'it says nothing'}"
        )


class Conversation:
    """Commands and answers, a line of JSON each, as QEMU's monitor and its agent in a guest speak.

    What comes in between, such as events, is dropped.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._rest = b""

    def ask(
        self, command: str, arguments: dict[str, Any] | None = None, *, timeout_s: float
    ) -> Any:
        """Return the answer to a command.

        Raises:
            PortError: the other side refuses.
            ConnectionError: it is gone.
            TimeoutError: it says nothing.
        """
        question = {"execute": command, "arguments": arguments or {}}
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        deadline_s = time.monotonic() + timeout_s
        while True:
            answer = self._next_answer(deadline_s)
            if "error" in answer:
                raise PortError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def _next_answer(self, deadline_s: float) -> dict[str, Any]:
        while b"\n" not in self._rest:
            self._socket.settimeout(max(0.001, deadline_s - time.monotonic()))
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionResetError("the other side has closed the socket")
            self._rest += part
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
