"""What boards, cables and hosts do wrong, one test a fault, and what becomes of it."""

import gc
import logging
import math
import os
import threading
import time
import tracemalloc

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
from firmware_bridge.framing import MAX_CODE_BYTES
from firmware_bridge.link.item_queue import ItemQueue
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator import FAULTS, Fault, ReplaySource, SimulatedBoard
from firmware_bridge.simulator.firmware import FramedFirmware
from firmware_bridge.simulator.line import (
    Bursts,
    Cut,
    Doubled,
    Endless,
    Flips,
    Swapped,
    WrongBaud,
    without_schema,
)
from firmware_bridge.simulator.pseudo_port import PseudoPort


def on_samples(effect):
    """Let an effect pass everything but frames of samples."""
    return lambda wire: effect(wire) if len(wire) > 12 and wire[2] & 31 in (2, 3) else wire


def n_refused(counts):
    return counts.bad_code + counts.bad_length + counts.bad_check


def fed_once_in_order(bench, rows):
    """Tell whether all that was fed is what was sent, each once, in order."""
    seqs = bench.seqs()
    assert seqs == sorted(set(seqs))
    np.testing.assert_array_equal(bench.values(), rows[seqs])
    return True


@pytest.fixture
def board(source, tmp_path):
    """Make boards that are switched off in the end."""
    boards = []

    def make(*faults, **settings):
        made = SimulatedBoard(
            settings.pop("source", source),
            link_path=tmp_path / "sensor",
            faults=[Fault.parse(fault) for fault in faults],
            **settings,
        )
        boards.append(made)
        made.start()
        return made

    yield make
    for made in boards:
        made.stop()


# Cable and port


def test_unplugging_is_down_at_once_and_up_again_by_the_same_name_as_a_new_stream(board, open_link):
    made = board()
    got = open_link(made.port).until_samples(100)
    gone_s = time.monotonic()
    made.inject("unplug=0.2")
    down = got.until_event(LinkDown)
    assert down.t_s - gone_s < 0.1
    up = got.until_event(LinkUp)
    assert up.t_s - gone_s < 1.2  # a second after the link is there again
    got.until_samples(100)
    block = got.items[got.items.index(up) + 1]
    assert block.seq[0] == 0
    assert got.link.statistics.reconnects == 1
    assert got.link.statistics.lost_samples == 0


def test_a_board_that_comes_back_under_another_name_is_found_by_its_link(board, open_link):
    made = board()
    got = open_link(made.port).until_samples(50)
    device = os.path.realpath(made.port)
    made.unplug()
    got.until_event(LinkDown)
    takers = [os.openpty() for _ in range(3)]  # whoever was given the old name
    made.replug()
    assert os.path.realpath(made.port) != device
    got.until_event(LinkUp)
    got.until_samples(50)
    for pair in takers:
        for fd in pair:
            os.close(fd)


def test_joining_in_mid_stream_costs_at_most_one_frame_wherever_it_is_cut(make_bench, rows):
    reference = make_bench()
    reference.run(0.1)
    frame = reference.firmware.sample(rows[0], 0)
    for n_bytes in range(len(frame) + 1):
        bench = make_bench()
        bench.run(0.2)
        bench.to_host = on_samples(Cut(n_bytes))
        bench.run(0.1)
        assert n_refused(bench.counts) <= 1, n_bytes
        assert fed_once_in_order(bench, rows)


def test_a_full_kernel_buffer_is_a_gap_of_its_length(board, source, open_link):
    made = board()
    got = open_link(made.port).until_samples(50)
    made.inject("overrun=4096")
    gap = got.until_event(Gap)
    got.until_samples(50)
    assert got.link.statistics.lost_samples == gap.n_missing > 50
    assert got.link.statistics.frames_bad <= 1
    seqs = np.concatenate([i.seq for i in got.items if isinstance(i, SampleBlock)])
    np.testing.assert_array_equal(got.values(), source.samples[seqs])


