"""Recordings by the command line: what was predicted live is predicted again, bit by bit."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from click.testing import CliRunner

from edge_gru.cli import main
from firmware_bridge.link import Link
from firmware_bridge.recording import Recording, read_samples
from firmware_bridge.sample import SampleBlock, Schema
from firmware_bridge.simulator import Fault, ReplaySource, SimulatedBoard

pytest.importorskip("mcap", reason="edge-gru[record] is not installed")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of a second of a board, with a gap in it."""
    folder = tmp_path_factory.mktemp("recorded")
    path = folder / "live.mcap"
    rows = np.random.default_rng(1).normal(size=(400, 2)).astype(np.float32)
    source = ReplaySource(rows, Schema.of([("vibration", "g"), ("current", "A")], 200.0), loop=True)
    with SimulatedBoard(source, faults=[Fault.parse("lost=5@0.3")]) as board:
        arguments = ["record", "--port", board.port, "-o", str(path), "--duration", "1.2", "--json"]
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["dropped"] == 0
    assert summary["lost_samples"] == 5
    assert summary["samples"] > 100
    return path


def predictions(events):
    return [(e["sample_seq"], e["y"], e["n_steps"]) for e in events if e["kind"] == "prediction"]


def test_a_recording_is_predicted_from_as_its_samples_are(live, recorded, bundle_path):
    runs = []
    for _ in range(2):
        running = live("run", bundle_path, "--port", recorded)
        runs.append(predictions([json.loads(line) for line in running.process.stdout]))
        running.process.wait(30)
        assert running.process.returncode == 0
    samples = read_samples(recorded)
    assert runs[0] == runs[1]
    assert [seq for seq, _, _ in runs[0]] == samples.seq.tolist()
    assert len(runs[0]) == len(samples.seq)


def test_a_recording_is_played_on_a_port(live, recorded, tmp_path):
    playing = live("replay", recorded, "--speed", "3", "--link", tmp_path / "again")
    assert playing.process.stdout.readline().strip() == str(tmp_path / "again")
    table = read_samples(recorded)
    rows = []
    with Link(str(tmp_path / "again")) as link:
        while len(rows) < len(table.seq):
            item = link.receive(10.0)
            assert item is not None
            if isinstance(item, SampleBlock):
                rows += item.values.tolist()
    assert rows == table.values.tolist()
    _, errors = playing.process.communicate(timeout=30)
    assert f"sent {len(rows)} samples" in errors


def test_a_recording_of_lines_is_played_by_the_byte(live, tmp_path, recording, schema):
    path = tmp_path / "csv.mcap"
    source = ReplaySource(recording[:200], schema)
    with SimulatedBoard(source, format="csv", link_path=tmp_path / "printing") as printing:
        recorder = live("record", "--port", printing.port, "--format", "csv", "-o", path)
        assert printing.wait(30)
        recorder.process.send_signal(signal.SIGINT)
        _, errors = recorder.process.communicate(timeout=30)
    table = read_samples(path)
    assert f"{len(table.seq)} samples" in errors
    assert 150 < len(table.seq) <= 200  # the signal may come before the last lines are read
    playing = live("replay", path, "--speed", "5")
    port = playing.process.stdout.readline().strip()
    rows = []
    with Link(port, format="csv") as link:
        while len(rows) < len(table.seq):
            item = link.receive(10.0)
            assert item is not None
            if isinstance(item, SampleBlock):
                rows += item.values.tolist()
    assert rows == table.values.tolist() == recording[: len(rows)].tolist()
    sent = sum(len(chunk.wire) for chunk in Recording(path).chunks())
    assert f"sent {sent} bytes" in playing.process.communicate(timeout=30)[1]


def test_a_recording_becomes_a_table(call, recorded, tmp_path):
    for ending in ("csv", "npz"):
        target = tmp_path / f"table.{ending}"
        result = call("convert", recorded, target)
        assert result.exit_code == 0
        assert read_samples(target).values.tobytes() == read_samples(recorded).values.tobytes()
    result = call("convert", recorded, tmp_path / "table.xls")
    assert result.exit_code == 2
    assert ".csv or .npz" in result.stderr


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf"])
def test_a_speed_that_is_none_is_refused_with_what_is_usual(call, recorded, speed):
    result = call("replay", recorded, "--speed", speed)
    assert result.exit_code == 2
    assert "expected a positive speed" in result.stderr
    assert "1 is the recording's own pace" in result.stderr


def test_what_was_converted_is_told_as_json(call, recorded, tmp_path):
    result = call("convert", recorded, tmp_path / "t.npz", "--json")
    told = json.loads(result.stdout)
    assert told == {
        "file": str(tmp_path / "t.npz"),
        "samples": len(read_samples(recorded).seq),
        "channels": ["vibration", "current"],
        "rate_hz": 200.0,
        "streams": 1,
    }
    assert result.stderr == ""


def test_the_port_of_a_replay_is_told_as_json(live, recorded):
    playing = live("replay", recorded, "--json")
    told = "".join(playing.process.stdout.readline() for _ in range(4))
    assert json.loads(told)["format"] == "framed"
    with Link(json.loads(told)["port"]) as link:
        assert link.receive(10.0) is not None
    playing.process.send_signal(signal.SIGINT)
    playing.process.communicate(timeout=30)


def test_a_file_that_was_cut_says_how_much_was_read(call, recorded, tmp_path):
    cut = tmp_path / "cut.mcap"
    whole = recorded.read_bytes()
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    result = call("convert", cut, tmp_path / "cut.csv")
    assert result.exit_code == 0
    (warning, _) = result.stderr.splitlines()
    assert warning.startswith(f"edge-gru: {cut} is cut short: ")
    assert f" of {len(whole) * 2 // 3}; what came after is lost" in warning
    assert "cut short" not in call("convert", recorded, tmp_path / "whole.csv").stderr


def test_a_recording_is_never_written_over(call, recorded):
    result = call("record", "--port", "/dev/ttyNONE", "-o", recorded)
    assert result.exit_code == 2
    assert "File exists" in result.stderr


def test_wrong_arguments(call, tmp_path):
    recorded = ["record", "--port", "x", "-o"]
    for arguments, sentence in (
        (["replay", tmp_path / "none.mcap"], "cannot read"),
        ([*recorded, tmp_path / "y.mcap", "--duration", "0"], "positive duration"),
        ([*recorded, tmp_path / "y.mcap", "--format", "morse"], "morse"),
        ([*recorded, tmp_path / "y.mcap", "--baud", "0"], "expected a baud rate"),
        ([*recorded, tmp_path / "y.txt"], "expected an output file .mcap"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2
        assert sentence in result.stderr


def test_a_port_that_is_not_there_leaves_no_file_in_the_way(call, tmp_path):
    for _ in range(2):
        result = call("record", "--port", "/dev/ttyNONE", "-o", tmp_path / "y.mcap")
        assert result.exit_code == 2
        assert "no such port" in result.stderr
        assert not (tmp_path / "y.mcap").exists()


def test_latency_of_a_recording_is_that_of_now(live, recorded, bundle_path):
    running = live("run", bundle_path, "--port", recorded)
    events = [json.loads(line) for line in running.process.stdout]
    latencies_us = [e["latency_us"] for e in events if e["kind"] == "prediction"]
    assert min(latencies_us) > 0
    assert sum(latencies_us) / len(latencies_us) < 1e6  # an old recording would be hours away
