from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from edge_gru.cli import run as run_module  # noqa: F401 - imported before processes are started
from firmware_bridge.sample import Schema
from firmware_bridge.simulator import ReplaySource, SimulatedBoard

from edge_gru.bundle import load  # isort: skip


def offline(path, samples: np.ndarray) -> np.ndarray:
    with load(path).open() as engine:  # as the run does: the same bits
        return np.stack([engine.step(row) for row in samples])


def outputs(predictions: list[dict]) -> np.ndarray:
    return np.array([list(event["y"].values()) for event in predictions], np.float32)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_everything_that_was_read_is_predicted_when_a_signal_ends_the_run(
    live, board, bundle_path, recording, signal_number
):
    with board:
        running = live("run", bundle_path, "--port", board.port, "--json")
        running.read_sample(20)
        errors = running.end(signal_number)
    assert running.process.returncode == 0
    summary = json.loads(errors.splitlines()[-1])
    predictions = running.predictions
    n = len(predictions)
    assert n > 20
    assert [event["sample_seq"] for event in predictions] == list(range(n))
    assert summary["n_samples"] == summary["n_predictions"] == summary["link"]["samples"] == n
    assert summary["lost_samples"] == summary["overrun_samples"] == summary["frames_bad"] == 0
    np.testing.assert_array_equal(
        outputs(predictions), offline(bundle_path, np.resize(recording, (n, 2)))
    )
    assert running.events[-1]["kind"] == "health"
    assert running.events[-1]["final"]


@pytest.mark.parametrize("wire", ["framed", "csv"])
def test_every_sample_that_the_board_sent_is_predicted_as_offline(
    live, schema, bundle_path, recording, wire
):
    with SimulatedBoard(ReplaySource(recording, schema), format=wire) as board:
        running = live("run", bundle_path, "--port", board.port, "--format", wire)
        running.read_sample(len(recording) - 1)
        running.end(signal.SIGTERM)
        assert len(running.predictions) == board.n_sent == len(recording)
    np.testing.assert_array_equal(outputs(running.predictions), offline(bundle_path, recording))
    assert all(0 < event["latency_us"] < 1e6 for event in running.predictions)


def test_second_signal_ends_the_run_at_once(live, schema, recording, bundle_path):
    with SimulatedBoard(ReplaySource(recording, schema)) as board:
        running = live("run", bundle_path, "--port", board.port)
        running.read_sample(0)
        # Nobody reads stdout from here on: the end waits for a reader, unless told again.
        assert board.wait(30)
        running.process.send_signal(signal.SIGTERM)
        running.read_stderr_until("reading has ended")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(4) == -signal.SIGTERM


def test_reader_that_leaves_ends_the_run(live, board, bundle_path):
    with board:
        running = live("run", bundle_path, "--port", board.port)
        running.read_sample(0)
        running.process.stdout.close()
        assert running.process.wait(30) == 0
        assert "Traceback" not in running.process.stderr.read()
        running.process.stdout = None


def test_predictions_go_to_a_file_and_stdout_stays_empty(live, board, bundle_path, tmp_path):
    output = tmp_path / "out.jsonl"
    config = tmp_path / "run.toml"
    config.write_text(
        f'bundle = "{bundle_path.name}"\nport = "{board.port}"\noutputs = ["{output.name}"]\n'
        "flush_s = 0.0\n"
    )
    with board:
        running = live("run", config)
        watch(output, lambda content: content.count(b"\n") > 20)
        running.end(signal.SIGTERM)
    assert running.events == []
    kinds = [json.loads(line)["kind"] for line in output.read_text().splitlines()]
    assert kinds[:3] == ["model", "link", "prediction"]
    assert kinds[-1] == "health"


def watch(path, is_wanted) -> None:
    """Wait until the content of a file is wanted."""
    tick = threading.Event()
    for _ in range(3000):
        if path.exists() and is_wanted(path.read_bytes()):
            return
        tick.wait(0.01)
    pytest.fail(f"{path} never got there")


def test_full_disk_is_warned_of_and_predicting_goes_on(live, board, bundle_path):
    with board:
        running = live("run", bundle_path, "--port", board.port, "-o", "/dev/full", "-o", "-")
        running.read_sample(100)
        errors = running.end(signal.SIGTERM)
    assert running.process.returncode == 1
    assert errors.count("cannot write to /dev/full: No space left on device") == 1
    n_events = len(running.events)
    assert f"{n_events} events not written" in errors


def test_summary_is_the_last_line_where_events_were_not_written_too(live, board, bundle_path):
    with board:
        running = live("run", bundle_path, "--port", board.port, "-o", "/dev/full", "--json")
        running.read_stderr_until("cannot write to /dev/full")
        errors = running.end(signal.SIGTERM)
    *_, sentence, summary = errors.splitlines()
    n_dropped = json.loads(summary)["dropped_events"]
    assert n_dropped > 0
    assert sentence.startswith(f"edge-gru: {n_dropped} events could not be written to /dev/full;")


def test_file_of_a_killed_run_is_continued_in_whole_lines(live, board, bundle_path, tmp_path):
    output = tmp_path / "out.jsonl"
    arguments = ("run", bundle_path, "--port", board.port, "-o", output, "--flush", "0")
    with board:
        killed = live(*arguments)
        watch(output, lambda content: content.count(b"\n") > 20)
        killed.process.kill()
        killed.process.wait(10)
        whole = output.read_bytes()
        output.write_bytes(whole[:-100])  # as a power cut leaves it
        n_lines = whole.count(b"\n") - 1
        following = live(*arguments)
        watch(output, lambda content: content.count(b"\n") > n_lines + 20)
        errors = following.end(signal.SIGTERM)
    assert "ended in a torn line" in errors
    events = [json.loads(line) for line in output.read_text().splitlines()]
    runs = [event["run"] for event in events]
    assert len(set(runs)) == 2
    assert runs.count(runs[0]) == n_lines


