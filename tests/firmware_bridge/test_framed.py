"""The framed session against the simulated firmware, without port or clock."""

import numpy as np
import pytest

from firmware_bridge import (
    EpochChanged,
    Gap,
    LinkDown,
    LinkUp,
    ProtocolError,
    SampleBlock,
    Schema,
    SchemaError,
)
from firmware_bridge.protocol import messages as m
from firmware_bridge.protocol.board_schema import BoardChannel, BoardSchema, RateRange
from firmware_bridge.simulator.firmware import FramedFirmware


def is_sample(wire):
    return len(wire) > 12 and wire[2] & 31 in (2, 3)  # after delimiter and first COBS byte


def test_handshake_ends_in_samples_in_order(make_bench, rows, schema):
    bench = make_bench(expected=schema)
    bench.run(1.0)
    assert bench.items[0] == LinkUp(bench.items[0].t_s, "bench", schema)
    assert bench.events() == [bench.items[0]]
    np.testing.assert_array_equal(bench.values(), rows[: bench.n_given])
    assert bench.seqs() == list(range(bench.n_given))
    assert 98 <= bench.n_given <= 101
    assert bench.counts.frames_bad == 0


def test_sample_times_are_those_of_the_board(make_bench):
    bench = make_bench()
    bench.run(3.0)
    times = bench.times()
    assert abs(np.diff(times) - 0.01).max() < 1e-3
    true_s = bench.board_zero_s + bench._next_sample_us * 1e-6 - 0.01
    assert abs(times[-1] - true_s) < 2e-3


def test_the_rate_asked_for_is_the_models(make_bench, schema):
    board = BoardSchema((BoardChannel("a"),), "<f4", RateRange(1.0, 1000.0))
    bench = make_bench(firmware=FramedFirmware(board), expected=Schema.of(["a"], 200.0))
    bench.samples = iter(np.zeros((5000, 1), np.float32))
    bench.run(1.0)
    assert bench.firmware.period_us == 5000
    assert bench.events(LinkUp)[0].schema.rate_hz == 200.0


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Schema.of([("vib", "g"), ("temp", "degC")], 100.0), ["vib [g], temp [degC];", "flow"]),
        (Schema.of([("temp", "degC"), ("vib", "g"), "flow"], 100.0), ["temp [degC], vib [g]"]),
        (Schema.of([("vib", "m/s2"), ("temp", "degC"), "flow"], 100.0), ["vib [m/s2]", "vib [g]"]),
        (Schema.of(["vib", "temp", "flow"], 50.0), ["50 Hz", "100 Hz"]),
    ],
)
def test_another_schema_is_refused_and_both_are_named(make_bench, expected, words):
    bench = make_bench(expected=expected)
    with pytest.raises(SchemaError) as caught:
        bench.run(1.0)
    assert all(word in str(caught.value) for word in words), caught.value


def test_units_unknown_to_one_side_do_not_matter(make_bench):
    bench = make_bench(expected=Schema.of(["vib", "temp", ("flow", "l/s")], 100.0))
    bench.run(0.5)
    assert bench.events(LinkUp)


def test_a_model_without_names_takes_any_board_with_as_many_channels(make_bench):
    bench = make_bench(expected=Schema.unnamed(3, 100.0))
    bench.run(0.5)
    assert bench.events(LinkUp)
    bench = make_bench(expected=Schema.unnamed(4, 100.0))
    with pytest.raises(SchemaError):
        bench.run(1.0)


def test_no_common_version_names_both_ranges(make_bench, schema):
    firmware = FramedFirmware(BoardSchema.of(schema), proto_min=2, proto_max=3)
    with pytest.raises(ProtocolError, match=r"host speaks 1 to 1, the board 2 to 3"):
        make_bench(firmware=firmware).run(1.0)


def test_a_board_without_a_rate_needs_one(make_bench):
    board = BoardSchema((BoardChannel("a"),), "<f4")
    with pytest.raises(SchemaError, match="no sampling rate"):
        make_bench(firmware=FramedFirmware(board)).run(1.0)


def test_a_rate_the_baud_rate_cannot_carry_is_refused(make_bench):
    schema = Schema.unnamed(8, 1000.0)
    with pytest.raises(ProtocolError, match=r"baud, the port runs at 115200"):
        make_bench(schema=schema, baud=115200).run(1.0)


