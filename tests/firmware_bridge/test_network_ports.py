"""Boards behind TCP: plain bytes, and a serial port server that speaks RFC 2217."""

import contextlib
import errno
import os
import select
import socket
import threading

import numpy as np
import pytest
import serial
import serial.rfc2217

from firmware_bridge import FormatError, Link, LinkDown, LinkUp, PortNotFoundError
from firmware_bridge.port import SerialPort, new_port
from firmware_bridge.simulator import SimulatedBoard

UNRAISABLE = "pytest.PytestUnraisableExceptionWarning"
pytestmark = [  # what pyserial does: old names for threads, and a socket left to the collector
    pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning"),
    pytest.mark.filterwarnings(f"ignore:Exception ignored.*socket:{UNRAISABLE}"),
]


class PtyLine(serial.Serial):
    """A line without control signals, which a pty does not have."""

    def _update_dtr_state(self):
        pass

    def _update_rts_state(self):
        pass

    cts = dsr = ri = cd = True


class Server:
    """Carries bytes between one TCP client at a time and a board's pty."""

    def __init__(self, port, *, is_rfc2217=False):
        self._port = port
        self._is_rfc2217 = is_rfc2217
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.settings = []

    @property
    def url(self):
        scheme = "rfc2217" if self._is_rfc2217 else "socket"
        return f"{scheme}://127.0.0.1:{self.address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._wake[1].send(b"x")
        self._thread.join()
        self._listener.close()
        for end in self._wake:
            end.close()

    def drop_client(self):
        """Hang up on who is connected."""
        self._wake[1].send(b"d")

    def _serve(self):
        while True:
            ready, _, _ = select.select([self._listener, self._wake[0]], [], [])
            if self._wake[0] in ready and self._wake[0].recv(1) == b"x":
                return
            if self._listener in ready:
                connection, _ = self._listener.accept()
                with connection, PtyLine(self._port, timeout=0) as line:
                    if self._carry(connection, line):
                        return

    def _carry(self, connection, line):
        """Return whether the server is to end."""
        manager = None
        if self._is_rfc2217:
            writer = type("Writer", (), {"write": staticmethod(connection.sendall)})
            manager = serial.rfc2217.PortManager(line, writer)
        with contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([connection, line.fileno(), self._wake[0]], [], [])
                if self._wake[0] in ready:
                    return self._wake[0].recv(1) == b"x"
                if connection in ready:
                    wire = connection.recv(4096)
                    if not wire:
                        return False
                    line.write(b"".join(manager.filter(wire)) if manager else wire)
                    self.settings.append((line.baudrate, line.stopbits))
                if line.fileno() in ready:
                    wire = os.read(line.fileno(), 4096)
                    connection.sendall(b"".join(manager.escape(wire)) if manager else wire)
        return False


@pytest.mark.parametrize("is_rfc2217", [False, True])
def test_a_board_behind_a_server_streams(source, open_link, is_rfc2217):
    with SimulatedBoard(source) as board, Server(board.port, is_rfc2217=is_rfc2217) as server:
        got = open_link(server.url, baud=460_800, stop_bits=2).until_samples(300)
        np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])
        assert [type(e) for e in got.events()] == [LinkUp]
        assert got.link.statistics.frames_bad == 0
        if is_rfc2217:
            assert server.settings[-1] == (460_800, 2)
        got.link.close()


@pytest.mark.parametrize("is_rfc2217", [False, True])
def test_a_connection_that_is_dropped_is_made_again(source, open_link, is_rfc2217):
    with SimulatedBoard(source) as board, Server(board.port, is_rfc2217=is_rfc2217) as server:
        got = open_link(server.url, baud=460_800).until_samples(50)
        server.drop_client()
        got.until_event(LinkDown)
        got.until_event(LinkUp)
        got.until_samples(50)
        got.link.close()


@pytest.mark.parametrize("scheme", ["socket", "rfc2217"])
def test_nobody_there_is_said_and_can_be_waited_for(scheme, open_link):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    url = f"{scheme}://127.0.0.1:{number}"
    with pytest.raises(PortNotFoundError, match="nobody answers at"):
        Link(url).open()
    got = open_link(url, wait_for_port=True)
    assert "nobody answers" in got.until_event(LinkDown).reason
    got.link.close()


def refuse(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# What RestrictAddressFamilies= and IPAddressDeny= of systemd do.
@pytest.mark.parametrize("scheme", ["socket", "rfc2217"])
@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EPERM])
def test_a_process_that_may_not_use_the_network_says_how_it_may(monkeypatch, scheme, number):
    monkeypatch.setattr(socket, "create_connection", refuse(number))
    url = f"{scheme}://127.0.0.1:9"
    with pytest.raises(PortNotFoundError, match=f"may not reach {url} .*network.conf says how"):
        Link(url).open()


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_name_that_nobody_has_and_one_that_may_not_be_asked_for(monkeypatch, is_closed):
    def nobody(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    if is_closed:
        monkeypatch.setattr(socket, "socket", refuse(errno.EAFNOSUPPORT))
    with pytest.raises(PortNotFoundError) as raised:
        new_port("socket://press-4:4000").open()
    assert "(Temporary failure in name resolution)" in str(raised.value)
    assert ("network.conf says how" in str(raised.value)) is is_closed


@pytest.mark.parametrize("url", ["socket://", "socket://host", "rfc2217://:1", "socket://h:x"])
def test_half_a_url_is_refused(url):
    with pytest.raises(FormatError, match="expected a URL such as"):
        new_port(url)


def test_other_names_are_serial_ports():
    assert isinstance(new_port("/dev/ttyACM0"), SerialPort)
