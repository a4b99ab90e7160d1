"""Ports of other machines: plain bytes over TCP, or a serial port server that speaks RFC 2217."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from urllib.parse import urlsplit

import serial

from firmware_bridge.errors import FormatError, PortError, PortNotFoundError

_log = logging.getLogger(__name__)

_CONNECT_S = 3.0
# RestrictAddressFamilies= of systemd; IPAddressDeny=, or a firewall.
_FORBIDDEN = (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES)
_READ_BYTES = 4096


class SocketPort:
    """A TCP connection, as ``socket://host:port``; the other end has set up the line.

    Raises:
        FormatError: no host or no port in the URL.
    """

    SCHEME = "socket://"

    def __init__(self, path: str) -> None:
        self.path = path
        self._address = _address(path)
        self._socket: socket.socket | None = None

    @property
    def is_present(self) -> bool:
        """Return True: only trying tells."""
        return True

    @property
    def paced_baud(self) -> int | None:
        """None: the line's speed is not known here."""
        return None

    def open(self) -> None:
        """Connect.

        Raises:
            PortNotFoundError: nobody answers there now.
        """
        try:
            connection = socket.create_connection(self._address, _CONNECT_S)
        except OSError as error:
            raise _unreachable(self.path, error) from error
        connection.settimeout(0.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = connection

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            PortError: the port is not open.
        """
        if self._socket is None:
            raise PortError(f"{self.path} is not open")
        return self._socket.fileno()

    def close(self) -> None:
        """Disconnect; a second time does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Rfc2217Port:
    """A port of a serial server, as ``rfc2217://host:port``; speed and stop bits are set there.

    pyserial speaks the protocol and has no descriptor to poll, so two threads carry the bytes
    between it and a pair of sockets.

    Raises:
        FormatError: no host or no port in the URL.
    """

    SCHEME = "rfc2217://"

    def __init__(self, path: str, baud: int = 115200, stop_bits: float = 1) -> None:
        _address(path)
        self.path = path
        self.baud = baud
        self._stop_bits = stop_bits
        self._serial: serial.SerialBase | None = None
        self._near: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    @property
    def is_present(self) -> bool:
        """Return True: only trying tells."""
        return True

    @property
    def paced_baud(self) -> int | None:
        """The baud rate of the port over there."""
        return self.baud

    def open(self) -> None:
        """Connect, and set up the port over there.

        Raises:
            PortNotFoundError: nobody answers there now, or not in this protocol.
        """
        remote = serial.serial_for_url(
            self.path, self.baud, timeout=0.1, stopbits=self._stop_bits, do_not_open=True
        )
        try:
            remote.open()
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):  # pyserial leaves its half of the connection open
                remote.close()
            raise _unreachable(self.path, error) from error
        self._serial = remote
        self._near, far = socket.socketpair()
        self._near.settimeout(0.0)
        self._threads = [
            threading.Thread(target=_carry_in, args=(remote, far), daemon=True),
            threading.Thread(target=_carry_out, args=(far, remote), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        """Return a descriptor that stands for the port.

        Raises:
            PortError: the port is not open.
        """
        if self._near is None:
            raise PortError(f"{self.path} is not open")
        return self._near.fileno()

    def close(self) -> None:
        """Disconnect; a second time does nothing."""
        if self._near is None or self._serial is None:
            return
        self._near.close()
        self._near = None
        with contextlib.suppress(OSError):
            self._serial.close()
        for thread in self._threads:
            thread.join()


def _carry_in(remote: serial.SerialBase, far: socket.socket) -> None:
    """Carry bytes to the host until either end is gone."""
    try:
        while remote.is_open:
            chunk = remote.read(1)
            if chunk:
                far.sendall(chunk + remote.read(min(remote.in_waiting, _READ_BYTES)))
    except (OSError, TypeError, AttributeError) as error:  # pyserial's words for a closed port
        _log.debug("rfc2217: %s", error)
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)


def _carry_out(far: socket.socket, remote: serial.SerialBase) -> None:
    """Carry bytes to the port until either end is gone."""
    try:
        while chunk := far.recv(_READ_BYTES):
            remote.write(chunk)
    except (OSError, TypeError, AttributeError) as error:
        _log.debug("rfc2217: %s", error)
    far.close()


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise FormatError(f"expected a URL such as socket://192.168.1.7:4000, got {url!r}")
    return host, port


def _unreachable(path: str, error: Exception) -> PortNotFoundError:
    """Tell apart a server that does not answer and a process that may not ask."""
    cause = error if getattr(error, "errno", None) else error.__context__ or error
    code = getattr(cause, "errno", None)
    if isinstance(cause, socket.gaierror) or not code:
        reason = getattr(cause, "strerror", None) or str(cause)
    else:
        reason = os.strerror(code)
    if code in _FORBIDDEN or (isinstance(cause, socket.gaierror) and not _has_internet_sockets()):
        return PortNotFoundError(
            f"this process may not reach {path} ({reason}); for edge-gru.service, "
            "/usr/share/edge-gru/network.conf says how it is opened to the network"
        )
    return PortNotFoundError(f"nobody answers at {path} ({reason}); is the server running?")


def _has_internet_sockets() -> bool:
    """Whether this process may make one: where it may not, names do not resolve either."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
