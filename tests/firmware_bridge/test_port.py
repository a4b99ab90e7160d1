"""Ports open for one process alone, and say clearly why they do not open."""

import errno
import fcntl
import os
import subprocess
import sys
import termios
from types import SimpleNamespace

import pytest

from firmware_bridge import FormatError, PortError, PortInfo, PortNotFoundError, list_ports
from firmware_bridge.port import SerialPort as Port
from firmware_bridge.port import listing as listing_module
from firmware_bridge.port import serial_port as port_module
from firmware_bridge.simulator.pseudo_port import PseudoPort


@pytest.fixture
def pseudo(tmp_path):
    made = PseudoPort(tmp_path / "sensor")
    made.plug_in()
    yield made
    made.pull_out()


@pytest.fixture
def ports():
    """Ports to be closed at the end."""
    opened = []
    yield lambda *args: opened.append(Port(*args)) or opened[-1]
    for port in opened:
        port.close()


def test_opens_raw_by_link_and_carries_every_byte(pseudo, ports):
    port = ports(pseudo.name)
    port.open()
    pseudo.look_for_host()
    assert pseudo.write(bytes(range(256))) == 256
    assert os.read(port.fileno(), 1000) == bytes(range(256))
    os.write(port.fileno(), b"\x03\x11\r\n")
    assert pseudo.read() == b"\x03\x11\r\n"
    assert port.paced_baud is None


def test_what_arrives_while_opening_is_kept(pseudo, ports):
    pseudo.write(b"header\n")
    port = ports(pseudo.name)
    port.open()
    assert os.read(port.fileno(), 100) == b"header\n"


def test_a_second_open_names_the_holder(pseudo, ports):
    ports(pseudo.name).open()
    with pytest.raises(PortError, match=rf"in use by process {os.getpid()} \(.+\); stop that"):
        ports(pseudo.name).open()