def test_a_second_process_is_told_who_has_the_port(board, open_link):
    made = board()
    open_link(made.port).until_samples(1)
    with pytest.raises(PortError, match=rf"in use by process {os.getpid()}"):
        Link(made.port).open()


def test_a_modem_manager_disturbs_neither_end(board, source, open_link):
    made = board("modem")
    got = open_link(made.port).until_samples(300)
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])
    assert got.events() == got.items[:1]
    assert got.link.statistics.bad_check == 0


def test_a_port_without_permission_says_who_may_and_a_missing_one_what_there_is(monkeypatch):
    real_open = os.open

    def refuse(path, *args, **kwargs):
        if str(path).startswith("/dev/pts/"):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, *args, **kwargs)

    port = PseudoPort()
    port.plug_in()
    monkeypatch.setattr(os, "open", refuse)
    try:
        with pytest.raises(PortError, match="group dialout"):
            Link(port.name).open()
    finally:
        port.pull_out()
    with pytest.raises(PortNotFoundError, match="no such port: /dev/ttyNONE; "):
        Link("/dev/ttyNONE").open()


# Line


@pytest.mark.parametrize("probability", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("make", [Flips, Bursts])
def test_what_a_bad_line_changed_is_never_fed(make_bench, rows, make, probability):
    bench = make_bench()
    bench.run(0.2)
    bench.to_host = on_samples(make(probability if make is Flips else 30 * probability))
    bench.run(15.0, step_s=0.005)
    assert fed_once_in_order(bench, rows)
    assert bench.counts.lost_samples == sum(gap.n_missing for gap in bench.events(Gap))
    assert 0 < n_refused(bench.counts) < 1500
    assert bench.counts.samples > 50


def test_no_single_inverted_bit_is_accepted_delimiters_included(make_bench, rows):
    bench = make_bench()
    bench.run(0.2)
    frame = bench.firmware.sample(rows[5000], bench.t_us)
    n_samples = bench.counts.samples
    for bit in range(8 * len(frame)):
        spoilt = bytearray(frame)
        spoilt[bit // 8] ^= 1 << bit % 8
        bench.feed(bytes(spoilt) + b"\0")
    assert bench.counts.samples == n_samples
    bench.feed(frame)
    assert bench.counts.samples == n_samples + 1


def test_the_wrong_baud_rate_is_suspected_after_two_seconds_in_bounded_memory(make_bench):
    bench = make_bench()
    bench.to_host = WrongBaud()
    n_pending = []
    for _ in range(300):
        bench.feed(bytes(230))
        bench.run(0.01)
        n_pending.append(bench.session._decoder.n_pending_bytes)
    (down,) = bench.events(LinkDown)
    assert down.reason.endswith("no valid frame: wrong baud rate or format?")
    assert 2.0 <= down.t_s - 1000.0 < 2.5
    assert max(n_pending) <= MAX_CODE_BYTES


def test_doubled_and_swapped_samples_are_fed_once_and_counted(make_bench, rows):
    for effect, per_second in ((Doubled(10), 10), (Swapped(10), 10)):
        bench = make_bench()
        bench.run(0.2)
        bench.to_host = on_samples(effect)
        bench.run(2.0)
        assert fed_once_in_order(bench, rows)
        assert bench.counts.duplicate_samples == pytest.approx(2 * per_second, abs=1)


def test_ten_megabytes_without_a_delimiter_are_discarded(make_bench, rows):
    bench = make_bench()
    bench.run(0.2)
    endless = Endless(10_000_000)
    n_before = len(bench.values())
    for _ in range(154):
        bench.items += bench.session.receive(endless(bytes(65536)), bench.now_s)
        assert bench.session._decoder.n_pending_bytes <= MAX_CODE_BYTES
    bench.feed(b"\0")
    bench.run(0.2)
    assert len(bench.values()) > n_before
    assert fed_once_in_order(bench, rows)


def test_a_schema_cut_short_is_asked_for_in_vain_and_said(make_bench):
    bench = make_bench()
    bench.to_host = without_schema
    bench.run(6.0)
    (down,) = bench.events(LinkDown)
    assert "does not finish the handshake" in down.reason
    bench.to_host = lambda wire: wire
    bench.run(2.0)
    assert bench.events(LinkUp)


def test_a_lost_ack_is_answered_again_and_acted_on_once(board, open_link):
    made = board("lost-ack=2")
    got = open_link(made.port).until_samples(50)
    assert [type(e) for e in got.events()] == [LinkUp]
    blocks = [i for i in got.items if isinstance(i, SampleBlock)]
    assert blocks[0].seq[0] > 0  # sampling began with the first START; its answers were lost
    assert got.link.statistics.resyncs == 0


# Board


def test_a_reset_in_mid_frame_costs_that_frame_and_begins_a_new_stream(board, open_link):
    made = board()
    got = open_link(made.port).until_samples(100)
    made.inject("reset")
    event = got.until_event(EpochChanged)
    assert "restarted" in event.reason
    got.until_samples(50)
    assert got.items[got.items.index(event) + 1].seq[0] == 0
    statistics = got.link.statistics
    assert statistics.frames_bad <= 1
    assert statistics.lost_samples == 0
    assert statistics.reconnects == 0


def test_wraps_of_time_and_numbers_are_no_gaps(board, source, open_link):
    made = board("wrap=0.3")
    got = open_link(made.port).until_samples(800)
    assert [type(e) for e in got.events()] == [LinkUp]
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])
    times = np.concatenate([i.t_s for i in got.items if isinstance(i, SampleBlock)])
    assert (np.diff(times) > 0).all()
    assert times[-1] - times[0] < 2.0