def test_service_manager_is_told_when_the_engine_is_proven(live, board, bundle_path, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(str(tmp_path / "notify"))
        address = str(tmp_path / "notify")
        running = live(
            "run", bundle_path, "--port", board.port, "--wait-for-port", NOTIFY_SOCKET=address
        )
        states = [manager.recv(1000).decode() for _ in range(3)]
        assert states[0] == "READY=1"
        assert states[1].startswith(f"STATUS=waiting for {board.port}")
        assert states[2] == "WATCHDOG=1"
        running.end(signal.SIGTERM)


def test_port_that_comes_later_is_waited_for(live, board, bundle_path):
    running = live("run", bundle_path, "--port", board.port, "--wait-for-port")
    running.read_until(lambda event: event["kind"] == "link")
    assert not running.events[-1]["up"]
    with board:
        running.read_sample(10)
        errors = running.end(signal.SIGTERM)
    assert running.process.returncode == 0
    assert "waiting for" in errors


def test_restart_of_the_board_is_an_event_and_clears_the_state(live, board, bundle_path):
    with board:
        running = live("run", bundle_path, "--port", board.port)
        running.read_sample(20)
        board.restart()
        running.read_until(lambda event: event["kind"] == "epoch")
        running.read_until(lambda event: event["kind"] == "prediction")
        running.end(signal.SIGTERM)
    after = running.events[[e["kind"] for e in running.events].index("epoch") + 1]
    assert (after["n_steps"], after["warming_up"]) == (1, True)


def one_sentence(result) -> str:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("edge-gru: error: ")
    return sentence


def test_no_such_port(call, bundle_path):
    sentence = one_sentence(call("run", bundle_path, "--port", "/dev/ttyNOPE7"))
    assert "no such port: /dev/ttyNOPE7" in sentence


def test_port_in_use_names_who_has_it(live, call, board, bundle_path):
    with board:
        running = live("run", bundle_path, "--port", board.port)
        running.read_sample(0)
        sentence = one_sentence(call("run", bundle_path, "--port", board.port))
        running.end(signal.SIGTERM)
    assert "in use" in sentence
    assert str(running.process.pid) in sentence


@pytest.mark.parametrize("wire", ["framed", "csv"])
def test_board_with_other_channels(call, bundle_path, recording, wire):
    other = ReplaySource(recording, Schema.of(["vibration", "pressure"], rate_hz=200.0))
    with SimulatedBoard(other, format=wire) as board:
        result = call("run", bundle_path, "--port", board.port, "--format", wire, "-o", "/dev/null")
    sentence = one_sentence(result)
    assert "pressure" in sentence
    assert "current" in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "abacus"], "expected an engine of auto, reference, native, onnxruntime"),
        (["--precision", "int3"], "int3"),
        (["--format", "morse"], "morse"),
        (["--baud", "0"], "baud: expected `int` >= 1"),
        (["--rate", "0"], "rate_hz: expected `float` > 0.0"),
        (["--max-gap", "-1"], "max_gap_s: expected `float` > 0.0"),
        (["-o", "/nowhere/o.jsonl"], "cannot write events to /nowhere/o.jsonl"),
    ],
)
def test_wrong_option(call, bundle_path, board, options, sentence):
    with board:
        result = call("run", bundle_path, "--port", board.port, *options)
    assert sentence in one_sentence(result)


def test_a_format_there_is_not_is_refused_for_a_recording_too(call, bundle_path):
    result = call("run", bundle_path, "--port", "x.mcap", "--format", "morse")
    assert "expected one of the formats framed, csv" in one_sentence(result)


def test_port_is_asked_for(call, bundle_path):
    assert "give --port /dev/ttyACM0" in one_sentence(call("run", bundle_path))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('prt = "x"', "unknown key 'prt'; did you mean 'port'?"),
        ("port = 5", "port: expected `str`, got `int`"),
        ("port =", "expected TOML"),
    ],
)
def test_wrong_config_file(call, tmp_path, content, sentence):
    file = tmp_path / "run.toml"
    file.write_text(f'bundle = "x.egb"\n{content}\n')
    found = one_sentence(call("run", file))
    assert sentence in found
    assert str(file) in found


def test_absent_config_file(call, tmp_path):
    assert "No such file" in one_sentence(call("run", tmp_path / "absent.toml"))


def test_truncated_bundle(call, bundle_path):
    bundle_path.write_bytes(bundle_path.read_bytes()[:1000])
    assert "truncated" in one_sentence(call("run", bundle_path, "--port", "/dev/null"))


def test_bundle_is_known_by_its_content(call, bundle_path, tmp_path):
    renamed = bundle_path.rename(tmp_path / "model")
    assert call("run", renamed, "--port", "p", "--check").exit_code == 0


def test_check_prints_the_settings_with_options_before_the_file(call, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('bundle = "x.egb"\nport = "a"\nbaud = 9600\nalerts = true\n')
    result = call("run", file, "--port", "b", "--no-alerts", "--check")
    settings = json.loads(result.stdout)
    found = (settings["port"], settings["baud"], settings["alerts"], settings["bundle"])
    assert found == ("b", 9600, False, str(tmp_path / "x.egb"))


def test_closed_stdout_is_refused(bundle_path):
    code = "from edge_gru.cli import main; main()"
    shell = f'exec "{sys.executable}" -c "{code}" run "{bundle_path}" --port /dev/null >&-'
    result = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert re.search("expected an open stdout", result.stderr)
