"""An emulated arm64 machine that boots a `GuestImage`; commands go in through QEMU's agent."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware_bridge import PortError
from firmware_bridge.simulator.qemu_process import Conversation, QemuProcess
from tests.boot.guest_image import GuestImage, write_disk

# Where the kernel has page tables of its own, as KASLR asks for, QEMU forgets addresses at every
# system call, and a boot takes twice as long.
KERNEL_LINE = (
    "console=ttyAMA0 root=/dev/vda rw quiet mitigations=off kpti=off nokaslr systemd.show_status=0"
)
MACHINE = "-M virt,gic-version=3 -cpu cortex-a72 -m 1536 -accel tcg,thread=multi -nodefaults"
DEVICES = "-device virtio-rng-pci -device qemu-xhci,id=xhci -device virtio-serial-pci"
AGENT = "-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0"
TELLER = "-device virtserialport,chardev=teller,name=teller"
TELL = "/dev/virtio-ports/teller"
PAYLOAD = "/mnt"
_ANSWER_S = 60.0
_LOOK_S = 0.2
_LOOK_AGAIN_S = 1.0  # a look costs an emulated machine some of its time


class GuestError(Exception):
    """A command in the guest failed, or the guest does not come up."""


@dataclass
class Result:
    """What a command in the guest left."""

    status: int
    out: str
    err: str


class Guest:
    """One machine; a context manager that switches it on and pulls its supply.

    Args:
        image: what it boots.
        disk: raw or ``.qcow2``, keeps what is written; None: the image's, and all is forgotten.
        payload: a folder that the guest finds under ``/mnt``, read-only.
        options: more of QEMU's, such as devices.
        log: where the console is written.
        n_cpus: how many it has.
    """

    def __init__(
        self,
        image: GuestImage,
        *,
        disk: Path | None = None,
        payload: Path | None = None,
        options: Sequence[str] = (),
        log: Path = Path("/dev/null"),
        n_cpus: int = 2,
    ) -> None:
        self._image = image
        self._disk = disk
        self._payload = payload
        self._options = options
        self._log = log
        self._n_cpus = n_cpus
        self._qemu = QemuProcess("qemu-system-aarch64")
        self._agent: Conversation | None = None
        self._teller: socket.socket | None = None
        self._told = "\n"

    def start(self) -> None:
        """Switch on; see `wait_until_up`."""
        self._qemu.prepare()
        options = f"{MACHINE} -smp {self._n_cpus} {DEVICES} {AGENT} {TELLER}".split()
        options += ["-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)]
        options += ["-append", KERNEL_LINE, "-serial", f"file:{self._log}"]
        for name in ("agent", "teller"):
            path = self._qemu.path(name)
            options += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
        disk = f"{self._disk}" if self._disk else f"{self._image.disk},snapshot=on"
        options += self._drive("root", disk)
        if self._payload is not None:
            made = self._qemu.path("payload.img")
            n_bytes = sum(p.stat().st_size for p in self._payload.rglob("*"))
            write_disk(self._payload, made, n_mb=64 + n_bytes * 5 // 4_000_000, label="payload")
            options += self._drive("payload", f"{made},readonly=on")
        self._qemu.start([*options, *self._options])

    @staticmethod
    def _drive(name: str, file: str) -> list[str]:
        format_ = "qcow2" if file.endswith(".qcow2") else "raw"
        drive = f"if=none,id={name},format={format_},file={file}"
        return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]

    def wait_until_up(self, timeout_s: float, *, target: str = "") -> float:
        """Wait until systemd is done, mount the payload; return the uptime in s.

        With a ``target`` wait for no more than that.

        Raises:
            GuestError: not in time.
        """
        self._agent = Conversation(self._qemu.connect("agent"))
        self._teller = self._qemu.connect("teller")
        self._ask("guest-ping", timeout_s=timeout_s)  # QEMU keeps it until the agent listens
        wait = f"systemctl start {target}" if target else "systemctl is-system-running --wait"
        self.run(wait, check=False, timeout_s=timeout_s)
        if self._payload is not None:
            self.run(f"mount -o ro /dev/disk/by-label/payload {PAYLOAD}")
        return float(self.run("cat /proc/uptime").out.split()[0])

    def stop(self) -> None:
        """Pull the supply: what the guest has not written to its disk is gone."""
        self._qemu.stop()
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._teller is not None:
            self._teller.close()
            self._teller = None

    def shut_down(self, timeout_s: float) -> None:
        """Let the guest switch itself off.

        Raises:
            GuestError: it does not.
        """
        self._qemu.ask("system_powerdown")
        if not self._qemu.wait(timeout_s):
            raise GuestError(f"the guest did not switch off within {timeout_s:g} s")
        self.stop()

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Ask QEMU itself; ``_`` in names stands for ``-``."""
        return self._qemu.ask(command, arguments)

    def run(
        self, command: str, *, stdin: bytes = b"", check: bool = True, timeout_s: float = _ANSWER_S
    ) -> Result:
        """Run a line of shell as root.

        Raises:
            GuestError: it fails and ``check``, or does not end.
        """
        result = self.finish(self.begin(command, stdin=stdin), timeout_s=timeout_s)
        if check and result.status:
            raise GuestError(f"{command} ended with {result.status}: {result.err or result.out}")
        return result

    def begin(self, command: str, *, stdin: bytes = b"") -> int:
        """Begin to run a line of shell as root; return its process number."""
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        number: int = self._ask("guest-exec", arguments)["pid"]
        return number

    def finish(self, number: int, *, timeout_s: float = _ANSWER_S) -> Result:
        """Wait for the end of what was begun.

        Raises:
            GuestError: it does not end.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (done := self._ask("guest-exec-status", {"pid": number}))["exited"]:
            if time.monotonic() > deadline_s:
                raise GuestError(f"after {timeout_s:g} s there is no end of process {number}")
            time.sleep(_LOOK_S)
        out, err = (
            base64.b64decode(done.get(name, "")).decode(errors="replace")
            for name in ("out-data", "err-data")
        )
        return Result(done.get("exitcode", -1), out, err)

    def until_told(self, line: str, timeout_s: float) -> None:
        """Wait until the guest writes a line to `TELL`; others before it are passed over.

        Raises:
            GuestError: not in time.
        """
        if self._teller is None:
            raise PortError("the guest is off; start it first")
        self._teller.settimeout(timeout_s)
        try:
            while f"\n{line}\n" not in self._told:
                part = self._teller.recv(4096)
                if not part:
                    raise GuestError(f"the guest is off and has told no {line}")
                self._told += part.decode()
        except TimeoutError as error:
            raise GuestError(f"in {timeout_s:g} s the guest told no {line}") from error
        self._told = "\n" + self._told.partition(f"\n{line}\n")[2]

    def until(self, command: str, is_enough: Callable[[str], Any], timeout_s: float) -> str:
        """Run a command again and again until its output is enough; return that.

        Raises:
            GuestError: not in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_enough(out := self.run(command, check=False).out):
            if time.monotonic() > deadline_s:
                raise GuestError(f"after {timeout_s:g} s, {command} still says: {out[-2000:]}")
            time.sleep(_LOOK_AGAIN_S)
        return out

    def write(self, path: str, content: str) -> None:
        """Write a file."""
        self.run(f"cat >{path}", stdin=content.encode())

    def _ask(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout_s: float = _ANSWER_S,
    ) -> Any:
        if self._agent is None:
            raise PortError("the guest is off; start it first")
        try:
            return self._agent.ask(command, arguments, timeout_s=timeout_s)
        except (ConnectionError, TimeoutError) as error:
            raise GuestError(f"the guest says nothing to {command}; see {self._log}") from error

    def __enter__(self) -> Guest:  # noqa: PYI034 - Self needs Python 3.11
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
