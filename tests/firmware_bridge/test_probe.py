"""A port tells by what it sends what it speaks, at what baud rate, and with which channels."""

import os
import threading

import numpy as np
import pytest

from firmware_bridge import FormatError, PortNotFoundError, Schema, SchemaError
from firmware_bridge.port_settings import NamedChannel, PortSettings
from firmware_bridge.probe import probe_port
from firmware_bridge.protocol.board_schema import BoardChannel, BoardSchema
from firmware_bridge.simulator import Fault, ReplaySource, SimulatedBoard
from firmware_bridge.simulator.pseudo_port import PseudoPort

SCHEMA = Schema.of([("vib", "g"), ("temp", "degC")], 200.0)


@pytest.fixture
def source():
    rows = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    return ReplaySource(rows, SCHEMA, loop=True)


@pytest.mark.parametrize("name", ["framed", "csv", "pairs", "jsonl", "teleplot"])
def test_the_format_is_found_with_channels_and_rate(source, name):
    with SimulatedBoard(source, format=name) as board:
        found = probe_port(board.port, listen_s=0.6)
    assert found.format == name
    assert [c.name for c in found.channels] == ["vib", "temp"]
    has_units = name in ("framed", "csv", "teleplot")
    assert [c.unit for c in found.channels] == (["g", "degC"] if has_units else ["", ""])
    assert found.rate_hz == pytest.approx(200, rel=0.4)
    assert found.schema.channels == (SCHEMA.channels if has_units else found.schema.channels)


def test_lines_without_names_are_csv(source):
    with SimulatedBoard(source, format="edge-impulse") as board:
        found = probe_port(board.port, listen_s=0.4)
    assert found.format == "csv"
    assert found.schema.is_unnamed


@pytest.mark.parametrize("name", ["framed", "csv"])
def test_the_baud_rate_is_found(source, name):
    faults = [Fault.parse("baud=57600")]
    with SimulatedBoard(source, format=name, faults=faults) as board:
        found = probe_port(board.port, (115_200, 9600, 57_600, 19_200), listen_s=0.4)
    assert (found.format, found.baud) == (name, 57_600)


def test_the_board_is_left_as_it_was_found(source):
    with SimulatedBoard(source) as board:
        probe_port(board.port, listen_s=0.4)
        for _ in range(400):
            if not board.firmware.is_streaming:
                break
            threading.Event().wait(0.005)
        assert not board.firmware.is_streaming


def test_noise_and_silence_are_nothing_known():
    port = PseudoPort()
    port.plug_in()
    try:
        assert probe_port(port.name, listen_s=0.1) is None
        rng = np.random.default_rng(0)
        noise = threading.Thread(target=lambda: port.write(rng.bytes(4000)))
        noise.start()
        assert probe_port(port.name, listen_s=0.2) is None
        noise.join()
    finally:
        port.pull_out()


def test_real_receivers_are_found():
    pytest.importorskip("pynmea2", reason="edge-gru[nmea] is not installed")
    port = PseudoPort()
    port.plug_in()
    line = b"$GPGLL,5230.000,N,01315.000,E,120000,A,A"
    total = 0
    for byte in line[1:]:
        total ^= byte
    try:
        fd = os.open(port.name, os.O_RDWR | os.O_NOCTTY)
        os.close(fd)
        port.write((line + b"*%02X\r\n" % total) * 20)
        found = probe_port(port.name, listen_s=0.3)
    finally:
        port.pull_out()
    assert found.format == "nmea"
    assert {"GLL.lat", "GLL.lon"} <= {c.name for c in found.channels}


def test_a_port_that_is_not_there_is_said():
    with pytest.raises(PortNotFoundError):
        probe_port("/dev/ttyNONE")


# The file


def test_settings_come_back_from_their_file(tmp_path):
    odd = 'a "quoted" \\ name\t\u00b5'
    settings = PortSettings("/dev/x", "csv", 9600, 99.8, (NamedChannel(odd, "\u00b0C"),))
    path = tmp_path / "port.toml"
    path.write_text(settings.to_toml(), encoding="utf-8")
    assert PortSettings.read(path) == settings
    assert PortSettings.read(path).schema == Schema.of([(odd, "\u00b0C")], 99.8)
    path.write_text(PortSettings("/dev/x", "csv").to_toml())
    assert PortSettings.read(path).schema is None


def test_a_file_is_for_the_port_and_for_its_firmware_alike(tmp_path):
    path = tmp_path / "sensor.toml"
    channels = (NamedChannel("a", "g"), NamedChannel("b"))
    path.write_text(PortSettings("/dev/x", "csv", 9600, 50.0, channels).to_toml())
    board = BoardSchema.from_toml(path.read_bytes())
    assert board == BoardSchema((BoardChannel("a", "g"), BoardChannel("b")), "<f4", (50.0,))
    channel = '{ name = "a", unit = "g", scale = 0.5, min = 0.0 }'
    for rates, rate_hz in (("[9.0]", 9.0), ("[9.0, 8.0]", None), ("{min=1.0, max=9.0}", None)):
        path.write_text(f'device = "d"\ndtype = "<i2"\nrate_hz = {rates}\nchannels = [{channel}]')
        assert BoardSchema.from_toml(path.read_bytes()).channels[0].scale == 0.5
        assert PortSettings.read(path).schema == Schema.of([("a", "g")], rate_hz)
        assert PortSettings.read(path).port == ""


@pytest.mark.parametrize("listen_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_to_listen_that_is_none_is_refused(listen_s):
    with pytest.raises(FormatError, match="positive time to listen"):
        probe_port("/dev/ttyNONE", listen_s=listen_s)


def test_files_that_are_none_are_refused(tmp_path):
    path = tmp_path / "port.toml"
    for text in ("port = 1", "channels = 3", "nonsense", "port='x'\nformat='csv'\nspeed=1"):
        path.write_text(text)
        with pytest.raises(FormatError, match="expected the settings of a port"):
            PortSettings.read(path)
    with pytest.raises(FormatError, match="cannot read"):
        PortSettings.read(tmp_path / "none")
    twice = PortSettings("x", "csv", channels=(NamedChannel("a"), NamedChannel("a")))
    with pytest.raises(SchemaError, match="distinct"):
        twice.schema  # noqa: B018 - reading it is the test