@pytest.mark.parametrize("n_lost", [32_768, 40_000, 55_000])
def test_a_gap_of_more_than_half_the_numbers_is_as_long_as_time_says(make_bench, schema, n_lost):
    """Only above 10 kHz: a silence of 3 s is a new stream."""
    bench = make_bench(schema=Schema(schema.channels, 20_000.0))
    bench.run(0.5)
    bench.feed(bench.firmware.flush())
    for _ in range(n_lost):
        bench.firmware.skip()
    bench.now_s += n_lost / 20_000
    bench._next_sample_us += n_lost * 50
    bench.run(0.2)
    (gap,) = bench.events(Gap)
    assert gap.n_missing == bench.counts.lost_samples == n_lost
    assert bench.counts.samples > 10_000 + 3000


@pytest.mark.parametrize("ppm", [-500.0, 500.0, 20.0])
def test_drift_is_followed_and_too_much_of_it_is_said(make_bench, schema, ppm, caplog):
    bench = make_bench()
    bench.samples = iter(np.zeros((50_000, 3), np.float32))
    begun_s = bench.now_s

    def drifted(session_bench):
        elapsed_s = session_bench.now_s - begun_s
        return int((100.0 + elapsed_s * (1 + ppm * 1e-6)) * 1e6)

    type(bench).t_us = property(drifted)
    try:
        with caplog.at_level(logging.WARNING):
            bench.run(60.0, step_s=0.002)
    finally:
        type(bench).t_us = property(lambda b: int((b.now_s - b.board_zero_s) * 1e6))
    assert bench.clock.is_locked
    assert bench.counts.clock_drift_ppm == pytest.approx(ppm, abs=5)
    blocks = [i for i in bench.items if isinstance(i, SampleBlock)]
    errors_s = [b.read_s - b.t_s[-1] for b in blocks if b.t_s[-1] > begun_s + 30]
    assert max(map(abs, errors_s)) < 0.003  # one step of the test, one poll
    assert bench.counts.clock_drift_alarms == (abs(ppm) > 200)
    assert caplog.text.count("against this machine's") == (abs(ppm) > 200)


