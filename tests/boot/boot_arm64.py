"""Install, boot and hot-plug on an emulated arm64 Debian, with real firmware behind the cable.

    python -m tests.boot.boot_arm64 [--folder build/arm64] [--steady-s 30]

The guest has Debian's kernel, systemd, udev, ftdi_sio and ModemManager. Its USB adapter is QEMU's
FTDI one, wired to the UART of an emulated Cortex-M3 that runs the example firmware. Root only; the
first time it fetches some 200 MB. Ends with 1 if something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from firmware_bridge.simulator import QemuBoard
from tests.boot import payload
from tests.boot.guest import PAYLOAD, Guest
from tests.boot.guest_image import PYTHON, GuestImage
from tests.deploy.report import Report

LEDS = 0x40028000
BY_ID = f"/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_{payload.SERIAL_NUMBER}-if00-port0"
ADAPTER = f"usb-serial,chardev=cable,id=adapter,serial={payload.SERIAL_NUMBER}"
# Followed from the boot on: to read a long journal again takes an emulated machine minutes.
SAID = "/run/said"
FOLLOW = f"nohup journalctl -u edge-gru -o cat -f -n all >{SAID} 2>/dev/null &"
NOT_SAMPLES = f"grep '^{{' {SAID} | grep -v '\"kind\":\"prediction\"'"
N_PREDICTIONS = f'grep -c \'"kind":"prediction"\' {SAID}'
BOOT_S, SLOW_S = 900.0, 300.0
UNPLUGGED_S = 5.0
REOPEN_S = 1.0
OPENED = "journalctl -u edge-gru -o json -n 5000 | grep 'is open again' | tail -1"
N_HOLDERS = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /dev/ttyUSB0"
KEEP_OPEN = "exec 3</dev/ttyUSB0; sleep 1000"


def install(guest: Guest, report: Report) -> None:
    """Install, twice; the system was unpacked, so that its dpkg knows of no other package."""

    command = f"dpkg --force-depends --install {PAYLOAD}/edge-gru.deb"
    for attempt in ("installed", "installed again"):
        guest.run(command, timeout_s=SLOW_S * 4)
        state = guest.run("dpkg-query -W -f '${Status}' edge-gru").out
        report.check(attempt, state, is_right=state.endswith("ok installed"))
    guest.run(f"install -m 644 {PAYLOAD}/model.egb {PAYLOAD}/edge-gru.toml /etc/edge-gru")
    guest.run(f"cp {PAYLOAD}/62-edge-gru-sensor.rules /etc/udev/rules.d")
    guest.run("udevadm control --reload; udevadm trigger --action=change; udevadm settle")


def look_at_port(guest: Guest, report: Report) -> None:
    """What udev made of the adapter."""
    driver = guest.run("readlink -f /sys/class/tty/ttyUSB0/device/driver").out.strip()
    report.check("driver", driver, is_right=driver.endswith("/ftdi_sio"))
    latency = guest.run("cat /sys/bus/usb-serial/devices/ttyUSB0/latency_timer").out.strip()
    report.check("latency_timer, ms", latency, is_right=latency == "1")
    for link in (BY_ID, payload.SENSOR):
        target = guest.run(f"readlink -f {link}").out.strip()
        report.check(f"link {link}", target, is_right=target.startswith("/dev/ttyUSB"))
    owner = guest.run("stat -c '%G %a' /dev/ttyUSB0").out.strip()
    report.check("group and mode", owner, is_right=owner == "dialout 660")
    properties = guest.run(f"udevadm info -q property {payload.SENSOR}").out
    is_ignored = "ID_MM_DEVICE_IGNORE=1" in properties
    report.check("ID_MM_DEVICE_IGNORE", int(is_ignored), is_right=is_ignored)


def look_at_refusals(guest: Guest, report: Report) -> None:
    """Who may not open the port is told why; the service holds it meanwhile."""
    probe = f"edge-gru ports --probe {payload.SENSOR} --listen 0.5"
    nobody = f"setpriv --reuid=65534 --regid=65534 --clear-groups {probe}"
    told = guest.run(nobody, check=False, timeout_s=SLOW_S).err
    report.check("without permission", told.splitlines()[-1], is_right="dialout" in told)
    told = guest.run(probe, check=False, timeout_s=SLOW_S).err
    report.check("a second process", told.splitlines()[-1], is_right="edge-gru" in told)
    told = guest.run("edge-gru ports --probe /dev/ttyUSB7", check=False, timeout_s=SLOW_S).err
    report.check("no such port", told.splitlines()[-1], is_right="ttyUSB0" in told or BY_ID in told)


def look_at_modem_manager(guest: Guest, report: Report) -> None:
    """It runs, and says in its own words what it does with the port."""
    state = guest.run("systemctl is-active ModemManager", check=False).out.strip()
    report.check("ModemManager.service", state, is_right=state == "active")
    guest.run("systemctl stop ModemManager", timeout_s=SLOW_S)
    command = "timeout 30 ModemManager --debug 2>&1 | grep filtered"
    said = guest.run(command, check=False, timeout_s=SLOW_S).out
    report.check("it of the port", said[-200:], is_right="ttyUSB" in said and "blocklisted" in said)
    guest.run("systemctl start ModemManager", timeout_s=SLOW_S)


def events(guest: Guest) -> Iterator[dict[str, Any]]:
    """Everything but predictions that the service has said."""
    return map(json.loads, guest.run(NOT_SAMPLES, check=False).out.splitlines())


def n_predictions(guest: Guest) -> int:
    """How many predictions the service has made since the boot."""
    return int(guest.run(N_PREDICTIONS, check=False).out)


def until_predicting(guest: Guest, n_more: int) -> None:
    """Wait for so many predictions more."""
    n_before = n_predictions(guest)
    guest.until(N_PREDICTIONS, lambda out: int(out) >= n_before + n_more, SLOW_S)


def until_lit(board: QemuBoard, report: Report, *, is_lit: bool) -> None:
    """Wait for the light that shows the model's alert on the board."""
    deadline_s = time.monotonic() + SLOW_S
    while board.read_word(LEDS) & 1 != is_lit and time.monotonic() < deadline_s:
        time.sleep(0.1)
    found = board.read_word(LEDS) & 1
    report.check("alarm light of the board", found, is_right=found == is_lit)


