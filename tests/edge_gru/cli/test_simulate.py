from __future__ import annotations

import json
import signal

import pytest

from firmware_bridge.link import Link
from firmware_bridge.sample import SampleBlock


def receive_samples(link: Link, n: int) -> list[list[float]]:
    rows: list[list[float]] = []
    for _ in range(1000):
        item = link.receive(0.1)
        if isinstance(item, SampleBlock):
            rows += item.values.tolist()
        if len(rows) >= n:
            return rows
    pytest.fail(f"only {len(rows)} samples came")


def test_pump_is_simulated_until_a_signal(live, tmp_path):
    simulated = live(
        "simulate", "--pump", "--rate", "500", "--link", tmp_path / "pump", "--duration", "100"
    )
    port = simulated.process.stdout.readline().strip()
    assert port == str(tmp_path / "pump")
    with Link(port) as link:
        rows = receive_samples(link, 50)
    assert len(rows[0]) == 6
    simulated.process.send_signal(signal.SIGTERM)
    _, errors = simulated.process.communicate(timeout=30)
    assert simulated.process.returncode == 0
    assert errors.startswith("sent ")
    assert not (tmp_path / "pump").exists()


@pytest.mark.parametrize("wire", ["framed", "csv"])
def test_recording_is_replayed_and_ends(live, tmp_path, wire):
    file = tmp_path / "recording.csv"
    file.write_text("a [V],b\n" + "".join(f"{k},{-k}\n" for k in range(40)))
    simulated = live("simulate", file, "--rate", "400", "--format", wire)
    port = simulated.process.stdout.readline().strip()
    with Link(port, format=wire) as link:
        rows = receive_samples(link, 40)
        _, errors = simulated.process.communicate(timeout=30)
    assert rows == [[k, -k] for k in range(40)]
    assert simulated.process.returncode == 0
    assert "sent 40 samples" in errors


def test_loop_begins_again(live, tmp_path):
    file = tmp_path / "recording.csv"
    file.write_text("1\n2\n3\n")
    simulated = live("simulate", file, "--rate", "400", "--loop", "--json")
    text = "".join(iter(simulated.process.stdout.readline, "}\n")) + "}"
    report = json.loads(text)
    assert report["rate_hz"] == 400
    with Link(report["port"]) as link:
        rows = receive_samples(link, 7)
    assert [row[0] for row in rows[:7]] == [1, 2, 3, 1, 2, 3, 1]
    simulated.end(signal.SIGINT)
    assert simulated.process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected either --pump or a CSV file"),
        (["--pump", "x.csv"], "expected either --pump or a CSV file"),
        (["absent.csv"], "cannot read absent.csv: No such file"),
        (["--pump", "--rate", "-1"], "rate_hz"),
        (["--pump", "--duration", "0"], "duration_s"),
        (["--pump", "--format", "morse"], "morse"),
    ],
)
def test_wrong_arguments(call, arguments, sentence):
    result = call("simulate", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_file_that_is_no_recording(call, tmp_path):
    file = tmp_path / "recording.csv"
    file.write_text("a,b\n1,2\n1,2,3\n")
    result = call("simulate", file)
    assert result.exit_code == 2
    assert "line 3" in result.stderr


def test_faults_are_listed_and_strike(live, call, tmp_path):
    listed = call("simulate", "--faults")
    assert listed.exit_code == 0
    assert "unplug" in listed.stdout
    file = tmp_path / "recording.csv"
    file.write_text("".join(f"{k}\n" for k in range(400)))
    simulated = live("simulate", file, "--rate", "400", "--fault", "lost=50@0.1")
    port = simulated.process.stdout.readline().strip()
    with Link(port) as link:
        rows = receive_samples(link, 300)
        assert link.statistics.lost_samples == 50
    assert [row[0] for row in rows[:2]] == [0, 1]
    assert rows[299][0] == 349


def test_a_fault_there_is_not(call):
    result = call("simulate", "--pump", "--fault", "gremlins")
    assert result.exit_code == 2
    assert "expected one of the faults" in result.stderr