def test_the_holder_may_be_another_process(pseudo, ports):
    code = (
        "import sys; from firmware_bridge.port import SerialPort;"
        "port = SerialPort(sys.argv[1]); port.open();"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, pseudo.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(PortError, match=rf"process {other.pid} \(python"):
            ports(pseudo.name).open()
        other.stdin.close()


def test_closing_lets_the_next_one_in(pseudo, ports):
    first = ports(pseudo.name)
    first.open()
    first.close()
    first.close()
    ports(pseudo.name).open()
    with pytest.raises(PortError, match="is not open"):
        first.fileno()


def test_a_missing_port_lists_those_there_are(monkeypatch):
    with pytest.raises(PortNotFoundError, match="no such port: /dev/ttyNONE; "):
        Port("/dev/ttyNONE").open()
    there = [SimpleNamespace(device="/dev/ttyACM0", description="n/a", serial_number="42")]
    monkeypatch.setattr(listing_module.serial_list_ports, "comports", lambda: there)
    with pytest.raises(FileNotFoundError, match="there are: /dev/ttyACM0"):
        Port("/dev/ttyNONE").open()
    (info,) = list_ports()
    assert (info.device, info.description, info.serial_number) == ("/dev/ttyACM0", "", "42")


def test_no_permission_says_dialout(pseudo, ports, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(port_module, "_Serial", refuse)
    with pytest.raises(PortError, match="dialout"):
        ports(pseudo.name).open()


@pytest.mark.parametrize("kind", ["file", "folder", "null"])
def test_what_is_no_serial_port_is_refused(tmp_path, kind, ports):
    path = {"file": tmp_path / "file", "folder": tmp_path, "null": "/dev/null"}[kind]
    if kind == "file":
        path.write_text("")
    with pytest.raises(PortError, match="serial port"):
        ports(str(path)).open()


def test_an_impossible_baud_rate_is_named(pseudo, ports):
    with pytest.raises(PortError, match="-5 baud"):
        ports(pseudo.name, -5).open()


def test_the_mark_that_outlives_a_process_is_not_left_on_a_pty(pseudo, ports):
    port = ports(pseudo.name)
    port.open()
    port.close()
    fd = os.open(pseudo.name, os.O_RDWR | os.O_NOCTTY)
    marked = fcntl.ioctl(fd, 0x80045440, b"\0\0\0\0")  # TIOCGEXCL
    os.close(fd)
    assert marked == b"\0\0\0\0"


def test_any_other_port_is_marked_exclusive(pseudo, ports, monkeypatch):
    monkeypatch.setattr(port_module, "_PSEUDO_TERMINALS", "/nowhere/")
    port = ports(pseudo.name)
    port.open()
    assert fcntl.ioctl(port.fileno(), 0x80045440, b"\0\0\0\0") == b"\1\0\0\0"
    fcntl.ioctl(port.fileno(), termios.TIOCNXCL)


def test_only_uarts_are_paced_by_their_baud_rate():
    assert Port("/dev/ttyUSB0", 9600).paced_baud == 9600
    assert Port("/dev/ttyTHS1", 9600).paced_baud == 9600
    assert Port("/dev/ttyACM0", 9600).paced_baud is None


def test_a_link_by_path_is_listed_with_its_device(tmp_path, monkeypatch):
    device = tmp_path / "ttyUSB7"
    device.write_text("")
    folder = tmp_path / "by-id"
    folder.mkdir()
    (folder / "usb-ACME_42").symlink_to(device)
    assert listing_module._links(str(folder)) == {str(device): str(folder / "usb-ACME_42")}
    assert listing_module._links(str(tmp_path / "none")) == {}


def listed(monkeypatch, *ports):
    """Let the machine have these ports."""
    found = [PortInfo(device, "", by_id, None, number) for device, by_id, number in ports]
    monkeypatch.setattr(port_module, "list_ports", lambda: found)


def test_a_serial_number_leads_to_its_port(pseudo, ports, monkeypatch):
    listed(monkeypatch, ("/dev/ttyUSB9", None, "A1"), (pseudo._device, None, "EDGE0001"))
    port = ports("EDGE0001")
    assert port.is_present
    port.open()
    pseudo.look_for_host()
    pseudo.write(b"here")
    assert os.read(port.fileno(), 10) == b"here"
    assert not ports("EDGE0002").is_present
    with pytest.raises(PortNotFoundError, match="no such port: EDGE0002"):
        ports("EDGE0002").open()


def test_a_serial_number_of_two_ports_is_refused(pseudo, ports, monkeypatch):
    listed(monkeypatch, ("/dev/ttyUSB0", None, "0001"), ("/dev/ttyUSB1", None, "0001"))
    with pytest.raises(PortError, match="ttyUSB0 and /dev/ttyUSB1 have the serial number 0001"):
        ports("0001").open()


def test_a_device_name_is_exchanged_for_the_one_that_lasts(pseudo, ports, monkeypatch):
    listed(monkeypatch, (pseudo._device, pseudo.name, None))
    port = ports(pseudo._device)
    port.open()
    port.close()
    pseudo.pull_out()
    assert not port.is_present
    taken = os.openpty()  # somebody else gets the old device name
    pseudo.plug_in()
    assert port.is_present
    port.open()
    assert os.path.realpath(f"/proc/self/fd/{port.fileno()}") == pseudo._device
    for fd in taken:
        os.close(fd)


@pytest.mark.parametrize("baud", [9600, 74_880, 250_000, 1_843_200])
def test_odd_baud_rates_are_set(pseudo, ports, baud):
    port = ports(pseudo.name, baud)
    port.open()
    assert port.baud == baud


def test_stop_bits_are_set_or_refused(pseudo, ports):
    port = ports(pseudo.name, 115_200, 2)
    port.open()
    assert termios.tcgetattr(port.fileno())[2] & termios.CSTOPB
    with pytest.raises(FormatError, match=r"1, 1\.5 or 2 stop bits, got 3"):
        Port("x", 9600, 3)


def test_a_modem_manager_is_named_with_what_to_do(pseudo, ports, monkeypatch):
    ports(pseudo.name).open()
    monkeypatch.setattr(port_module, "_command", lambda _: "ModemManager")
    with pytest.raises(PortError, match="ID_MM_DEVICE_IGNORE"):
        ports(pseudo.name).open()
