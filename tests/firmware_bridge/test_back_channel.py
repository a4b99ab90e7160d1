"""The way back: predictions, alarms and control requests reach the board, or are counted."""

import threading

import numpy as np
import pytest

from firmware_bridge import (
    EpochChanged,
    FormatError,
    Link,
    LinkDown,
    LinkUp,
    ProtocolError,
    SchemaError,
)
from firmware_bridge.formats.requests import PendingRequest
from firmware_bridge.link.reader import Reader
from firmware_bridge.protocol import messages as m
from firmware_bridge.protocol.board_schema import BoardChannel, BoardSchema, RateRange
from firmware_bridge.simulator import SimulatedBoard
from firmware_bridge.simulator.firmware import FramedFirmware


def prediction(epoch, *outputs, seq=7, flags=0):
    values = np.array(outputs, "<f4").tobytes()
    return m.encode_message(m.Prediction(seq, flags, len(outputs), values), epoch=epoch)


def streaming(make_bench, **settings):
    bench = make_bench(**settings)
    bench.run(0.5)
    assert bench.events(LinkUp)
    return bench


def streaming_at_any_rate(make_bench):
    board = BoardSchema((BoardChannel("a"),), "<f4", RateRange(1.0, 5000.0))
    bench = make_bench(firmware=FramedFirmware(board), rate_hz=100.0)
    bench.samples = iter(np.zeros((50_000, 1), np.float32))
    bench.run(0.5)
    return bench


def ask(bench, command, arguments=b"", rate_hz=None, duration_s=0.5):
    pending = PendingRequest(command, arguments, rate_hz)
    bench.session.back_channel.ask(pending)
    bench.run(duration_s)
    return pending


def test_link_up_and_epoch_changed_name_the_epoch_predictions_belong_to(make_bench):
    bench = streaming(make_bench)
    assert bench.events(LinkUp)[0].epoch == bench.firmware._epoch
    bench.feed(bench.firmware.boot(bench.t_us))
    bench.run(0.5)
    assert bench.events(EpochChanged)[0].epoch == bench.firmware._epoch


def test_a_prediction_reaches_the_board_with_its_sample(make_bench):
    bench = streaming(make_bench)
    epoch = bench.firmware._epoch
    assert bench.session.back_channel.put_prediction(prediction(epoch, 0.25, -2.0, seq=41))
    bench.run(0.01)
    got = bench.firmware.prediction
    assert (got.seq, got.n_values) == (41, 2)
    assert np.frombuffer(got.values, "<f4").tolist() == [0.25, -2.0]


def test_a_prediction_of_an_earlier_stream_is_ignored_by_the_board(make_bench):
    bench = streaming(make_bench)
    bench.session.back_channel.put_prediction(prediction(bench.firmware._epoch - 1, 1.0))
    bench.run(0.01)
    assert bench.firmware.prediction is None


def test_a_newer_prediction_overtakes_a_waiting_one_and_that_is_counted(make_bench):
    bench = streaming(make_bench)
    epoch = bench.firmware._epoch
    for i in range(5):
        bench.session.back_channel.put_prediction(prediction(epoch, float(i)))
    bench.run(0.01)
    assert np.frombuffer(bench.firmware.prediction.values, "<f4").tolist() == [4.0]
    assert bench.counts.unsent_predictions == 4


def test_predictions_leave_half_of_a_uart_to_others(make_bench):
    bench = streaming(make_bench, baud=115200)
    sent = bytearray()
    bench.to_board = lambda wire: sent.extend(wire) or wire
    for _ in range(2000):
        bench.session.back_channel.put_prediction(prediction(bench.firmware._epoch, 1.0, 2.0))
        bench.run(0.001)
    assert 0.4 < len(sent) * 10 / 115200 / 2 < 0.52
    assert bench.counts.unsent_predictions > 1000


def test_without_a_stream_a_prediction_is_refused_and_counted(make_bench):
    bench = make_bench()
    assert not bench.session.back_channel.put_prediction(prediction(1, 0.0))
    assert bench.counts.unsent_predictions == 1
    bench.run(0.5)
    assert bench.firmware.prediction is None


