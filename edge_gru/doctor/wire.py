"""The serial ports, and the two services that take them away."""

from __future__ import annotations

from edge_gru.doctor.check import Check, failed, passed, skipped, warned
from edge_gru.doctor.machine import Machine

_NODES = ("ttyUSB", "ttyACM", "ttyTHS")
_ENABLED = "/etc/systemd/system/*/*ModemManager*.service"


def serial_ports(machine: Machine) -> Check:
    """Tell which ports there are, and whether this user may open them."""
    name = "serial ports"
    nodes = [n for kind in _NODES for n in machine.glob(f"/dev/{kind}[0-9]*")]
    process = machine.process
    if not nodes:
        if "dialout" not in process.groups and not process.is_root:
            return warned(
                name,
                "none yet, and this user is not in the group dialout",
                "sudo usermod -aG dialout $USER, then log in again",
            )
        return skipped(name, "none; plug in a board, or try `edge-gru simulate --pump`")
    closed = [node for node in nodes if not process.may_open(machine.path(node))]
    if closed:
        return failed(
            name,
            f"this user may not open {', '.join(closed)}",
            "sudo usermod -aG dialout $USER, then log in again",
        )
    usb = [node for node in nodes if not node.startswith("/dev/ttyTHS")]
    if usb and not machine.glob("/dev/serial/by-*/*"):
        return warned(
            name,
            f"{', '.join(nodes)}; udev has made no names that survive a replug",
            "in a container, mount /dev/serial and /run/udev too",
        )
    return passed(name, ", ".join(nodes))


def modem_manager(machine: Machine) -> Check:
    """Tell whether ModemManager asks every new port whether it is a modem."""
    name = "ModemManager"
    if name in machine.running or machine.glob(_ENABLED):
        return warned(
            name,
            "it sends AT commands to boards that are plugged in",
            "sudo systemctl disable --now ModemManager, if there is no modem",
        )
    return passed(name, "not active")


def braille(machine: Machine) -> Check:
    """Tell whether brltty takes USB adapters that look like braille displays."""
    if "brltty" not in machine.packages:
        return passed("brltty", "not installed")
    return warned(
        "brltty",
        "it takes CH340 and CP210x adapters for braille displays, and their ports vanish",
        "sudo apt remove brltty, if nobody needs it",
    )
