"""From `ship l4t` to a board that serves, over power cuts: an emulated arm64 machine.

    python -m tests.boot.flash_boot [--folder build/arm64] [--cuts 20] [--seed 1]

The rootfs of a stand-in for Linux_for_Tegra is that of a real arm64 Debian, written to a disk as a
flash would and booted in QEMU, with an emulated USB adapter and real firmware behind it. Then the
supply is pulled at random instants while a model is updated. Root only. Ends with 1 if something is
not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_bridge.simulator import QemuBoard
from tests.boot import payload
from tests.boot.guest import PAYLOAD, Guest, GuestError
from tests.boot.guest_image import GuestImage, write_disk
from tests.deploy.parcel import TOP, Fleet, ship
from tests.deploy.report import Report

RATE_HZ = 110.0
BOOT_S, SLOW_S = 1800.0, 600.0
FIRST_S = 60.0  # of guest time, from multi-user.target
HEALTH = "cat /run/edge-gru/health.json"
FIRST_PREDICTION = 'grep -m1 \'"kind":"prediction"\' /var/lib/edge-gru/predictions.jsonl'
ADAPTER = f"usb-serial,chardev=cable,id=adapter,serial={payload.SERIAL_NUMBER}"
SETTINGS = f"""store = "/var/lib/edge-gru/bundles"
port = "{payload.SENSOR}"
wait_for_port = true
rate_hz = {RATE_HZ}
outputs = ["/var/lib/edge-gru/predictions.jsonl", "board"]
"""
DEPLOY = f"""bundle = "model-1.egb"
pubkeys = ["fleet.pub"]
config = "settings.toml"

