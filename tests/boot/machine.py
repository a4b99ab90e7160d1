"""An emulated machine with its disk and its sensor: it boots, serves, and loses its supply."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_bridge.simulator import QemuBoard
from tests.boot import payload
from tests.boot.guest import Guest, GuestError
from tests.boot.guest_image import GuestImage

BOOT_S, SLOW_S = 1800.0, 600.0
ADAPTER = f"usb-serial,chardev=cable,id=adapter,serial={payload.SERIAL_NUMBER}"
HEALTH = "cat /run/edge-gru/health.json"


@dataclass
class Machine:
    """The machine, of one core, and its raw disk; each `on` is a boot that ends in a power cut."""

    image: GuestImage
    disk: Path
    payload: Path
    board: QemuBoard
    log: Path

    @contextmanager
    def on(self) -> Iterator[Guest]:
        """Switch it on, wait until it is up, pull the supply at the end."""
        cable = f"socket,id=cable,path={self.board.uart_path},reconnect=1"
        with cached(self.disk) as disk:
            guest = Guest(
                self.image,
                disk=disk,
                payload=self.payload,
                options=["-chardev", cable, "-device", ADAPTER],
                log=self.log,
                n_cpus=1,
            )
            with guest:
                guest.wait_until_up(BOOT_S, target="multi-user.target")
                yield guest


@contextmanager
def cached(disk: Path) -> Iterator[Path]:
    """Give a raw disk a cache that is lost with QEMU, as a real disk's is with its supply.

    Where a write gets new space in the layer, QEMU keeps the note of it in its memory until the
    guest asks for a flush. What survived is in the raw disk afterwards.
    """
    layer = disk.with_suffix(".qcow2")
    _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", disk.name, str(layer))
    yield layer
    _qemu_img("commit", str(layer))
    layer.unlink()


def _qemu_img(verb: str, *words: str) -> None:
    subprocess.run(["qemu-img", verb, "-q", *words], check=True)


def health(guest: Guest) -> dict[str, Any]:
    """What the service says of itself; empty: nothing yet."""
    try:
        return json.loads(guest.run(HEALTH, check=False).out or "{}")
    except json.JSONDecodeError:
        return {}


def until_predicting(guest: Guest, *, rate_hz: float = 1.0) -> dict[str, Any]:
    """Wait until it predicts so often; return its health.

    Raises:
        GuestError: not in time.
    """
    deadline_s = time.monotonic() + SLOW_S
    while True:
        found = health(guest)
        if found.get("state") == "predicting" and found["rate_hz"] >= rate_hz:
            return found
        if time.monotonic() > deadline_s:
            said = guest.run("systemctl status edge-gru --no-pager -l", check=False).out
            raise GuestError(f"it does not predict: {found} {said}")
        time.sleep(1.0)
