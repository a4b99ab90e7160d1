"""From `ship l4t` to a board that serves, over power cuts: an emulated arm64 machine.

    python -m tests.boot.flash_boot [--folder build/arm64] [--cuts 20] [--seed 1] [--machines 2]

The rootfs of a stand-in for Linux_for_Tegra is that of a real arm64 Debian, written to a disk as a
flash would and booted in QEMU, with an emulated USB adapter and real firmware behind it. Then the
supply of machines with copies of that disk is pulled at random instants while a model is updated.
Root only; needs mmdebstrap, qemu-system-arm and qemu-utils. Ends with 1 if something is not as it
should be.
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
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from firmware_bridge.simulator import QemuBoard
from tests.boot import payload
from tests.boot.guest import Guest
from tests.boot.guest_image import GuestImage, write_disk
from tests.boot.machine import BOOT_S, HEALTH, SLOW_S, Machine, health, until_predicting
from tests.boot.power_cuts import STORE, Lane, draw_cuts, run_lanes
from tests.deploy.parcel import TOP, Fleet, ship
from tests.deploy.report import Report

RATE_HZ, ENOUGH_HZ = 150.0, 100.0
STEADY_S = 30.0
N_MODELS = 4  # that follow each other in turn, as versions of one
CUT_RATE_HZ = 20.0  # an update has the rest of the machine
FIRST_S = 60.0  # of guest time, from multi-user.target
FIRST_PREDICTION = 'grep -m1 \'"kind":"prediction"\' /var/lib/edge-gru/predictions.jsonl'
CONFIG = "/etc/edge-gru/edge-gru.toml"
SETTINGS = f"""store = "{STORE}"
port = "{payload.SENSOR}"
wait_for_port = true
rate_hz = {RATE_HZ}
outputs = ["/var/lib/edge-gru/predictions.jsonl"]
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


def flash(
    image: GuestImage, folder: Path, fleet: Fleet, options: argparse.Namespace, report: Report
) -> Path:
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


def look_at_first_boot(guest: Guest, report: Report) -> None:
    """How soon it predicts as often as it should."""
    found = until_predicting(guest, rate_hz=ENOUGH_HZ)
    first = json.loads(guest.run(FIRST_PREDICTION).out)
    up_us = guest.run("systemctl show -P ActiveEnterTimestampMonotonic multi-user.target").out
    up_s = int(up_us) * 1e-6
    first_s, enough_s = first["mono_ns"] * 1e-9 - up_s, found["mono_s"] - up_s
    report.check(f"after multi-user.target, s: first prediction; {ENOUGH_HZ:g} a second",
                 f"{first_s:.1f}; {enough_s:.1f}", is_right=enough_s <= FIRST_S)  # fmt: skip


def look_at_board(guest: Guest, report: Report) -> None:
    """What the board is like once all that its first boot begins is done."""
    guest.run("systemctl is-system-running --wait", check=False, timeout_s=BOOT_S)
    state = guest.run("dpkg-query -W -f '${Status}' edge-gru").out
    report.check("dpkg has the package as", state, is_right=state == "install ok installed")
    screen = guest.run("edge-gru status", check=False, timeout_s=SLOW_S).out
    report.check("edge-gru status", f"\n{screen}", is_right="predicting" in screen)
    failed = guest.run("systemctl --failed --plain --no-legend", check=False).out.strip()
    report.check("failed units", failed or "none", is_right="edge-gru" not in failed)


def look_at_pace(guest: Guest, report: Report) -> None:
    """How often it predicts, by its own clock, and whether anything is lost."""
    begun = health(guest)
    time.sleep(STEADY_S)
    ended = health(guest)
    seconds = ended["mono_s"] - begun["mono_s"]
    summary = ended["summary"]
    n_more = summary["n_predictions"] - begun["summary"]["n_predictions"]
    report.check(f"predictions a second, over {seconds:.1f} s", f"{n_more / seconds:.1f}",
                 is_right=n_more >= ENOUGH_HZ * seconds)  # fmt: skip
    lost = {name: summary[name] for name in ("lost_samples", "overrun_samples", "frames_bad")}
    waiting = summary["link"]["samples"] - summary["n_samples"]
    kept = {"n_predictions": summary["n_predictions"], **lost, "still to predict": waiting}
    n_lost = summary["lost_samples"] + summary["overrun_samples"]
    report.check("lost", kept, is_right=n_lost == 0)
    report.say(f"      load of the host {os.getloadavg()[0]:.1f}")


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


def first_boot(machine: Machine, report: Report) -> None:
    """Boot what was flashed, look at it, and leave a disk for the power cuts."""
    with machine.on() as guest:
        report.say(f"multi-user.target is reached; load of the host {os.getloadavg()[0]:.1f}")
        look_at_first_boot(guest, report)
        look_at_pace(guest, report)
        look_at_hot_plug(guest, report)
        look_at_board(guest, report)
        guest.run(f"sed -i 's/^rate_hz.*/rate_hz = {CUT_RATE_HZ}/' {CONFIG}; sync")


def cut_power(
    first: Machine, elf: Path, hashes: dict[int, str], options: argparse.Namespace, report: Report
) -> None:
    """Cut updates on copies of a machine, side by side; every boot serves the old or the new."""
    cuts = draw_cuts(options.cuts, random.Random(options.seed))
    report.say(f"instants, by seed {options.seed}: {', '.join(map(str, cuts))}")
    lanes = []
    with ExitStack() as boards:
        for name in "ABCDEFGH"[: min(options.machines, len(cuts))]:
            disk = first.disk.with_name(f"disk-{name}.img")
            subprocess.run(["cp", "--sparse=always", first.disk, disk], check=True)
            board = boards.enter_context(QemuBoard(elf, has_pty=False))
            log = first.log.with_name(f"console-{name}.log")
            machine = replace(first, disk=disk, board=board, log=log)
            lanes.append(Lane(name, machine, 1, hashes, report))
        counts = run_lanes(lanes, cuts)
    report.say(f"boots that served: {sum(counts.values())} of {len(cuts)}; {dict(counts)}")


def main() -> None:
    """Flash, boot, cut."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=TOP / "build/arm64")
    parser.add_argument("--wheels", type=Path, help="Of a Python 3.11 on aarch64.")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--machines", type=int, default=2, help="That are cut side by side.")
    options = parser.parse_args()
    report = Report()
    image = GuestImage(options.folder, say=report.say)
    image.build()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        (folder / "payload").mkdir()
        shutil.copy(Path(__file__).with_name("watch_store.py"), folder / "payload")
        fleet = Fleet.make(folder / "payload")
        n_versions = 3 + options.cuts // min(options.machines, options.cuts or 1)
        models = [payload.model(seed) for seed in range(N_MODELS)]
        hashes = {}
        for version in range(1, n_versions + 1):
            model = models[version % N_MODELS]
            fleet.sign(model, version)
            hashes[version] = model.hash
        disk = flash(image, folder, fleet, options, report)
        elf = payload.firmware(folder / "board")
        report.say(f"the disk is written; load of the host {os.getloadavg()[0]:.1f}")
        with QemuBoard(elf, has_pty=False) as board:
            machine = Machine(image, disk, fleet.folder, board, options.folder / "console.log")
            first_boot(machine, report)
        if options.cuts:
            cut_power(machine, elf, hashes, options, report)
    report.say(f"{report.n_wrong} of the checks are wrong; load {os.getloadavg()[0]:.1f}")
    raise SystemExit(min(report.n_wrong, 1))


if __name__ == "__main__":
    main()