def test_hello_goes_out_every_200_ms_then_every_second(make_bench):
    sent_s = []
    bench = make_bench()
    bench.to_board = lambda wire: sent_s.append(bench.now_s) if wire else None
    bench.run(10.0)
    gaps = np.diff(sent_s)
    assert abs(gaps[:24] - 0.2).max() < 0.01
    assert abs(gaps[-4:] - 1.0).max() < 0.01


def test_lost_bytes_during_the_handshake_are_asked_for_again(make_bench, rows):
    bench = make_bench()
    n_messages = iter(range(10**9))
    bench.to_host = lambda wire: wire if is_sample(wire) or next(n_messages) % 2 else b""
    bench.to_board = lambda wire: wire if not wire or next(n_messages) % 3 else b""
    bench.run(8.0)
    assert bench.events(LinkUp)
    seqs = bench.seqs()
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert seqs[0] < 100  # what came before the ACK got through belongs to no announced epoch


def test_a_lost_ack_is_repeated_and_executed_once(make_bench):
    bench = make_bench()
    epoch = bench.firmware._epoch
    bench.firmware.lose_acks(2)
    bench.run(1.5)
    assert bench.events(LinkUp)
    assert bench.firmware._epoch == (epoch + 1) % 256
    assert bench.events(EpochChanged) == []


def test_missing_samples_are_one_gap_of_their_number(make_bench, rows):
    bench = make_bench()
    bench.run(0.5)
    n_before = bench.n_given
    for _ in range(7):
        next(bench.samples)
        bench.firmware.skip()
        bench._next_sample_us += bench.firmware.period_us
    bench.run(0.5)
    assert [g.n_missing for g in bench.events(Gap)] == [7]
    assert bench.counts.lost_samples == 7
    seqs = bench.seqs()
    assert seqs[n_before - 1 : n_before + 1] == [n_before - 1, n_before + 7]
    where = next(i for i, item in enumerate(bench.items) if isinstance(item, Gap))
    assert bench.items[where + 1].seq[0] == n_before + 7


def test_doubled_and_swapped_frames_are_dropped_and_never_fed_twice(make_bench, rows):
    bench = make_bench()
    bench.run(0.5)
    held = []

    def double_and_swap(wire):
        if not is_sample(wire):
            return wire
        held.append(wire)
        if len(held) % 5 == 1:
            return wire + wire
        if len(held) % 5 == 2:
            return b""
        return wire + held[-2] if len(held) % 5 == 3 else wire

    bench.to_host = double_and_swap
    bench.run(1.0)
    seqs = bench.seqs()
    assert seqs == sorted(set(seqs))
    assert bench.counts.duplicate_samples >= 30
    np.testing.assert_array_equal(bench.values(), rows[seqs])


def test_wraps_of_seq_and_time_are_no_gaps(make_bench, schema):
    bench = make_bench(firmware=FramedFirmware(BoardSchema.of(schema), first_seq=65_530))
    bench.board_zero_s = bench.now_s - (2**32 - 500_000) * 1e-6
    bench.run(2.0)
    assert bench.events(Gap) == []
    assert bench.events(EpochChanged) == []
    assert bench.seqs() == list(range(65_530, 65_530 + bench.n_given))
    assert np.diff(bench.times()).max() < 0.0105


@pytest.mark.parametrize("lost", [32_767, 40_000, 65_535, 65_536, 70_000])
def test_a_long_gap_is_told_from_old_samples_by_time(make_bench, schema, lost):
    fast = Schema(schema.channels, 1000.0)
    bench = make_bench(schema=fast)
    bench.run(0.5)
    bench.firmware._seq += lost
    bench.now_s += lost / 1000
    bench._next_sample_us += lost * 1000
    bench.session._watchdog.connected(bench.now_s)
    bench.run(0.2)
    assert [g.n_missing for g in bench.events(Gap)] == [lost]
    assert bench.events(EpochChanged) == []


def test_a_jump_of_the_boards_clock_is_a_new_stream(make_bench):
    bench = make_bench()
    bench.run(0.5)
    bench.board_zero_s -= 7.0
    bench._next_sample_us += 7_000_000
    bench.run(0.5)
    (event,) = bench.events(EpochChanged)
    assert "clock jumped by 7.0" in event.reason
    assert bench.events(Gap) == []


def test_a_restart_of_the_board_is_a_new_epoch_and_nothing_is_counted_lost(make_bench, rows):
    bench = make_bench()
    bench.run(0.5)
    before = bench.n_given
    bench.feed(bench.firmware.boot(bench.t_us))
    bench.run(0.5)
    (event,) = bench.events(EpochChanged)
    assert "restarted" in event.reason
    assert bench.counts.lost_samples == 0
    assert bench.seqs()[before] == 0
    np.testing.assert_array_equal(bench.values(), rows[: bench.n_given])


