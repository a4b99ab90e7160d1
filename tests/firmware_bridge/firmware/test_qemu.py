"""The example firmware on an emulated Cortex-M3, behind a link like any board.

EDGE_GRU_QEMU_S is how long the steady stream is followed; ``make qemu-board`` asks for ten minutes.
"""

import contextlib
import os
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge import (
    EpochChanged,
    LinkDown,
    LinkUp,
    PortError,
    ProtocolError,
    SampleBlock,
)
from firmware_bridge.firmware import project_files, schema_header
from firmware_bridge.protocol import messages as m
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator import QemuBoard

pytestmark = pytest.mark.slow  # all together

HERE = Path(__file__).parent
STEADY_S = float(os.environ.get("EDGE_GRU_QEMU_S", "10"))
LEDS = 0x40028000
LED_ALARM, LED_IDENTIFY = 1, 2
CRASH_AT = m.FIRST_OWN_COMMAND
BOARD = BoardSchema.from_toml((HERE / "board.toml").read_bytes())
SCALE = np.array([c.scale for c in BOARD.channels])
OFFSET = np.array([c.offset for c in BOARD.channels])


def triangles(seq):
    """Return what the firmware samples as numbers ``seq`` ``(k,)``."""
    phase = seq[:, None] * np.arange(1, 9) & 0x3FF
    raw = np.where(phase < 512, phase, 1023 - phase) * 64 - 16384
    return (raw * SCALE + OFFSET).astype(np.float32)


@pytest.fixture(scope="session")
def elf(need, tmp_path_factory):
    """The example, built as a user would build it."""
    need("arm-none-eabi-gcc")
    need("qemu-system-arm")
    folder = tmp_path_factory.mktemp("board")
    for name, content in project_files("qemu", schema_header(BOARD), "board").items():
        (folder / name).write_bytes(content)
    subprocess.run([need("make"), "-s", "-C", str(folder)], check=True)
    return folder / "board.elf"


@pytest.fixture(autouse=True)
def first_in_line():
    """Go before others on a busy machine, where that is allowed: a board has its core to itself."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # QEMU and threads inherit it
    yield
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def board(elf, tmp_path):
    with QemuBoard(elf, link_path=tmp_path / "sensor") as made:
        yield made


@pytest.fixture
def got(board, open_link):
    """What a link at 1 kHz collects."""
    return open_link(board.port, rate_hz=1000.0).until_samples(20)


def until_leds(board, wanted, mask=LED_ALARM, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while board.read_word(LEDS) & mask != wanted:
        assert time.monotonic() < deadline_s


def check_values(items):
    for item in items:
        if isinstance(item, SampleBlock):
            np.testing.assert_array_equal(item.values, triangles(item.seq))


def final_status(got):
    """Stop the sampling; return the board's next word on it, everything sent being received."""
    link = got.link
    link.control(m.Command.STOP, timeout_s=10)
    before = link.board_status
    deadline_s = time.monotonic() + 20
    while link.board_status is before:
        assert time.monotonic() < deadline_s
        item = link.receive(0.05)
        if item is not None:
            got.items.append(item)
    return link.board_status


@pytest.mark.timeout(STEADY_S + 120)
def test_a_steady_stream_loses_nothing_and_both_ends_count_alike(got):
    link = got.link
    n_samples, n_predictions = got.n_samples, 0
    check_values(got.items)
    deadline_s = time.monotonic() + STEADY_S
    while time.monotonic() < deadline_s:
        item = link.receive(20.0)  # a machine with other things to do is no loss
        assert isinstance(item, SampleBlock), (item, link.statistics, link.board_status)
        check_values([item])
        n_samples += len(item)
        if n_samples // 50 > n_predictions:
            n_predictions += link.send_prediction(item.seq[-1], item.values[-1, :2])
    n_before = got.n_samples
    status = final_status(got)
    n_samples += got.n_samples - n_before
    counts = link.statistics
    assert n_samples / STEADY_S > 990
    assert (status.n_samples, status.n_dropped, status.n_missed) == (n_samples, 0, 0)
    assert counts.samples == n_samples
    assert counts.lost_samples == counts.frames_bad == counts.overrun_samples == counts.resyncs == 0
    assert status.n_predictions == n_predictions - counts.unsent_predictions
    assert (status.n_rx_bad, status.n_rx_overrun, counts.unwritten_bytes) == (0, 0, 0)