def test_what_waits_when_the_port_hangs_up_is_counted_and_never_sent(make_bench):
    bench = streaming(make_bench)
    bench.session.back_channel.put_prediction(prediction(bench.firmware._epoch, 0.0))
    bench.session.disconnected(bench.now_s, "unplugged")
    assert bench.counts.unsent_predictions == 1
    assert bench.session.back_channel.take(bench.now_s) == b""


def test_a_prediction_from_before_an_unplug_is_not_sent_after_it(make_bench):
    bench = streaming(make_bench)
    frame = prediction(bench.firmware._epoch, 0.0)
    bench.session.back_channel.put_prediction(frame)
    bench.items += bench.session.disconnected(bench.now_s, "unplugged")
    bench.session.connected(bench.now_s, "bench", None)
    sent = bytearray()
    bench.to_board = lambda wire: sent.extend(wire) or wire
    bench.run(0.5)
    assert len(bench.events(LinkUp)) == 2
    assert frame not in bytes(sent)


def test_the_reading_thread_is_woken_once_for_what_it_takes_at_once(make_bench):
    bench = streaming(make_bench)
    wakes = []
    bench.session.back_channel.wake = lambda: wakes.append(1)
    for n_wakes in (1, 2, 3):
        bench.session.back_channel.put_prediction(prediction(bench.firmware._epoch, 0.0))
        bench.session.back_channel.set_alarms(n_wakes)
        assert len(wakes) == n_wakes
        bench.run(0.01)


def test_an_alarm_is_said_at_once_and_again_after_a_lost_frame(make_bench):
    bench = streaming(make_bench)
    bench.to_board = lambda _: b""
    bench.session.back_channel.set_alarms(0b101)
    bench.run(0.1)
    bench.to_board = lambda wire: wire
    bench.run(0.5)
    assert bench.firmware.alarms == 0
    bench.run(0.6)
    assert bench.firmware.alarms == 0b101
    bench.session.back_channel.set_alarms(0)
    bench.run(0.01)
    assert bench.firmware.alarms == 0


def test_a_board_that_restarts_is_told_its_alarms_again(make_bench):
    bench = streaming(make_bench)
    bench.session.back_channel.set_alarms(2)
    bench.run(0.1)
    bench.feed(bench.firmware.boot(bench.t_us))
    assert bench.firmware.alarms == 0
    bench.run(0.5)
    assert bench.firmware.alarms == 2


def test_no_alarm_frames_go_to_a_board_whose_host_sets_none(make_bench):
    bench = make_bench()
    sent = bytearray()
    bench.to_board = lambda wire: sent.extend(wire) or wire
    bench.run(3.0)
    alarm = m.encode_message(m.Alarm(0))
    assert alarm not in bytes(sent)


def test_the_boards_status_shows_that_its_alarm_is_lit(make_bench):
    bench = streaming(make_bench)
    bench.run(1.0)
    assert not bench.session.back_channel.status.flags & m.FLAG_ALARM_LIT
    bench.session.back_channel.put_prediction(
        prediction(bench.firmware._epoch, 1.0, flags=m.PREDICTION_HAS_ALARM)
    )
    bench.run(1.1)
    status = bench.session.back_channel.status
    assert status.flags & m.FLAG_ALARM_LIT
    assert status.n_predictions == 1


@pytest.mark.parametrize("command", [m.Command.IDENTIFY, m.Command.RESET])
def test_a_granted_request_returns(make_bench, command):
    assert ask(streaming(make_bench), command).wait(0) == b""


def test_a_refused_request_says_what_and_why(make_bench):
    bench = streaming(make_bench)
    with pytest.raises(ProtocolError, match="refused SET: not supported"):
        ask(bench, m.Command.SET, b"\1").wait(0)
    with pytest.raises(ProtocolError, match="refused 0x80: unknown command"):
        ask(bench, 0x80).wait(0)


def test_an_answer_to_another_request_is_not_taken_for_this_one(make_bench):
    bench = streaming(make_bench)
    bench.to_board = lambda _: b""
    pending = ask(bench, m.Command.IDENTIFY, duration_s=0.1)
    bench.feed(m.encode_message(m.Ack(200, m.Command.IDENTIFY, 0, b"")))
    with pytest.raises(ProtocolError, match="did not answer"):
        pending.wait(0)