def stopped(guest: Guest, report: Report, what: str) -> None:
    """Stop the service; its summary must have nothing lost."""
    guest.run("systemctl stop edge-gru", timeout_s=SLOW_S)
    summary = [e["summary"] for e in events(guest) if e["kind"] == "health" and e["final"]][-1]
    kept = ("n_samples", "n_predictions", "lost_samples", "frames_bad", "overrun_samples")
    found = {name: summary[name] for name in kept}
    is_right = found["n_samples"] == found["n_predictions"] > 0 == found["lost_samples"]
    report.check(what, found, is_right=is_right)


def hot_plug(guest: Guest, board: QemuBoard, report: Report, *, holder: str = "") -> None:
    """Pull the adapter out and put it in again; ``holder`` keeps its old name taken meanwhile."""
    n_before = len(list(events(guest)))
    if holder:
        guest.run(f"nohup sh -c '{holder}' >/dev/null 2>&1 &")
        guest.until(N_HOLDERS, lambda out: int(out) > 1, SLOW_S)
    guest.qmp("device_del", id="adapter")
    guest.until(f"ls {BY_ID} || echo gone", lambda out: "gone" in out, SLOW_S)
    guest.run(f"nohup python3 {PAYLOAD}/watch_link.py {BY_ID} >/run/present 2>/dev/null &")
    guest.until("cat /run/present", str.strip, SLOW_S)
    time.sleep(UNPLUGGED_S)
    until_lit(board, report, is_lit=False)
    serial = payload.SERIAL_NUMBER
    guest.qmp("device_add", driver="usb-serial", chardev="cable", id="adapter", serial=serial)
    is_up = '"up":true'
    guest.until(NOT_SAMPLES, lambda out: is_up in "".join(out.splitlines()[n_before:]), SLOW_S)
    changes = [e for e in list(events(guest))[n_before:] if e["kind"] == "link"]
    said = guest.until("cat /run/present", lambda out: len(out.split()) > 1, SLOW_S)
    present_ns = int(said.split()[1])
    down, up = changes[0], changes[-1]
    is_right = not down["up"] and "hung up" in down["reason"]
    report.check("unplugged", down["reason"], is_right=is_right)
    device = guest.run(f"readlink -f {BY_ID}").out.strip()
    report.check("plugged in again as", device, is_right=device.endswith("1" if holder else "0"))
    opened_us = int(json.loads(guest.run(OPENED).out)["__MONOTONIC_TIMESTAMP"])
    after_s = (opened_us * 1000 - present_ns) * 1e-9
    report.check("open after the by-id link, s", f"{after_s:.2f}", is_right=after_s < REOPEN_S)
    after_s = (up["mono_ns"] - present_ns) * 1e-9
    report.say(f"      first sample after the by-id link, s: {after_s:.2f}")
    until_predicting(guest, 20)
    until_lit(board, report, is_lit=True)