def test_a_reset_in_mid_frame_costs_one_frame_and_is_a_new_epoch(got):
    got.link.control(CRASH_AT, struct.pack("<I", got.n_samples + 500))
    event = got.until_event(EpochChanged)
    assert "restarted" in event.reason
    got.until_samples(200)
    check_values(got.items)
    counts = got.link.statistics
    assert counts.frames_bad == 1
    assert counts.lost_samples == 0
    assert got.events(LinkDown) == []


def test_the_alarm_is_lit_goes_out_without_a_host_and_comes_back_with_it(board, got):
    assert board.read_word(LEDS) == 0
    got.link.set_alarms(1)
    until_leds(board, LED_ALARM)
    got.until(lambda c: c.link.board_status and c.link.board_status.flags & m.FLAG_ALARM_LIT)
    board.unplug()
    assert "hung up" in got.until_event(LinkDown).reason
    until_leds(board, 0)  # three seconds after the host's last word: nobody says that it holds
    board.replug()
    got.until_event(LinkUp)
    until_leds(board, LED_ALARM)
    got.until_samples(200)
    got.link.set_alarms(0)
    until_leds(board, 0)
    check_values(got.items)
    assert got.link.statistics.reconnects == 1
    assert got.link.statistics.frames_bad <= 1  # the frame that was cut by plugging in
    assert got.link.statistics.lost_samples == 0


def test_a_prediction_with_an_alarm_lights_it_too(board, got):
    sent = m.Prediction(3, m.PREDICTION_HAS_ALARM, 1, struct.pack("<f", 0.9))
    epoch = got.events(LinkUp)[0].epoch
    got.link._back_channel.put_prediction(m.encode_message(sent, epoch=epoch))
    until_leds(board, LED_ALARM)


def test_requests_reach_the_program_and_are_answered(board, got):
    got.link.control(m.Command.IDENTIFY, b"\1")
    until_leds(board, LED_IDENTIFY, mask=LED_IDENTIFY)
    until_leds(board, 0, mask=LED_IDENTIFY)
    with pytest.raises(ProtocolError, match="refused SET: not supported"):
        got.link.control(m.Command.SET, b"\1\2")
    with pytest.raises(ProtocolError, match="unknown command"):
        got.link.control(0xFE)
    with pytest.raises(ProtocolError, match="bad argument"):
        got.link.control(CRASH_AT, b"\1")


def test_a_reset_on_request_is_acknowledged_and_a_new_epoch(got):
    boot_id = got.until(lambda c: c.link.board_status).link.board_status.boot_id
    got.link.control(m.Command.RESET)
    assert "restarted" in got.until_event(EpochChanged).reason
    got.until(lambda c: c.link.board_status.boot_id != boot_id)
    assert got.link.board_status.boot_id == (boot_id + 1) % 2**32
    assert got.link.statistics.frames_bad == 0


@pytest.mark.parametrize("is_told", [False, True], ids=["SIGSTOP", "QMP stop"])
def test_a_board_held_for_half_a_second_goes_on_without_loss(board, got, is_told):
    """Held from outside it catches up, late; stopped with its clock it has missed nothing."""
    got.until_samples(500)
    n_before = got.link.statistics.late_samples
    with board.held() if is_told else held_from_outside(board):
        threading.Event().wait(0.5)
    got.until_samples(1500)
    check_values(got.items)
    seqs = np.concatenate([i.seq for i in got.items if isinstance(i, SampleBlock)])
    assert (np.diff(seqs) == 1).all()
    assert got.events() == got.events(LinkUp)
    counts = got.link.statistics
    assert (counts.lost_samples, counts.frames_bad, counts.resyncs) == (0, 0, 0)
    assert is_told or counts.late_samples - n_before > 200


@contextlib.contextmanager
def held_from_outside(board):
    """Let the machine stand still while its clock, which is the host's, goes on."""
    pid = board._qemu._process.pid
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


def test_another_rate_takes_effect_with_samples_that_share_frames(got):
    got.link.set_rate(2000.0)
    up = got.until_event(LinkUp)
    n_before, frames_before = got.n_samples, got.link.statistics.frames_good
    assert up.schema.rate_hz == 2000.0
    got.until_samples(1000)
    check_values(got.items)
    n_frames = got.link.statistics.frames_good - frames_before
    assert n_frames < 0.8 * (got.n_samples - n_before)
    assert got.link.statistics.frames_bad == 0
    times = np.concatenate([i.t_s for i in got.items[-20:] if isinstance(i, SampleBlock)])
    assert abs(np.median(np.diff(times)) * 2000 - 1) < 0.01


def test_a_firmware_that_is_none_is_said(need, tmp_path):
    need("qemu-system-arm")
    with pytest.raises(PortError, match=r"QEMU ended.*none\.elf"), QemuBoard(tmp_path / "none.elf"):
        pass
