"""The link over a real pty: what a board and its cable can do to it."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge import (
    EpochChanged,
    FormatError,
    Gap,
    Link,
    LinkDown,
    LinkUp,
    PortError,
    PortNotFoundError,
    ProtocolError,
    SampleBlock,
    Schema,
    SchemaError,
)
from firmware_bridge.link.reader import _HangUpError
from firmware_bridge.port.serial_port import _open_files
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator import ReplaySource, SimulatedBoard
from firmware_bridge.simulator.firmware import FramedFirmware
from firmware_bridge.simulator.pseudo_port import PseudoPort
from firmware_bridge.simulator.text_firmware import PRINTERS

every_format = pytest.mark.parametrize("name", ["framed", "csv"])
every_simulated = pytest.mark.parametrize("name", ["framed", *PRINTERS])


@pytest.fixture
def board(source, tmp_path):
    with SimulatedBoard(source, link_path=tmp_path / "sensor") as made:
        yield made


@every_simulated
def test_every_sample_arrives_once_in_order(source, open_link, name):
    with SimulatedBoard(source, format=name) as board:
        got = open_link(board.port, format=name, schema=source.schema)
        got.until_samples(1000)
        assert got.items[0] == LinkUp(got.items[0].t_s, board.port, source.schema)
        assert got.events() == got.items[:1]
        place = np.searchsorted(source.samples[:, 0], got.values()[:, 0])
        np.testing.assert_array_equal(got.values(), source.samples[place])
        steps = np.diff(place, prepend=-1)
        statistics = got.link.statistics
    assert steps.min() == 1
    # A machine too busy to read lets the board's ring overflow; without numbers nobody else knows.
    assert (steps - 1).sum() <= (board.n_dropped if name != "framed" else 0)
    assert statistics.frames_bad == statistics.lost_samples == statistics.overrun_samples == 0
    assert statistics.samples >= 1000


@every_format
def test_the_end_of_the_source_is_waited_for(rows, schema, open_link, name):
    source = ReplaySource(rows[:300], Schema(schema.channels, 1000.0))
    with SimulatedBoard(source, format=name) as board:
        assert not board.wait(0)
        got = open_link(board.port, format=name).until_samples(300)
        assert board.wait(20)
        assert board.n_sent == 300
        assert board.n_dropped == 0
    np.testing.assert_array_equal(got.values(), source.samples)


def test_the_rate_is_true(source, open_link, board):
    got = open_link(board.port).until_samples(2000)
    times = np.concatenate([i.t_s for i in got.items if isinstance(i, SampleBlock)])
    rate_hz = (len(times) - 1) / (times[-1] - times[0])
    assert abs(rate_hz / 1000 - 1) < 0.01
    assert abs(np.median(np.diff(times)) - 1e-3) < 1e-5
    reads = [i.read_s - i.t_s[-1] for i in got.items if isinstance(i, SampleBlock)]
    assert min(reads) > -0.02  # half a round trip on a busy machine


@every_format
def test_unplug_is_down_at_once_and_replug_is_up_by_the_same_name(
    source, tmp_path, open_link, name
):
    with SimulatedBoard(source, format=name, link_path=tmp_path / "sensor") as board:
        got = open_link(board.port, format=name).until_samples(100)
        board.unplug()
        gone_s = time.monotonic()
        down = got.until_event(LinkDown)
        assert down.t_s - gone_s < 0.1
        assert "hung up" in down.reason
        n_before = got.n_samples
        board.replug()
        got.until_event(LinkUp)
        got.until_samples(100)
        assert got.link.statistics.reconnects == 1
        assert [type(e) for e in got.events() if not isinstance(e, Gap)] == [
            LinkUp,
            LinkDown,
            LinkUp,
        ]
    block = next(i for i in reversed(got.items) if isinstance(i, SampleBlock))
    assert block.seq[-1] < got.n_samples
    assert got.n_samples > n_before


def test_a_port_that_hung_up_is_let_go_of_before_it_is_said(board, open_link):
    got = open_link(board.port).until_samples(10)
    device = os.path.realpath(board.port)
    assert device in _open_files(Path("/proc/self"))
    board.unplug()
    got.until_event(LinkDown)
    assert not any(name.startswith(device) for name in _open_files(Path("/proc/self")))


def test_three_unplugs_in_a_row(board, open_link):
    got = open_link(board.port)
    for _ in range(3):
        got.until_samples(50)
        board.unplug()
        got.until_event(LinkDown)
        board.replug()
        got.until_event(LinkUp)
    assert got.link.statistics.reconnects == 3
    assert got.link.statistics.frames_bad == 0


def test_a_restart_is_a_new_epoch(board, source, open_link):
    got = open_link(board.port).until_samples(100)
    board.restart()
    event = got.until_event(EpochChanged)
    assert "restarted" in event.reason
    got.until_samples(100)
    after = got.items[got.items.index(event) + 1]
    assert after.seq[0] == 0
    assert got.events(LinkDown) == []
    assert got.link.statistics.lost_samples == 0


def test_lost_samples_are_a_gap_of_exactly_their_number(board, source, open_link):
    got = open_link(board.port).until_samples(100)
    board.inject("lost=17")
    gap = got.until_event(Gap)
    assert gap.n_missing == 17
    got.until_samples(50)
    seqs = np.concatenate([i.seq for i in got.items if isinstance(i, SampleBlock)])
    np.testing.assert_array_equal(got.values(), source.samples[seqs])
    assert got.link.statistics.lost_samples == 17


def test_noise_and_modem_commands_cost_no_sample(board, source, open_link):
    got = open_link(board.port).until_samples(50)
    board.send_raw(b"AT\r\0AT\r\xff\xff\0")
    got.until_samples(200)
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])
    assert got.link.statistics.frames_bad == 2


@every_format
def test_another_schema_is_raised_by_receive_and_ends_the_link(source, open_link, name):
    expected = Schema.of(["vib", "temp", "pressure"], 1000.0)
    with SimulatedBoard(source, format=name) as board:
        got = open_link(board.port, format=name, schema=expected)
        with pytest.raises(SchemaError, match=r"vib, temp, pressure.*flow"):
            got.until_samples(1)
        assert got.link.finished
        assert got.link.receive(0) is None


def test_another_version_is_raised_by_receive(source, open_link):
    firmware = FramedFirmware(BoardSchema.of(source.schema), proto_min=2, proto_max=2)
    with SimulatedBoard(source, firmware=firmware) as board:
        got = open_link(board.port)
        with pytest.raises(ProtocolError, match="common protocol version"):
            got.until_samples(1)


def test_a_host_restarts_while_the_board_streams(board, source, open_link):
    first = open_link(board.port).until_samples(50)
    first.link.close()
    second = open_link(board.port).until_samples(50)
    assert second.events() == [second.items[0]]
    assert second.link.statistics.frames_bad <= 1
    assert second.link.statistics.lost_samples == 0


def test_a_stream_joined_without_stop_is_taken_over(source, open_link):
    with SimulatedBoard(source) as board:
        firmware = board.firmware
        firmware.is_streaming, firmware._seq = True, 999
        got = open_link(board.port).until_samples(100)
        assert got.link.statistics.lost_samples == 0
        assert [type(e) for e in got.events()] == [LinkUp]


def test_wraps_of_seq_and_time_are_no_gaps(source, open_link):
    firmware = FramedFirmware(BoardSchema.of(source.schema), first_seq=65_500)
    with SimulatedBoard(source, firmware=firmware, first_t_us=2**32 - 100_000) as board:
        got = open_link(board.port).until_samples(500)
    assert [type(e) for e in got.events()] == [LinkUp]
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])


def test_int16_on_the_wire(source, open_link):
    with SimulatedBoard(source, dtype="<i2", scale=0.25) as board:
        got = open_link(board.port).until_samples(200)
    np.testing.assert_allclose(got.values(), source.samples[: got.n_samples], atol=0.126)


def test_a_silent_port_is_said_and_waited_for(open_link):
    port = PseudoPort()
    port.plug_in()
    now_s = [0.0]
    got = open_link(port.name, clock=lambda: now_s[0])
    wanted = threading.Event()

    def hurry():
        while not wanted.wait(0.01):
            now_s[0] += 0.1
            port.read()  # a board that listens and says nothing

    hurrying = threading.Thread(target=hurry)
    hurrying.start()
    down = got.until_event(LinkDown)
    wanted.set()
    hurrying.join()
    port.pull_out()
    assert "is the board alive?" in down.reason


def test_a_busy_port_is_refused_by_name_of_its_holder(board, open_link):
    open_link(board.port)
    with pytest.raises(PortError, match="in use by process"):
        Link(board.port).open()


def test_no_such_port():
    with pytest.raises(PortNotFoundError, match="no such port"):
        Link("/dev/ttyNONE").open()


def test_a_missing_port_can_be_waited_for(source, tmp_path, open_link):
    path = tmp_path / "sensor"
    got = open_link(str(path), wait_for_port=True)
    assert "no such port" in got.until_event(LinkDown).reason
    with SimulatedBoard(source, link_path=path):
        got.until_event(LinkUp)
        got.until_samples(50)
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])


def test_a_late_consumer_gets_the_newest_samples_and_a_gap(source, open_link, board):
    got = open_link(board.port, max_pending_samples=100)
    deadline_s = time.monotonic() + 20
    while got.link.statistics.overrun_samples < 300:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)
    got.until_samples(200)
    up, gap = got.items[:2]
    assert isinstance(up, LinkUp)
    assert isinstance(gap, Gap)
    assert gap.n_missing >= 300
    assert isinstance(got.items[2], SampleBlock)
    assert got.items[2].seq[0] == gap.n_missing
    n_missing = sum(gap.n_missing for gap in got.events(Gap))
    assert n_missing == got.link.statistics.overrun_samples == got.link.overrun_samples


def test_stop_ends_reading_and_nothing_read_is_lost(board, source, open_link):
    got = open_link(board.port).until_samples(100)
    got.link.stop()
    got.until(lambda c: c.link.finished)
    assert got.n_samples == got.link.statistics.samples
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])
    assert got.link.receive(0) is None


def test_stop_before_open_and_close_twice_are_harmless(board):
    link = Link(board.port)
    link.stop()
    link.close()
    link.close()
    assert link.finished


def test_stop_while_the_port_hangs_up_over_the_last_words_ends_the_link(board, open_link):
    got = open_link(board.port).until_samples(10)
    reader = got.link._reader

    def hang_up(fd, outgoing):
        raise _HangUpError("the port hung up")

    reader._write = hang_up
    got.link.stop()
    got.until(lambda c: c.link.finished)


def test_stop_while_waiting_for_a_port(tmp_path, open_link):
    got = open_link(str(tmp_path / "none"), wait_for_port=True)
    got.link.stop()
    got.until(lambda c: c.link.finished)


def test_the_board_is_told_to_stop(board, open_link):
    got = open_link(board.port).until_samples(10)
    got.link.close()
    deadline_s = time.monotonic() + 20
    while board.firmware.is_streaming:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.005)


@pytest.mark.parametrize("settings", [{"rate_hz": 0.0}, {"rate_hz": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(FormatError):
        Link("/dev/null", **settings)
    with pytest.raises(FormatError, match="max_pending_samples"):
        Link("/dev/null", max_pending_samples=0)


@pytest.mark.slow
def test_ten_seconds_at_1_khz_of_8_channels_lose_nothing(open_link):
    samples = np.random.default_rng(0).normal(size=(10_000, 8)).astype(np.float32)
    source = ReplaySource(samples, Schema.unnamed(8, 1000.0))
    with SimulatedBoard(source) as board:
        got = open_link(board.port, schema=source.schema).until_samples(10_000, timeout_s=60)
        assert board.n_dropped == 0
    statistics = got.link.statistics
    np.testing.assert_array_equal(got.values(), samples)
    assert statistics.lost_samples == statistics.frames_bad == statistics.resyncs == 0
    assert [type(e) for e in got.events()] == [LinkUp]