def test_requests_are_asked_one_after_the_other(make_bench):
    bench = streaming(make_bench)
    asked = [PendingRequest(m.Command.IDENTIFY, bytes([i])) for i in range(5)]
    for pending in asked:
        bench.session.back_channel.ask(pending)
    bench.run(0.1)
    assert [pending.wait(0) for pending in asked] == [b""] * 5


def test_a_request_whose_ack_is_lost_is_acted_upon_once(make_bench):
    bench = streaming_at_any_rate(make_bench)
    epoch = bench.firmware._epoch
    bench.firmware.lose_acks(2)
    ask(bench, m.Command.START, rate_hz=50.0, duration_s=1.0).wait(0)
    assert bench.firmware._epoch == (epoch + 1) % 256


def test_a_request_never_answered_fails_after_its_tries(make_bench):
    bench = streaming(make_bench)
    asked = []

    def without_requests(wire):
        is_request = b"\x33" in wire[:3]  # version 1, kind 19, behind delimiter and COBS code
        asked.append(is_request)
        return b"" if is_request else wire

    bench.to_board = without_requests
    pending = ask(bench, m.Command.IDENTIFY, duration_s=2.0)
    assert sum(asked) == 4
    with pytest.raises(ProtocolError, match="IDENTIFY failed: the board does not answer"):
        pending.wait(0)
    assert bench.events(LinkDown) == []


def test_an_abandoned_request_is_not_asked_any_more(make_bench):
    bench = make_bench()
    pending = PendingRequest(m.Command.STOP)
    bench.session.back_channel.ask(pending)
    with pytest.raises(ProtocolError, match="did not answer the command STOP"):
        pending.wait(0)
    bench.run(1.0)
    assert bench.firmware.is_streaming


def test_a_restart_of_the_board_fails_the_request_under_way(make_bench):
    bench = streaming(make_bench)
    bench.to_board = lambda _: b""
    pending = ask(bench, m.Command.IDENTIFY, duration_s=0.01)
    bench.feed(bench.firmware.boot(bench.t_us))
    with pytest.raises(ProtocolError, match="the board restarted"):
        pending.wait(0)


def test_another_rate_is_a_new_stream_at_that_rate_and_stays(make_bench):
    bench = streaming_at_any_rate(make_bench)
    ask(bench, m.Command.START, rate_hz=5000.0).wait(0)
    assert bench.firmware.period_us == 200
    np.testing.assert_allclose(np.diff(bench.times()[-50:]), 0.0002, rtol=0.1)
    assert [type(e) for e in bench.events()] == [LinkUp, LinkDown, LinkUp]
    assert bench.events(LinkDown)[0].reason == "the host started it anew"
    assert bench.events(LinkUp)[-1].schema.rate_hz == 5000.0
    bench.feed(bench.firmware.boot(bench.t_us))
    bench.run(0.5)
    assert bench.firmware.period_us == 200
    assert bench.counts.lost_samples == bench.counts.frames_bad == 0


def test_a_rate_that_is_not_offered_changes_nothing(make_bench):
    bench = streaming(make_bench)
    n_items = len(bench.events())
    with pytest.raises(SchemaError, match="offers 100 Hz"):
        ask(bench, m.Command.START, rate_hz=33.0).wait(0)
    bench.run(0.5)
    assert len(bench.events()) == n_items
    assert bench.firmware.period_us == 10_000


def test_a_stopped_board_is_no_fault_until_it_is_started(make_bench):
    bench = streaming(make_bench)
    ask(bench, m.Command.STOP).wait(0)
    n_given = bench.n_given
    bench.run(10.0)
    assert bench.n_given == n_given
    assert bench.events(LinkDown) == []
    assert bench.counts.resyncs == 0
    ask(bench, m.Command.START).wait(0)
    assert bench.n_given > n_given
    assert [type(e) for e in bench.events()] == [LinkUp, EpochChanged]
    bench.samples = iter(())
    bench.run(4.0)
    assert "sends no samples" in bench.events(LinkDown)[0].reason


def test_a_board_told_to_reset_comes_back_as_a_new_stream(make_bench):
    bench = streaming(make_bench)
    boot_id = bench.firmware._boot_id
    ask(bench, m.Command.RESET).wait(0)
    assert bench.firmware._boot_id == boot_id + 1
    assert "restarted" in bench.events(EpochChanged)[0].reason