@contextmanager
def switched_on(image: GuestImage, disk: Path, board: QemuBoard, folder: Path) -> Iterator[Guest]:
    """Boot the machine with its adapter plugged in."""
    cable = f"socket,id=cable,path={board.uart_path},reconnect=1"
    options = ["-chardev", cable, "-device", ADAPTER]
    log = folder / "console.log"
    with Guest(image, disk=disk, payload=folder / "payload", options=options, log=log) as guest:
        yield guest


def first_boot(guest: Guest, board: QemuBoard, report: Report, steady_s: float) -> None:
    """Install, run, pull the cable, run without the service."""
    up_s = guest.wait_until_up(BOOT_S)
    report.say(f"up {up_s:.0f} s after its boot: {guest.run('uname -srm').out.strip()}")
    guest.run(FOLLOW)
    install(guest, report)
    look_at_port(guest, report)
    guest.run("systemctl start edge-gru", timeout_s=SLOW_S)
    report.say("edge-gru.service is ready: its engine reproduces the golden vectors")
    until_predicting(guest, int(steady_s * payload.RATE_HZ))
    until_lit(board, report, is_lit=True)
    look_at_refusals(guest, report)
    hot_plug(guest, board, report)
    hot_plug(guest, board, report, holder=KEEP_OPEN)
    stopped(guest, report, "service, steady and over two replugs")
    steady(guest, report, steady_s)
    look_at_modem_manager(guest, report)


def steady(guest: Guest, report: Report, steady_s: float) -> None:
    """Read at 1 kHz, with the link alone."""
    python = f"PYTHONPATH=/usr/lib/edge-gru/python{PYTHON} python3"
    command = f"{python} {PAYLOAD}/steady.py {payload.SENSOR} {steady_s}"
    found = json.loads(guest.run(command, timeout_s=SLOW_S + steady_s).out)
    kept = ("measured_hz", "samples", "lost_samples", "board_dropped_samples")
    kept += ("board_missed_samples", "frames_bad", "board_rx_bad")
    told = {name: round(found[name], 1) for name in kept if name in found}
    lost = found["lost_samples"] + found["board_dropped_samples"] + found["board_missed_samples"]
    report.check(f"link alone, 1 kHz, {steady_s:g} s", told, is_right=not lost)


def second_boot(guest: Guest, board: QemuBoard, report: Report) -> None:
    """After a power cut nobody has to do anything."""
    report.say(f"up {guest.wait_until_up(BOOT_S):.0f} s after its boot")
    guest.run(FOLLOW)
    until_predicting(guest, 100)
    until_lit(board, report, is_lit=True)
    stopped(guest, report, "service, started by the boot after a power cut")
    guest.run("dpkg --force-depends --purge edge-gru", timeout_s=SLOW_S)
    left = guest.run("ls -d /etc/edge-gru /var/lib/edge-gru /usr/lib/edge-gru", check=False).out
    report.check("purged; left", left.split() or "nothing", is_right=not left)


def main() -> None:
    """Boot twice."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("build/arm64"))
    parser.add_argument("--steady-s", type=float, default=30.0)
    options = parser.parse_args()
    report = Report()
    image = GuestImage(options.folder, say=report.say)
    image.build()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        (folder / "payload").mkdir()
        payload.fill(folder / "payload", payload.package(folder, PYTHON))
        disk = image.copy_disk(folder / "disk.img")
        report.say(f"image, package and firmware are ready; load {os.getloadavg()[0]:.1f}")
        with QemuBoard(payload.firmware(folder / "board"), has_pty=False) as board:
            with switched_on(image, disk, board, folder) as guest:
                first_boot(guest, board, report, options.steady_s)
                guest.run("sync")
            report.say("power cut")
            with switched_on(image, disk, board, folder) as guest:
                second_boot(guest, board, report)
    report.say(f"{report.n_wrong} of the checks are wrong; load {os.getloadavg()[0]:.1f}")
    raise SystemExit(min(report.n_wrong, 1))


if __name__ == "__main__":
    main()
