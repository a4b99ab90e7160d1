"""What a port speaks, found out by the command line, and used by it."""

from __future__ import annotations

import json

import pytest

from firmware_bridge.port_settings import PortSettings
from firmware_bridge.recording import read_samples
from firmware_bridge.simulator import ReplaySource, SimulatedBoard


@pytest.fixture
def printing(recording, schema, tmp_path):
    """A board that prints, for ever."""
    source = ReplaySource(recording, schema, loop=True)
    with SimulatedBoard(source, format="csv", link_path=tmp_path / "printing") as board:
        yield board


def test_a_port_is_described_in_a_file(call, printing, tmp_path):
    file = tmp_path / "sensor.toml"
    result = call("ports", "--probe", printing.port, "--listen", "0.5", "-o", file, "--json")
    assert result.exit_code == 0
    (found,) = json.loads(result.stdout)
    assert (found["port"], found["format"]) == (printing.port, "csv")
    assert found["channels"][0] == {"name": "vibration", "unit": "g"}
    assert PortSettings.read(file).rate_hz == pytest.approx(found["rate_hz"], rel=1e-4)
    again = call("ports", "--probe", printing.port, "--listen", "0.4", "-o", file)
    assert again.exit_code == 2
    assert "exists" in again.stderr
    assert "csv" in again.stdout


def test_a_described_port_is_recorded(call, printing, tmp_path):
    pytest.importorskip("mcap", reason="edge-gru[record] is not installed")
    file, target = tmp_path / "sensor.toml", tmp_path / "out.mcap"
    file.write_text(f'port = "{printing.port}"\nformat = "csv"\n')
    result = call("record", file, "-o", target, "--duration", "0.5")
    assert result.exit_code == 0
    assert read_samples(target).schema.names == ("vibration", "current")
    result = call("record", "-o", tmp_path / "other.mcap")
    assert result.exit_code == 2
    assert "expected --port" in result.stderr


def test_nothing_known_is_exit_code_1(call):
    result = call("ports", "--probe", "/dev/ttyNONE")
    assert result.exit_code == 1
    assert "edge-gru: no such port" in result.stderr
    assert all(line.startswith("edge-gru: ") for line in result.stderr.splitlines())


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--baud=0", "expected a baud rate from 1"),
        ("--baud=-9600", "expected a baud rate from 1"),
        ("--listen=0", "expected a positive time to listen"),
        ("--listen=nan", "expected a positive time to listen"),
    ],
)
def test_impossible_numbers_are_refused(call, option, sentence):
    result = call("ports", "--probe", "/dev/ttyNONE", option)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_probed_port_and_a_firmware_share_a_form_of_file(call, printing, tmp_path):
    pytest.importorskip("mcap", reason="edge-gru[record] is not installed")
    file = tmp_path / "sensor.toml"
    assert call("ports", "--probe", printing.port, "--listen", "0.5", "-o", file).exit_code == 0
    made = call("firmware", file, tmp_path / "board", "--example", "none")
    assert made.exit_code == 0
    assert "EDGE_LINK_CHANNEL_VIBRATION" in (tmp_path / "board" / "schema.h").read_text()
    file.write_text('dtype = "<i2"\nchannels = [{ name = "vibration", scale = 0.5 }]\n')
    refused = call("record", file, "-o", tmp_path / "x.mcap")
    assert refused.exit_code == 2
    assert "expected a port in" in refused.stderr
    options = ("--port", printing.port, "--format", "csv", "--duration", "0.5")
    told = call("record", file, "-o", tmp_path / "x.mcap", *options)
    assert told.exit_code == 2
    assert "vibration" in told.stderr  # one channel, and two came


def test_an_output_without_a_probe_is_refused(call, tmp_path):
    result = call("ports", "-o", tmp_path / "x.toml")
    assert result.exit_code == 2
    assert "expected --probe" in result.stderr