[sensors]
{payload.SERIAL_NUMBER} = "{Path(payload.SENSOR).name}"
"""
NEEDED = {
    "python3": "3.11.2-1",
    "libc6": "2.36-9",
    "libstdc++6": "12.2.0-14",
    "systemd": "252.39-1",
    "udev": "252.39-1",
}
INSTALLED = """
Package: {name}
Status: install ok installed
Version: {version}
Architecture: arm64
Maintainer: Debian
Description: of the image
"""
USER = "jetson:x:1000:1000::/home/jetson:/bin/bash\n"
RELEASE = "# R36 (release), REVISION: 4.4, GCID: 0, BOARD: generic, EABI: aarch64, DATE: none\n"


def stand_in(image: GuestImage, folder: Path) -> Path:
    """Make a Linux_for_Tegra with the names of the real one, and a rootfs that boots here."""
    tegra = folder / "Linux_for_Tegra"
    (tegra / "rootfs").mkdir(parents=True)
    for name in ("apply_binaries.sh", "flash.sh", "jetson-orin-nano-devkit.conf"):
        (tegra / name).write_text("")
    command = ["tar", "-xpf", image.rootfs, "-C", tegra / "rootfs", "--numeric-owner"]
    subprocess.run(command, check=True)
    (tegra / "rootfs/etc/nv_tegra_release").write_text(RELEASE)
    with (tegra / "rootfs/var/lib/dpkg/status").open("a") as file:  # of what was only unpacked
        file.writelines(INSTALLED.format(name=n, version=v) for n, v in NEEDED.items())
    return tegra


def look_at_gates(tegra: Path, words: list[object], report: Report) -> None:
    """Nothing is laid over a rootfs that the wizard would start in."""
    passwd = tegra / "rootfs/etc/passwd"
    refused = ship("l4t", tegra, *words)
    said = refused.stderr.strip()
    report.check("without a user", said, is_right="default user: nobody can log in" in said)
    passwd.write_text(passwd.read_text() + USER)
    wizard = tegra / "rootfs/etc/systemd/system/default.target"
    wizard.symlink_to("/lib/systemd/system/nv-oem-config.target")
    said = ship("l4t", tegra, *words).stderr.strip()
    report.check("with the wizard", said, is_right="first-boot wizard: starts" in said)
    wizard.unlink()


def flash(image: GuestImage, folder: Path, fleet: Fleet, options: Any, report: Report) -> Path:
    """Lay the overlay, and write the rootfs to a disk as a flash does."""
    tegra = stand_in(image, folder)
    (fleet.folder / "settings.toml").write_text(SETTINGS)
    (fleet.folder / "deploy.toml").write_text(DEPLOY)
    words: list[object] = ["--board", "jetson-orin-nano-devkit"]
    words += ["--deploy", fleet.folder / "deploy.toml"]
    words += ["--wheels", options.wheels] if options.wheels else []
    look_at_gates(tegra, words, report)
    laid = ship("l4t", tegra, *words)
    said = (laid.stdout or laid.stderr).strip().splitlines()
    report.check("ship l4t", said[0], is_right=laid.returncode == 0)
    disk = folder / "disk.img"
    write_disk(tegra / "rootfs", disk, n_mb=2400)
    shutil.rmtree(tegra)
    return disk


@dataclass
class Machine:
    """The machine with its disk; each `on` is a boot, whose end is a power cut."""

    image: GuestImage
    disk: Path
    payload: Path
    board: QemuBoard
    log: Path

    @contextmanager
    def on(self) -> Iterator[Guest]:
        """Switch it on, wait until it is up, pull the supply at the end."""
        cable = f"socket,id=cable,path={self.board.uart_path},reconnect=1"
        options = ["-chardev", cable, "-device", ADAPTER]
        guest = Guest(
            self.image, disk=self.disk, payload=self.payload, options=options, log=self.log
        )
        with guest:
            guest.wait_until_up(BOOT_S)
            yield guest


def health(guest: Guest) -> dict[str, Any]:
    """What the service says of itself; empty: nothing yet."""
    try:
        return json.loads(guest.run(HEALTH, check=False).out or "{}")
    except json.JSONDecodeError:
        return {}


def until_predicting(guest: Guest, *, rate_hz: float = 1.0) -> dict[str, Any]:
    """Wait until it predicts so often; return its health."""
    deadline_s = time.monotonic() + SLOW_S
    while True:
        found = health(guest)
        if found.get("state") == "predicting" and found["rate_hz"] >= rate_hz:
            return found
        if time.monotonic() > deadline_s:
            said = guest.run("systemctl status edge-gru --no-pager -l", check=False).out
            raise GuestError(f"it does not predict: {found} {said}")
        time.sleep(1.0)


def look_at_first_boot(guest: Guest, report: Report) -> None:
    """How soon it predicts, and what the board is like then."""
    found = until_predicting(guest)
    first = json.loads(guest.run(FIRST_PREDICTION).out)
    up_us = guest.run("systemctl show -P ActiveEnterTimestampMonotonic multi-user.target").out
    after_s = first["mono_ns"] * 1e-9 - int(up_us) * 1e-6
    report.check("first prediction after multi-user.target, s", f"{after_s:.1f}",
                 is_right=after_s <= FIRST_S)  # fmt: skip
    found = until_predicting(guest, rate_hz=100.0)
    report.check("predictions a second", found["rate_hz"], is_right=True)
    time.sleep(20.0)
    summary = health(guest)["summary"]
    lost = {name: summary[name] for name in ("lost_samples", "overrun_samples", "frames_bad")}
    kept = {"n_predictions": summary["n_predictions"], **lost}
    n_lost = summary["lost_samples"] + summary["overrun_samples"]
    report.check("lost", kept, is_right=n_lost == 0)
    screen = guest.run("edge-gru status", check=False, timeout_s=SLOW_S).out
    report.check("edge-gru status", f"\n{screen}", is_right="predicting" in screen)
    failed = guest.run("systemctl --failed --plain --no-legend", check=False).out.strip()
    report.check("failed units", failed or "none", is_right="edge-gru" not in failed)


def look_at_hot_plug(guest: Guest, report: Report) -> None:
    """Pull the adapter out and put it in again."""
    guest.qmp("device_del", id="adapter")
    guest.until(HEALTH, lambda out: '"waiting"' in out, SLOW_S)
    time.sleep(3.0)
    serial = payload.SERIAL_NUMBER
    guest.qmp("device_add", driver="usb-serial", chardev="cable", id="adapter", serial=serial)
    found = until_predicting(guest)
    report.check("unplugged and plugged in", f"{found['summary']['reconnects']} reconnects",
                 is_right=found["summary"]["reconnects"] >= 1)  # fmt: skip


def update(version: int) -> str:
    """The command that brings a version of the model from the payload."""
    return f"edge-gru bundle install --trial 0 {PAYLOAD}/model-{version}.egb"


def cut_power(machine: Machine, report: Report, n_cuts: int, chance: random.Random) -> None:
    """Update again and again, cut each update at some instant; every boot serves old or new."""
    serving, wanted, install_s = 1, 1, 0.0
    counts = {"old": 0, "new": 0}
    for number in range(n_cuts + 1):
        with machine.on() as guest:
            if number == 0:
                look_at_first_boot(guest, report)
                look_at_hot_plug(guest, report)
                begun_s = time.monotonic()
                guest.run(update(2), timeout_s=SLOW_S)
                install_s = time.monotonic() - begun_s
                report.say(f"an update takes {install_s:.1f} s here")
                serving = wanted = 2
            else:
                found = until_predicting(guest)["bundle"]["version"]
                is_right = found in (serving, wanted)
                counts["new" if found == wanted else "old"] += 1
                report.check(f"after cut {number}, serves version", found, is_right=is_right)
                serving = found
            if number == n_cuts:
                break
            wanted = serving + 1
            at_s = chance.uniform(0.0, 1.2 * install_s)
            guest.run(f"nohup {update(wanted)} >/run/update 2>&1 &")
            time.sleep(at_s)
            report.say(f"cut {number + 1}: {at_s:.1f} s into the update to version {wanted}")
    report.say(f"boots that served: {sum(counts.values())} of {n_cuts}; {counts}")


def main() -> None:
    """Flash, boot, cut."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=TOP / "build/arm64")
    parser.add_argument("--wheels", type=Path, help="Of a Python 3.11 on aarch64.")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = Report()
    image = GuestImage(options.folder, say=report.say)
    image.build()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        (folder / "payload").mkdir()
        fleet = Fleet.make(folder / "payload")
        models = [payload.model(seed) for seed in (0, 1)]
        for version in range(1, options.cuts + 3):
            fleet.sign(models[version % 2], version)
        disk = flash(image, folder, fleet, options, report)
        report.say(f"the disk is written; load {os.getloadavg()[0]:.1f}")
        with QemuBoard(payload.firmware(folder / "board"), has_pty=False) as board:
            machine = Machine(image, disk, fleet.folder, board, options.folder / "console.log")
            cut_power(machine, report, options.cuts, random.Random(options.seed))
    report.say(f"{report.n_wrong} of the checks are wrong; load {os.getloadavg()[0]:.1f}")
    raise SystemExit(min(report.n_wrong, 1))


if __name__ == "__main__":
    main()
