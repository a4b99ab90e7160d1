"""Serial ports: open exclusively, at low latency, and say clearly why not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import termios
from pathlib import Path

import serial

from firmware_bridge.errors import FormatError, PortError, PortNotFoundError
from firmware_bridge.port.listing import PortInfo, list_ports

_log = logging.getLogger(__name__)

_PSEUDO_TERMINALS = "/dev/pts/"
_MODEM_MANAGER = "ModemManager"
_IGNORE_HINT = 'let it ignore the device by a udev rule with ENV{ID_MM_DEVICE_IGNORE}="1"'
_STOP_BITS = (serial.STOPBITS_ONE, serial.STOPBITS_ONE_POINT_FIVE, serial.STOPBITS_TWO)
_UART_PREFIXES = ("ttyS", "ttyUSB", "ttyTHS", "ttyAMA", "ttymxc", "ttyO")


class _Serial(serial.Serial):  # type: ignore[misc]  # pyserial ships no types
    """A port that keeps what arrives while it is being opened, such as a header line."""

    def _reset_input_buffer(self) -> None:
        pass


class SerialPort:
    """One serial port: a device, a by-id or by-path link, a pty, or a USB serial number.

    A name such as ttyUSB0 belongs to whoever comes first, so after the first opening the port is
    known by its by-id link, or else its by-path link, where there is one. Nothing is open before
    ``open``.

    Raises:
        FormatError: stop bits other than 1, 1.5 and 2.
    """

    def __init__(self, path: str, baud: int = 115200, stop_bits: float = 1) -> None:
        if stop_bits not in _STOP_BITS:
            raise FormatError(f"expected 1, 1.5 or 2 stop bits, got {stop_bits}")
        self.path = path
        self.baud = baud
        self._stop_bits = stop_bits
        self._serial: _Serial | None = None
        self._device = path
        self._lasting_name: str | None = None

    @property
    def is_present(self) -> bool:
        """Whether something has this name now."""
        return Path(self._name()).exists()

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
        name = self._name()
        self._device = os.path.realpath(name)
        self._refuse_other_files()
        try:
            self._serial = _Serial(
                name, self.baud, timeout=0, exclusive=True, stopbits=self._stop_bits
            )
        except (OSError, termios.error, ValueError) as error:
            raise self._explain(error) from error
        self._claim()
        try:
            self._serial.set_low_latency_mode(True)
        except (OSError, termios.error, ValueError, NotImplementedError):
            _log.debug("%s has no low latency mode", self.path)
        self._remember()

    def _name(self) -> str:
        """Return what to open now; a serial number leads to the device that has it."""
        if self._lasting_name is not None:
            return self._lasting_name
        if "/" in self.path:
            return self.path
        found = [port for port in list_ports() if port.serial_number == self.path]
        if len(found) > 1:
            devices = " and ".join(port.device for port in found)
            raise PortError(f"{devices} have the serial number {self.path}; give a by-path link")
        return _lasting(found[0]) or found[0].device if found else self.path

    def _remember(self) -> None:
        """Keep the name that survives a replug, if this one does not."""
        if self._lasting_name is None and self.path == self._device:
            info = next((port for port in list_ports() if port.device == self._device), None)
            self._lasting_name = _lasting(info) if info else None
            if self._lasting_name is not None:
                _log.info("%s is known as %s from here on", self.path, self._lasting_name)

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
            holders = _holders(self._device)
            hint = _IGNORE_HINT if _MODEM_MANAGER in holders else "stop that first"
            return PortError(f"{self.path} is in use by {holders}; {hint}")
        if code in (errno.EACCES, errno.EPERM):
            return PortError(
                f"no permission to open {self.path}; add the user to the group dialout "
                "(sudo usermod -aG dialout $USER) and log in again"
            )
        if isinstance(error, ValueError):
            return PortError(f"{self.path} cannot run at {self.baud} baud; choose a standard rate")
        return PortError(f"cannot open {self.path} as a serial port at {self.baud} baud: {error}")


def _lasting(port: PortInfo) -> str | None:
    """Return the name of a port that survives a replug."""
    return port.by_id or port.by_path


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