def test_a_jump_of_the_clock_is_a_new_stream(board, open_link):
    made = board()
    got = open_link(made.port).until_samples(100)
    made.inject("jump=7")
    event = got.until_event(EpochChanged)
    assert "clock jumped by 7" in event.reason
    got.until_samples(50)
    assert got.events(Gap) == []


def test_a_stall_is_caught_up_with_in_order_and_the_late_ones_are_counted(board, source, open_link):
    made = board()
    got = open_link(made.port).until_samples(300)
    made.inject("stall=0.5")
    got.until_samples(700)
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])
    assert got.events(Gap) == []
    assert got.link.statistics.late_samples > 300


def test_a_flood_for_a_slow_consumer_drops_the_oldest_in_flat_memory(rows, schema):
    """A hundred seconds of 10 kHz, and nobody takes anything."""
    queue = ItemQueue(1000)
    values = np.zeros((100, 3), np.float32)
    sizes = []
    tracemalloc.start()
    for turn in range(10_000):
        seq = np.arange(turn * 100, turn * 100 + 100)
        queue.put([SampleBlock(seq * 1e-4, seq, values, turn * 0.01)])
        if turn in (1000, 9999):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] < 1.1 * sizes[0]
    gap = queue.get(0)
    assert gap.n_missing == queue.overrun_samples == 999_000


def test_a_board_that_floods_is_read_and_what_is_dropped_is_counted(rows, schema, open_link, board):
    fast = ReplaySource(rows[:40_000], Schema(schema.channels, 1000.0))
    made = board("flood=20000", source=fast)
    got = open_link(made.port, max_pending_samples=500)
    assert made.wait(30)
    while not got.link.statistics.overrun_samples:
        assert threading.Event().wait(0.01) is False
    assert got.link._queue._n_samples <= 500
    got.until_samples(400)
    statistics = got.link.statistics
    assert got.events(Gap)
    assert statistics.samples <= made.n_sent
    assert statistics.samples > 10 * got.n_samples
    assert statistics.frames_bad == 0


def test_values_that_are_none_arrive_as_they_are_and_cost_nothing_else(board, open_link, source):
    made = board("nan=0.1", "range=0.1", "stuck=1")
    got = open_link(made.port).until_samples(500)
    values = got.values()
    sent = source.samples[: len(values)]
    is_spoilt = ~(values[:, 0] == sent[:, 0])
    assert 50 < is_spoilt.sum() < 200
    assert np.isnan(values[is_spoilt, 0]).sum() > 20
    assert (values[:, 1] == sent[0, 1]).all()
    np.testing.assert_array_equal(values[:, 2], sent[:, 2])


def test_other_channels_are_refused_and_both_are_named(board, source, open_link):
    made = board()
    got = open_link(made.port, schema=source.schema).until_samples(50)
    made.inject("channels")
    with pytest.raises(SchemaError, match=r"expected .*vib.*temp.*flow.*sends flow, temp.*vib"):
        got.until(lambda _: False)


def test_frames_of_the_old_channels_fail_the_check_of_the_new(make_bench, schema, rows):
    bench = make_bench()
    bench.run(0.3)
    old = FramedFirmware(BoardSchema.of(Schema.of(["a", "b", "c"], 100.0)))
    old.boot(0)
    old.__dict__.update(_epoch=bench.firmware._epoch, _seq=bench.firmware._seq)
    n_samples = bench.counts.samples
    bench.feed(old.sample(rows[0], bench.t_us))
    assert bench.counts.samples == n_samples
    assert bench.counts.bad_check == 1


def test_versions_that_do_not_meet_are_both_named(board, open_link):
    made = board("version=2")
    with pytest.raises(ProtocolError, match="host speaks 1 to 1, the board 2 to 2"):
        open_link(made.port).until_samples(1)