def test_a_restart_is_noticed_without_its_boot_message(make_bench):
    bench = make_bench()
    bench.run(0.5)
    bench.firmware.boot(bench.t_us)
    bench.run(2.0)
    assert [type(e) for e in bench.events()] == [LinkUp, EpochChanged]


def test_a_host_restarts_while_the_board_streams(make_bench, rows):
    first = make_bench()
    first.run(0.5)
    second = make_bench(firmware=first.firmware)
    second.samples, second.now_s = first.samples, first.now_s
    second.items.clear()
    second.firmware._epoch, second.firmware.is_streaming = first.firmware._epoch, True
    second.run(0.6)
    assert [type(e) for e in second.events()] == [LinkUp]
    assert second.counts.frames_bad == 0
    assert second.counts.lost_samples == 0


def test_data_of_a_foreign_epoch_is_dropped_and_asked_about(make_bench):
    bench = make_bench()
    bench.run(0.5)
    n_known = bench.counts.samples
    bench.firmware._epoch = (bench.firmware._epoch + 100) % 256
    bench.run(0.9)
    assert bench.counts.samples == n_known
    assert bench.counts.foreign_epoch_samples > 80
    bench.run(1.0)
    assert bench.counts.resyncs == 1
    assert bench.counts.samples > n_known


def test_new_channels_under_the_old_name_are_never_decoded_as_the_old_ones(make_bench, schema):
    bench = make_bench()
    bench.run(0.5)
    n_known = bench.counts.samples
    other = Schema.of([("vib", "g"), ("flow", ""), ("temp", "degC")], 100.0)
    fresh = FramedFirmware(BoardSchema.of(other))
    fresh.boot(bench.t_us)
    fresh.__dict__.update(
        is_streaming=True,
        _boot_id=bench.firmware._boot_id,
        _epoch=bench.firmware._epoch,
        _seq=bench.firmware._seq,
    )
    bench.firmware = fresh
    bench.run(2.9)
    assert bench.counts.samples == n_known
    assert bench.counts.bad_check > 200
    bench.run(2.0)
    assert [e.schema.names for e in bench.events(LinkUp)] == [schema.names, other.names]
    assert bench.counts.samples > n_known


def test_silence_is_said_once_and_recovered_from(make_bench):
    bench = make_bench()
    bench.run(0.5)
    bench.to_host = lambda _: b""
    bench.run(2.8)
    assert bench.events(LinkDown) == []
    bench.run(10.0)
    assert len(bench.events(LinkDown)) == 1
    bench.to_host = lambda wire: wire
    bench.run(2.0)
    assert [type(e) for e in bench.events()] == [LinkUp, LinkDown, LinkUp]


def test_a_board_that_answers_but_sends_no_samples_is_down_once(make_bench):
    bench = make_bench()
    bench.run(0.5)
    bench.samples = iter(())
    bench.run(12.0)
    (down,) = bench.events(LinkDown)
    assert "no samples" in down.reason


def test_wrong_baud_rate_is_suspected_after_two_seconds(make_bench):
    bench = make_bench()
    bench.to_board = lambda _: b""
    bench.firmware.tick = lambda _: b""
    rng = np.random.default_rng(0)
    for _ in range(50):
        bench.feed(rng.bytes(240))
        bench.run(0.05)
    (down,) = bench.events(LinkDown)
    assert down.reason == "10 kB and no valid frame: wrong baud rate or format?"


def test_a_board_that_does_not_hear_is_told_from_a_dead_one(make_bench):
    bench = make_bench()
    bench.to_board = lambda _: b""
    bench.run(10.0)
    (down,) = bench.events(LinkDown)
    assert "does not answer: does it receive?" in down.reason


def test_a_schema_that_never_fits_its_fingerprint_is_said(make_bench):
    bench = make_bench()
    asked = []
    bench.to_board = lambda wire: asked.append(wire) or wire

    class Lying(bytes):
        def __getitem__(self, index):
            return b"x" * 90

    bench.firmware._wire = Lying(bench.firmware._wire)
    bench.run(6.0)
    (down,) = bench.events(LinkDown)
    assert "does not finish the handshake" in down.reason
    assert sum(map(bool, asked)) < 200


