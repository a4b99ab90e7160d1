"""An emulated arm64 machine that boots a `GuestImage`; commands go in through QEMU's agent."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware_bridge import PortError
from firmware_bridge.simulator.qemu_process import Conversation, QemuProcess
from tests.boot.guest_image import GuestImage, write_disk

KERNEL_LINE = "console=ttyAMA0 root=/dev/vda rw quiet mitigations=off systemd.show_status=0"
MACHINE = "-M virt,gic-version=3 -cpu cortex-a72 -smp 2 -m 1536 -accel tcg,thread=multi -nodefaults"
DEVICES = "-device virtio-rng-pci -device qemu-xhci,id=xhci -device virtio-serial-pci"
AGENT = "-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0"
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
        disk: a disk of `GuestImage.copy_disk` that keeps what is written; None: all is forgotten.
        payload: a folder that the guest finds under ``/mnt``, read-only.
        options: more of QEMU's, such as devices.
        log: where the console is written.
    """

    def __init__(
        self,
        image: GuestImage,
        *,
        disk: Path | None = None,
        payload: Path | None = None,
        options: Sequence[str] = (),
        log: Path = Path("/dev/null"),
    ) -> None:
        self._image = image
        self._disk = disk
        self._payload = payload
        self._options = options
        self._log = log
        self._qemu = QemuProcess("qemu-system-aarch64")
        self._agent: Conversation | None = None

    def start(self) -> None:
        """Switch on; see `wait_until_up`."""
        self._qemu.prepare()
        options = f"{MACHINE} {DEVICES} {AGENT}".split()
        options += ["-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)]
        options += ["-append", KERNEL_LINE, "-serial", f"file:{self._log}"]
        options += [
            "-chardev",
            f"socket,id=agent,path={self._qemu.path('agent')},server=on,wait=off",
        ]
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
        drive = f"if=none,id={name},format=raw,file={file}"
        return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]

    def wait_until_up(self, timeout_s: float) -> float:
        """Wait until systemd has reached its target, mount the payload; return the uptime in s.

        Raises:
            GuestError: not in time.
        """
        self._agent = Conversation(self._qemu.connect("agent"))
        self._ask("guest-ping", timeout_s=timeout_s)  # QEMU keeps it until the agent listens
        self.run("systemctl is-system-running --wait", check=False, timeout_s=timeout_s)
        if self._payload is not None:
            self.run(f"mount -o ro /dev/disk/by-label/payload {PAYLOAD}")
        return float(self.run("cat /proc/uptime").out.split()[0])

    def stop(self) -> None:
        """Pull the supply: what the guest has not written to its disk is gone."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        self._qemu.stop()

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
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        pid = self._ask("guest-exec", arguments)["pid"]
        deadline_s = time.monotonic() + timeout_s
        while not (done := self._ask("guest-exec-status", {"pid": pid}))["exited"]:
            if time.monotonic() > deadline_s:
                raise GuestError(f"after {timeout_s:g} s there is no end of: {command}")
            time.sleep(_LOOK_S)
        out, err = (
            base64.b64decode(done.get(name, "")).decode(errors="replace")
            for name in ("out-data", "err-data")
        )
        result = Result(done.get("exitcode", -1), out, err)
        if check and result.status:
            raise GuestError(f"{command} ended with {result.status}: {err or out}")
        return result

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
