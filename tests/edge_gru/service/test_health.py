from __future__ import annotations

import json
import os
import stat

import pytest

from edge_gru import status
from edge_gru.errors import ConfigError
from edge_gru.service.events import AlertEvent, LinkEvent, ModelEvent
from edge_gru.service.health import HealthFile, read_health
from edge_gru.service.models import BundleStatus
from edge_gru.service.stamp import Stamp
from edge_gru.service.statistics import Latency, Summary

STAMP = Stamp("press", "main", lambda: 0.0)
BUNDLE = BundleStatus("tiny-2-0", 2, trial_s=60, served_s=5, starts_left=4)


def summary(n: int) -> Summary:
    nothing = dict.fromkeys(Summary.__struct_fields__, 0)
    latency = Latency(1, 2, 3, 4)
    changes = {"model": "tiny", "engine": "native-int8", "n_samples": n, "n_predictions": n}
    return Summary(
        **{
            **nothing,
            "saturated": {},
            "outside": {},
            "stuck": (),
            "link": {},
            "latency": latency,
            **changes,
        }
    )


def link(*, up: bool, reason: str = "") -> LinkEvent:
    return LinkEvent(**STAMP.at(0.0), up=up, port="/dev/x", reason=reason)


def alert(name: str, *, active: bool) -> AlertEvent:
    values = {"on": "y0", "value": 1.0, "threshold": 0.5, "sample_seq": 1}
    return AlertEvent(**STAMP.at(0.0), name=name, active=active, **values)


MODEL = ModelEvent(
    **STAMP.at(0.0), model="tiny", model_hash="a" * 64, engine="native-int8", outputs=("y",),
    labels=(), n_warmup=3, golden_step_error=0.0, golden_sqnr_db=None,
)  # fmt: skip


