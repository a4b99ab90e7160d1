"""Ports: serial ones, and those behind ``socket://`` and ``rfc2217://``; opened exclusively."""

from __future__ import annotations

from typing import Protocol

from firmware_bridge.errors import FormatError
from firmware_bridge.port.listing import PortInfo, list_ports
from firmware_bridge.port.network import Rfc2217Port, SocketPort
from firmware_bridge.port.serial_port import SerialPort

__all__ = ["Port", "PortInfo", "Rfc2217Port", "SerialPort", "SocketPort", "list_ports", "new_port"]

_MAX_BAUD = 20_000_000


class Port(Protocol):
    """What the link needs of a port. Nothing is open before ``open``."""

    path: str

    @property
    def is_present(self) -> bool:
        """Whether it is worth trying to open it."""

    @property
    def paced_baud(self) -> int | None:
        """The baud rate, or None where it means nothing."""

    def open(self) -> None:
        """Open the port for this process alone.

        Raises:
            PortNotFoundError: there is nothing of this name now.
            PortError: it cannot be opened.
        """

    def fileno(self) -> int:
        """Return the descriptor, for poll, read and write; it does not block."""

    def close(self) -> None:
        """Close the port; a second time does nothing."""


def new_port(path: str, baud: int = 115200, stop_bits: float = 1) -> Port:
    """Make the port called ``path``: a device, a link, a USB serial number, or a URL.

    Raises:
        FormatError: a baud rate or stop bits that there are not, or a URL of another kind.
    """
    if not 1 <= baud <= _MAX_BAUD:
        raise FormatError(f"expected a baud rate from 1 to {_MAX_BAUD}, got {baud}")
    if path.startswith(SocketPort.SCHEME):
        return SocketPort(path)
    if path.startswith(Rfc2217Port.SCHEME):
        return Rfc2217Port(path, baud, stop_bits)
    return SerialPort(path, baud, stop_bits)