def test_time_that_explains_no_gap_is_a_jump(make_bench, schema):
    """At 10 kHz the numbers wrap within 6.6 s, but a jump of 4 s is no gap of 65,536."""
    bench = make_bench(schema=Schema(schema.channels, 10_000.0))
    bench.run(0.2)
    bench.board_zero_s -= 4.0
    bench._next_sample_us += 4_000_000
    bench.run(0.2)
    assert len(bench.events(EpochChanged)) == 1
    assert bench.events(Gap) == []


def test_modem_commands_do_not_disturb_either_end(make_bench, rows):
    bench = make_bench()
    bench.to_host = lambda wire: b"AT\r" + wire
    bench.to_board = lambda wire: b"AT\r" + wire if wire else b""
    bench.run(1.0)
    np.testing.assert_array_equal(bench.values(), rows[: bench.n_given])


def test_high_rates_travel_in_batches(make_bench, rows, schema):
    bench = make_bench(schema=Schema(schema.channels, 10_000.0))
    bench.run(0.5)
    assert bench.counts.frames_good < bench.n_given / 9
    n = len(bench.values())
    np.testing.assert_array_equal(bench.values(), rows[:n])
    np.testing.assert_allclose(np.diff(bench.times()), 1e-4, atol=1e-5)


def test_board_counters_reach_the_statistics(make_bench):
    bench = make_bench()
    bench.run(0.5)
    bench.firmware.note_no_room()
    bench.run(1.0)
    assert bench.counts.board_dropped_samples == 1


def test_ping_keeps_the_clock_locked(make_bench):
    bench = make_bench()
    bench.run(0.3)
    assert bench.clock.is_locked
    assert bench.clock.round_trip_s == 0.0


def test_no_item_repeats_or_steps_back_under_random_loss(make_bench, rows):
    bench = make_bench()
    rng = np.random.default_rng(3)

    def spoil(wire):
        spoilt = bytearray(wire)
        if rng.random() < 0.1:
            spoilt[rng.integers(len(spoilt))] ^= 1 << int(rng.integers(8))
        return bytes(spoilt)

    bench.to_host = spoil
    bench.run(20.0, step_s=0.002)
    blocks = [i for i in bench.items if isinstance(i, SampleBlock)]
    assert len(bench.events(LinkUp)) == 1
    assert bench.counts.lost_samples == sum(g.n_missing for g in bench.events(Gap))
    seqs = bench.seqs()
    assert seqs == sorted(set(seqs))
    np.testing.assert_array_equal(bench.values(), rows[seqs])
    assert (np.diff(np.concatenate([b.t_s for b in blocks])) > 0).all()


def test_time_goes_on_over_jumps_and_wraps(make_bench):
    bench = make_bench()
    bench.board_zero_s = bench.now_s - (2**32 - 200_000) * 1e-6
    bench.run(0.5)
    bench.board_zero_s -= 7.0
    bench._next_sample_us += 7_000_000
    bench.run(1.0)
    assert len(bench.events(EpochChanged)) == 1


def test_answers_to_an_earlier_host_are_not_ours(make_bench):
    bench = make_bench()
    bench.run(0.02)
    bench.to_board = lambda _: b""
    bench.run(0.06)  # a ping is open now
    bench.clock.reset()
    for token in range(20):
        bench.feed(m.encode_message(m.Pong(token, 123456), t_us=123456))
    bench.feed(m.encode_message(m.Ack(1, 1, 6, b""), epoch=77))
    assert not bench.clock.is_locked
    bench.to_board = lambda wire: wire
    bench.run(0.5)
    assert abs(bench.clock.round_trip_s) < 1e-6
    assert abs(np.diff(bench.times()) - 0.01).max() < 1e-6
    assert len(bench.events()) == 1


def test_a_welcome_to_another_host_is_not_ours(make_bench):
    bench = make_bench()
    bench.to_board = lambda _: b""
    bench.run(0.01)
    bench.feed(m.encode_message(m.Welcome(0, 5, 6, 0, 1, 2, 3, 1024, nonce=12345)))
    bench.to_board = lambda wire: wire
    bench.run(0.5)
    assert bench.events(LinkUp)


def test_a_doubled_handshake_reads_the_schema_once(make_bench):
    wide = Schema.of([(f"channel_{i}", "mm/s") for i in range(20)], 100.0)
    bench = make_bench(schema=wide)
    bench.samples = iter(np.zeros((1000, 20), np.float32))
    bench.to_host = lambda wire: wire + wire
    bench.run(0.5)
    assert bench.events() == [LinkUp(bench.items[0].t_s, "bench", wide)]
    assert bench.counts.duplicate_samples == bench.counts.samples == bench.n_given