class Clock:
    """Runs on by what it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(tmp_path, clock) -> HealthFile:
    made = HealthFile(tmp_path / "health.json", device="press", stream="main", clock=clock)
    made.write(MODEL)
    made.write(link(up=True))
    return made


def tick(health: HealthFile, clock: Clock, n: int, seconds: float = 1.0) -> None:
    clock.now_s += seconds
    health.look(clock(), summary(n), BUNDLE)


def read(tmp_path):
    return read_health(tmp_path / "health.json")


def report(tmp_path, clock):
    return status.look(tmp_path / "health.json", tmp_path / "bundles", clock=clock)


def test_file_says_what_is_predicted_and_how_fast(health, clock, tmp_path):
    for second in range(30):
        tick(health, clock, second * 100)
    found = read(tmp_path)
    assert (found.state, found.rate_hz, found.port) == ("predicting", 100.0, "/dev/x")
    assert (found.model_hash, found.bundle, found.pid) == ("a" * 64, BUNDLE, os.getpid())
    assert found.uptime_s == 30


def test_file_is_for_everybody_to_read_and_nothing_lies_beside_it(health, clock, tmp_path):
    before = os.umask(0o077)
    try:
        tick(health, clock, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "health.json").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["health.json"]


def test_alerts_come_and_go_and_end_with_their_model(health, clock, tmp_path):
    health.write(alert("hot", active=True))
    health.write(alert("loud", active=True))
    health.write(alert("hot", active=False))
    tick(health, clock, 1)
    assert read(tmp_path).alerts == ("loud",)
    health.write(MODEL)
    tick(health, clock, 2)
    assert read(tmp_path).alerts == ()


def test_file_that_cannot_be_written_is_warned_of_once(clock, tmp_path, caplog):
    health = HealthFile(tmp_path / "absent" / "h.json", device="d", stream="s", clock=clock)
    tick(health, clock, 1)
    tick(health, clock, 2)
    assert caplog.text.count("predicting goes on") == 1


def test_status_of_a_service_that_predicts(health, clock, tmp_path):
    tick(health, clock, 100)
    tick(health, clock, 200)
    found = report(tmp_path, clock)
    assert (found.exit_code, found.problem) == (0, "")
    lines = status.lines(found)
    assert lines[0] == "service   predicting"
    assert "engine    native-int8" in lines
    assert "bundle    version 2 (tiny-2-0)" in lines  # the store is not for everybody to read
    assert "trial     5 of 60 s served well, 4 starts left" in lines
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("change", "code", "problem"),
    [
        (lambda h, _: h.write(link(up=False, reason="no such port")), 1, "waits for its port: no"),
        (lambda h, c: tick(h, c, 200, 60.0), 1, "no samples come from /dev/x"),
        (lambda h, _: h.close(), 3, "not running: it was stopped"),
    ],
)
def test_status_tells_why_nothing_is_predicted(health, clock, tmp_path, change, code, problem):
    tick(health, clock, 100)
    tick(health, clock, 200)
    change(health, clock)
    if code == 1:
        tick(health, clock, 200, 11.0)
    found = report(tmp_path, clock)
    assert found.problem.startswith(problem)
    assert found.exit_code == code


def test_status_of_a_service_that_hangs(health, clock, tmp_path):
    tick(health, clock, 100)
    clock.now_s += 31
    found = report(tmp_path, clock)
    assert (found.exit_code, found.problem) == (3, "hangs: no sign of life for 31 s")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("boot", "another", "not running since the last boot"),
        ("pid", 2**22 + 1, "not running: it died 0 s ago"),
    ],
)
def test_status_of_a_service_that_died(health, clock, tmp_path, field, value, problem):
    tick(health, clock, 100)
    path = tmp_path / "health.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    found = report(tmp_path, clock)
    assert (found.exit_code, found.problem) == (3, problem)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"format": 9}'])
def test_file_of_something_else_is_told(tmp_path, clock, content):
    path = tmp_path / "health.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="expected the health of a service"):
        read_health(path)
    found = report(tmp_path, clock)
    assert found.exit_code == 3
    assert "is it of another version?" in found.problem


def test_progress_of_a_build_is_shown_if_somebody_tells_it(health, clock, tmp_path):
    tick(health, clock, 100)
    (tmp_path / "compile.json").write_text('{"stage": "tactics", "share": 0.4}')
    assert "compile   stage tactics, share 0.4" in status.lines(report(tmp_path, clock))
    (tmp_path / "compile.json").write_text("{")
    assert report(tmp_path, clock).compiling is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.9, "5 s"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")]
)
def test_durations_are_for_people(seconds, text):
    assert status.duration(seconds) == text


LONG = "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A900WXPC_of_a_long_name-if00-port0"


def test_status_fits_a_serial_console(health, clock, tmp_path):
    event = LinkEvent(**STAMP.at(0.0), up=False, port=LONG, reason="no such file, " * 9)
    health.write(event)
    tick(health, clock, 100)
    path = tmp_path / "health.json"
    found = json.loads(path.read_text())
    found["summary"]["model"] = "pump \x1b[2J\x9b31m é\n"
    path.write_text(json.dumps(found))
    (tmp_path / "compile.json").write_text('{"stage": "' + "tactics " * 20 + '"}')
    lines = status.lines(report(tmp_path, clock))
    assert max(map(len, lines)) <= 80
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert len(lines) <= 24
    assert "pump \\x1b[2J\\x9b31m \\xe9\\n" in "\n".join(lines)
    assert [line for line in lines if line.startswith(" " * 10)]


def test_status_of_a_device_without_anything_tells_what_to_do(tmp_path, clock):
    told = "\n".join(status.lines(report(tmp_path, clock)))
    assert "service   not running: there is no" in told
    assert "`edge-gru bundle install` makes" in told
    told = status.look(store=tmp_path / "bundles", clock=clock).problem
    if not status.HEALTH.exists():
        assert told.endswith("start it: sudo systemctl start edge-gru")


def test_status_of_a_run_without_a_store_does_not_ask_for_one(health, clock, tmp_path):
    clock.now_s += 1
    health.look(clock(), summary(1), None)
    assert not [line for line in status.lines(report(tmp_path, clock)) if "bundle" in line]
