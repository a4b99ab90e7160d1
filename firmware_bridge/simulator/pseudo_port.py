"""The board's end of a pseudo terminal: plugged in and out, read and written without blocking."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import sys
import termios
import tty
from collections.abc import Mapping
from pathlib import Path

from firmware_bridge.errors import PortError

_LOOK_FOR_HOST_S = 0.005
_BAUDS = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)


class PseudoPort:
    """A pty whose name can be a link, as udev makes for real boards. Starts unplugged."""

    def __init__(self, link_path: Path | None = None) -> None:
        self._link_path = link_path
        self._device = ""
        self._master = -1
        self._has_host = False

    @property
    def name(self) -> str:
        """What to open: the link if there is one, else the pty."""
        return self._device if self._link_path is None else str(self._link_path)

    @property
    def is_plugged(self) -> bool:
        """Whether there is anything to open."""
        return self._master >= 0

    @property
    def has_host(self) -> bool:
        """Whether somebody had it open at the last `look_for_host`."""
        return self._has_host

    def plug_in(self) -> None:
        """Make the pty, and the link to it.

        Raises:
            PortError: the link cannot be made, or its name is taken by something else.
        """
        self._master, slave = os.openpty()
        tty.setraw(slave)  # before any byte: what is queued in line mode is lost
        self._device = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        if self._link_path is not None:
            try:
                self._point(self._link_path)
            except PortError:
                self.pull_out()
                raise

    def _point(self, link: Path) -> None:
        if link.is_symlink() and link.exists():
            raise PortError(
                f"{link} leads to {link.readlink()}, another simulated board's or a real one's; "
                "give this one another path, or remove the link if nothing uses it"
            )
        if link.exists():
            raise PortError(f"{link} exists and is no link; give the simulated port another path")
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(self._device)
        except OSError as error:
            raise PortError(
                f"cannot make the link {link}: {error.strerror}; choose a folder that you may "
                "write to"
            ) from error

    def pull_out(self) -> None:
        """Close it: who has it open sees it hang up, unread bytes are gone."""
        if not self.is_plugged:
            return
        os.close(self._master)
        self._master, self._has_host = -1, False
        link = self._link_path
        if link is not None and link.is_symlink() and str(link.readlink()) == self._device:
            link.unlink()

    def sleep(self, wake_fd: int, timeout_s: float, *, is_writing: bool) -> None:
        """Wait for a byte from the host or from ``wake_fd``, or for room to write."""
        if not self.is_plugged:
            _wait({wake_fd: select.POLLIN}, timeout_s)
        elif not self._has_host:
            # A pty that nobody has open polls as hung up and would never let anyone sleep.
            _wait({wake_fd: select.POLLIN}, _LOOK_FOR_HOST_S)
        else:
            of_master = select.POLLIN | (select.POLLOUT if is_writing else 0)
            _wait({wake_fd: select.POLLIN, self._master: of_master}, timeout_s)

    def look_for_host(self) -> bool:
        """Return whether somebody has opened the port since the last call."""
        had_host = self._has_host
        poll = select.poll()
        poll.register(self._master, 0)
        self._has_host = not any(event & select.POLLHUP for _, event in poll.poll(0))
        if had_host and not self._has_host:
            # What nobody read is not for the next one to open the port.
            termios.tcflush(self._master, termios.TCOFLUSH)
        return self._has_host and not had_host

    def read(self) -> bytes:
        """Return what the host wrote; empty if nothing, or if it has just left."""
        with contextlib.suppress(OSError):
            return os.read(self._master, 4096)
        return b""

    @property
    def baud(self) -> int:
        """What the host has set the line to; 0 for a rate without a constant of its own."""
        speed = termios.tcgetattr(self._master)[4]
        return next((baud for baud in _BAUDS if getattr(termios, f"B{baud}") == speed), 0)

    @property
    def n_unread_bytes(self) -> int:
        """Bytes that the line took and the host has not read; more may be on their way to it."""
        fd = os.open(self._device, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        finally:
            os.close(fd)

    def write(self, outgoing: bytes | bytearray) -> int:
        """Return how many bytes the line took."""
        with contextlib.suppress(OSError):
            return os.write(self._master, outgoing)
        return 0


def _wait(events: Mapping[int, int], timeout_s: float) -> None:
    """Wait for one of these; unlike select, for descriptors of any number."""
    poll = select.poll()
    for descriptor, wanted in events.items():
        poll.register(descriptor, wanted)
    poll.poll(math.ceil(timeout_s * 1e3))