def test_a_silent_port_is_stale_after_three_seconds(make_bench):
    bench = make_bench()
    bench.run(0.3)
    bench.to_host = lambda _: b""
    silent_s = bench.now_s
    bench.run(5.0)
    (down,) = bench.events(LinkDown)
    assert 3.0 <= down.t_s - silent_s < 3.5


def test_a_board_that_resets_when_opened_is_greeted_until_it_answers(board, source, open_link):
    made = board("reset-on-open=0.6")
    got = open_link(made.port).until_samples(100)
    assert [type(e) for e in got.events()] == [LinkUp]
    np.testing.assert_array_equal(got.values(), source.samples[: got.n_samples])


def test_a_host_that_comes_back_ignores_the_stream_of_the_one_before(board, source, open_link):
    made = board("old-stream")
    assert made.firmware.is_streaming
    got = open_link(made.port).until_samples(100)
    assert [type(e) for e in got.events()] == [LinkUp]
    assert got.link.statistics.lost_samples == 0
    assert got.items[1].seq[0] == 0


def test_a_full_ring_is_a_gap_that_the_board_answers_for(board, open_link, rows, schema):
    short = ReplaySource(rows[:1500], Schema(schema.channels, 500.0))
    made = board("slow=6000", source=short)
    got = open_link(made.port)
    got.until(lambda c: c.link.statistics.board_dropped_samples > 20)
    statistics = got.link.statistics
    assert statistics.lost_samples > 0
    assert statistics.frames_bad == 0
    assert made.n_dropped >= statistics.board_dropped_samples


# The table itself


def test_every_fault_strikes_a_board_or_says_why_it_cannot(source):
    framed_only = {"wrap", "version", "lost-ack", "no-schema", "old-stream"}
    for name in FAULTS:
        value = "=0.05" if name in ("unplug", "stall", "silent") else ""
        for wire in ("framed", "csv"):
            made = SimulatedBoard(source, format=wire, faults=[Fault.parse(name + value)])
            if wire == "csv" and name in framed_only:
                with pytest.raises(FormatError, match=f"has no {name}"):
                    made.start()
            else:
                with made:
                    assert made.wait(0.0) is False


def test_a_fault_is_read_from_text_or_refused():
    assert Fault.parse("unplug") == Fault("unplug", 1.0)
    assert Fault.parse("flips=1e-3@2.5") == Fault("flips", 1e-3, 2.5)
    with pytest.raises(FormatError, match="expected one of the faults unplug, cut"):
        Fault.parse("gremlins")
    with pytest.raises(FormatError, match="NAME=NUMBER@SECONDS"):
        Fault.parse("flips=many")
    assert Fault.parse("silent=inf").value == math.inf


@pytest.mark.parametrize(
    "text",
    [
        *("flips=2", "flips=-1", "nan=1.5", "stall=-1", "stall=inf", "unplug=nan", "unplug=inf"),
        *("lost=0", "flood=0", "version=-1", "drift=1e9", "doubled=0", "slow=0", "wrap=1e9"),
        *("reset@-1", "reset@nan", "reset@inf"),
    ],
)
def test_impossible_faults_are_refused(text):
    with pytest.raises(FormatError, match="expected"):
        Fault.parse(text)


def test_every_fault_takes_its_own_default():
    for name, kind in FAULTS.items():
        assert Fault.parse(name).value == kind.value


def test_a_fault_may_come_later_and_of_itself(board, open_link):
    made = board("unplug=0.1@0.2")
    got = open_link(made.port)
    got.until_event(LinkDown)
    assert got.n_samples > 0
    got.until_event(LinkUp)


def test_a_board_may_start_unplugged(board, open_link):
    made = board("unplug=0.2")
    got = open_link(str(made._port._link_path), wait_for_port=True)
    assert "no such port" in got.until_event(LinkDown).reason
    got.until_samples(10)


def test_faults_in_other_threads_reach_the_caller(board):
    made = board(format="csv")
    with pytest.raises(FormatError, match="one that prints has no wrap"):
        made.inject("wrap")
    made.inject("cut=3")
