"""The serial ports of this machine, and the names of each that survive a replug."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serial.tools import list_ports as serial_list_ports


@dataclass(frozen=True)
class PortInfo:
    """A serial port of this machine; the links are the names that survive a replug."""

    device: str
    description: str = ""
    by_id: str | None = None
    by_path: str | None = None
    serial_number: str | None = None


def list_ports() -> list[PortInfo]:
    """Return the serial ports there are, by device name."""
    by_id = _links("/dev/serial/by-id")
    by_path = _links("/dev/serial/by-path")
    return [
        PortInfo(
            device=port.device,
            description="" if port.description == "n/a" else port.description,
            by_id=by_id.get(port.device),
            by_path=by_path.get(port.device),
            serial_number=port.serial_number,
        )
        for port in sorted(serial_list_ports.comports(), key=lambda port: port.device)
    ]


def _links(folder: str) -> dict[str, str]:
    """Return device -> link for the links in ``folder``."""
    path = Path(folder)
    if not path.is_dir():
        return {}
    return {str(link.resolve()): str(link) for link in sorted(path.iterdir())}
