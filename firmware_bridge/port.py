"""Serial ports: open exclusively, at low latency, and say clearly why not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import termios
from dataclasses import dataclass
from pathlib import Path

import serial
from serial.tools import list_ports as serial_list_ports

from firmware_bridge.errors import PortError, PortNotFoundError

_log = logging.getLogger(__name__)

_PSEUDO_TERMINALS = "/dev/pts/"
_UART_PREFIXES = ("ttyS", "ttyUSB", "ttyTHS", "ttyAMA", "ttymxc", "ttyO")


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


class _Serial(serial.Serial):  # type: ignore[misc]  # pyserial ships no types
    """A port that keeps what arrives while it is being opened, such as a header line."""

    def _reset_input_buffer(self) -> None:
        pass


class Port:
    """One serial port, given as device, by-id link or pty. Nothing is open before ``open``."""

    def __init__(self, path: str, baud: int = 115200) -> None:
        self.path = path
        self.baud = baud
        self._serial: _Serial | None = None
        self._device = path

    @property
    def is_present(self) -> bool:
        """Whether something has this name now."""
        return Path(self.path).exists()

    @property
    def paced_baud(self) -> int | None:
        """The baud rate, or None where it means nothing: USB-CDC, pseudo terminals."""
        return self.baud if Path(self._device).name.startswith(_UART_PREFIXES) else None

    def open(self) -> None:
        """Open the port for this process alone, raw, at low latency where the driver can.

        Raises:
            PortNotFoundError: nothing has this name; the message lists the ports there are.
            PortError: held by another process, not permitted, no serial port, or an odd baud rate.
        """
        self._device = os.path.realpath(self.path)
        self._refuse_other_files()
        try:
            self._serial = _Serial(self.path, self.baud, timeout=0, exclusive=True)
        except (OSError, termios.error, ValueError) as error:
            raise self._explain(error) from error
        self._claim()
        try:
            self._serial.set_low_latency_mode(True)
        except (OSError, termios.error, ValueError, NotImplementedError):
            _log.debug("%s has no low latency mode", self.path)

    def _claim(self) -> None:
        """Keep out those who ignore the lock: the lock alone stops no plain open."""
        # A pseudo terminal outlives the process that opened it, and the mark would as well.
        if not self._device.startswith(_PSEUDO_TERMINALS):
            fcntl.ioctl(self.fileno(), termios.TIOCEXCL)

    def fileno(self) -> int:
        """Return the descriptor, for poll, read and write; it does not block.

        Raises:
            PortError: the port is not open.
        """
        if self._serial is None:
            raise PortError(f"{self.path} is not open")
        return int(self._serial.fileno())

    def close(self) -> None:
        """Close the port; a second time, or after an unplug, does nothing."""
        if self._serial is None:
            return
        try:
            self._serial.close()
        except (OSError, termios.error, TypeError) as error:
            _log.debug("closing %s: %s", self.path, error)
        self._serial = None

    def _refuse_other_files(self) -> None:
        try:
            mode = Path(self._device).stat().st_mode
        except FileNotFoundError as error:
            raise self._not_found() from error
        except OSError as error:
            raise self._explain(error) from error
        if not stat.S_ISCHR(mode):
            raise PortError(f"expected a serial port, {self.path} is a file of another kind")

    def _not_found(self) -> PortNotFoundError:
        devices = ", ".join(port.by_id or port.device for port in list_ports())
        there_are = f"there are: {devices}" if devices else "this machine has none now"
        return PortNotFoundError(f"no such port: {self.path}; {there_are}")

    def _explain(self, error: Exception) -> PortError:
        """Return the sentence for a failed open."""
        code = getattr(error, "errno", None)
        if code in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            return self._not_found()
        if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
            return PortError(f"{self.path} is in use by {_holders(self._device)}; stop that first")
        if code in (errno.EACCES, errno.EPERM):
            return PortError(
                f"no permission to open {self.path}; add the user to the group dialout "
                "(sudo usermod -aG dialout $USER) and log in again"
            )
        if isinstance(error, ValueError):
            return PortError(f"{self.path} cannot run at {self.baud} baud; choose a standard rate")
        return PortError(f"cannot open {self.path} as a serial port at {self.baud} baud: {error}")


def _holders(device: str) -> str:
    """Name the processes that have ``device`` open, as far as this user may see them."""
    names = [
        f"process {process.name} ({_command(process)})"
        for process in Path("/proc").glob("[0-9]*")
        if device in _open_files(process)
    ]
    return " and ".join(names) or "another process"


def _open_files(process: Path) -> set[str]:
    """Return what a process has open; nothing if it is another user's, or has just ended."""
    files = set()
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                files.add(str(link.readlink()))
    return files


def _command(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "comm").read_text().strip()
    return "ended"