# Over a real pty, from other threads


@pytest.fixture
def firmware(source):
    return FramedFirmware(BoardSchema.of(source.schema))


@pytest.fixture
def board(source, firmware):
    with SimulatedBoard(source, firmware=firmware) as made:
        yield made


def test_a_link_sends_what_the_model_says(board, firmware, open_link):
    got = open_link(board.port).until_samples(10)
    link = got.link
    got.until(lambda _: link.send_prediction(70_003, [0.5, 1.5], is_warming_up=True))
    got.until(lambda _: firmware.prediction is not None)
    assert firmware.prediction[:3] == (70_003 % 65_536, m.PREDICTION_WARMING_UP, 2)
    link.set_alarms(4)
    got.until(lambda _: firmware.alarms == 4)
    link.send_prediction(1, np.float32([2.0]))
    got.until(lambda _: firmware.prediction.flags == m.PREDICTION_HAS_ALARM)
    got.until(lambda _: link.board_status and link.board_status.flags & m.FLAG_ALARM_LIT)
    assert link.statistics.unsent_predictions == 0


def test_what_is_to_be_sent_does_not_wait_for_the_next_sample(board, monkeypatch):
    wakes = []
    monkeypatch.setattr(Reader, "wake", lambda _: wakes.append(1))
    link = Link(board.port)
    link.set_alarms(1)
    assert wakes == [1]


def test_outputs_beyond_the_boards_room_are_left_out(board, firmware, open_link, caplog):
    got = open_link(board.port).until_samples(10)
    for _ in range(2):
        got.link.send_prediction(0, np.arange(300))
    got.until(lambda _: firmware.prediction is not None)
    assert firmware.prediction.n_values == 252
    assert caplog.text.count("252 of the model's 300 outputs") == 1


def test_a_link_controls_from_many_threads_at_once(board, open_link):
    got = open_link(board.port).until_samples(10)
    results = []

    def work():
        for _ in range(20):
            result = got.link.control(m.Command.IDENTIFY, b"\1", timeout_s=10)
            results.append(result)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b""] * 80
    got.until_samples(100)
    assert got.events() == [got.items[0]]
    assert got.link.statistics.frames_bad == got.link.statistics.lost_samples == 0


def test_a_link_stops_and_starts_its_board(board, firmware, open_link):
    got = open_link(board.port).until_samples(10)
    got.link.control(m.Command.STOP)
    assert not firmware.is_streaming
    got.link.set_rate(1000.0)
    got.until_event(EpochChanged)
    got.until_samples(10)


def test_a_stopped_link_takes_nothing_for_the_board_any_more(board, open_link):
    got = open_link(board.port).until_samples(10)
    got.link.stop()
    got.until(lambda c: c.link.finished)
    assert not got.link.send_prediction(0, [1.0])
    assert got.link.statistics.unsent_predictions == 1
    with pytest.raises(ProtocolError, match="did not answer"):
        got.link.control(m.Command.IDENTIFY, timeout_s=0.01)
    got.link.close()
    got.link.set_alarms(1)


@pytest.mark.parametrize(
    "act",
    [
        lambda link: link.send_prediction(0, [1.0]),
        lambda link: link.set_alarms(1),
        lambda link: link.control(m.Command.STOP),
    ],
)
def test_a_format_without_a_way_back_says_so(source, open_link, act):
    with SimulatedBoard(source, format="csv") as board:
        got = open_link(board.port, format="csv")
        with pytest.raises(FormatError, match="csv has no way back"):
            act(got.link)
        assert got.link.board_status is None


def test_a_board_that_does_not_read_costs_bytes_that_are_counted_and_no_sample(source, open_link):
    with SimulatedBoard(source) as board:
        got = open_link(board.port).until_samples(10)
        board._port.read = bytes  # nothing, ever
        got.until(
            lambda c: (
                c.link.send_prediction(0, np.zeros(200))
                and c.link.statistics.unwritten_bytes > 0
                and c.n_samples > 500
            )
        )
    assert got.link.statistics.lost_samples == got.link.statistics.frames_bad == 0
