"""The C library as a board: against the same session, and against its own promises."""

import ctypes
import struct

import numpy as np
import pytest

from firmware_bridge import EpochChanged, LinkDown, LinkUp, ProtocolError, Schema, SchemaError
from firmware_bridge.formats.requests import PendingRequest
from firmware_bridge.framing import HEADER, FrameDecoder, encode_frame
from firmware_bridge.protocol import messages as m

SCHEMA = b'{"channels":[{"name":"a"},{"name":"b"}]}'


def messages(stream, schema=SCHEMA):
    """Return what a host reads in a stream: messages, and the bodies of samples."""
    decoder = FrameDecoder()
    decoder.learn(schema)
    found = [m.decode_message(body) or body for body in decoder.feed(stream)]
    counts = decoder.counts
    assert counts.bad_code == counts.bad_check == counts.bad_length == 0
    return found


def tell(board, message, **header):
    """Let the board read a message; return what it answers."""
    wire = m.encode_message(message, **header)
    board.receive(wire, len(wire))
    board.poll()
    return messages(board.sent())


def start(board, period_us=1000, n_per_frame=1, request_id=1):
    (answer,) = tell(
        board, m.Request(request_id, m.Command.START, struct.pack("<IB", period_us, n_per_frame))
    )
    return answer


@pytest.fixture
def board(make_board):
    made = make_board(SCHEMA, 8)
    made.boot(7, 5000)
    made.sent()
    return made


# In conversation with the host's session


def test_the_session_streams_from_it_in_order(make_bench, make_firmware, rows, schema):
    bench = make_bench(firmware=make_firmware(), expected=schema)
    bench.run(3.0)
    assert bench.events() == [LinkUp(bench.items[0].t_s, "bench", schema)]
    np.testing.assert_array_equal(bench.values(), rows[: bench.n_given])
    assert bench.counts.frames_bad == bench.counts.lost_samples == bench.counts.resyncs == 0
    assert bench.clock.is_locked


def test_samples_share_frames_above_a_thousand_a_second(make_bench, make_firmware, rows, schema):
    fast = Schema(schema.channels, 5000.0)
    bench = make_bench(firmware=make_firmware(fast))
    bench.run(1.0)
    n = len(bench.values())
    np.testing.assert_array_equal(bench.values(), rows[:n])
    assert n > 4900
    assert bench.counts.frames_good < n / 4
    assert bench.counts.lost_samples == 0


def test_a_restart_is_a_new_epoch(make_bench, make_firmware):
    firmware = make_firmware()
    bench = make_bench(firmware=firmware)
    bench.run(0.5)
    bench.feed(firmware.boot(bench.t_us))
    bench.run(0.5)
    assert [type(e) for e in bench.events()] == [LinkUp, EpochChanged]
    assert bench.events(EpochChanged)[0].epoch == firmware.epoch


def test_what_is_lost_in_the_handshake_is_asked_again(make_bench, make_firmware):
    bench = make_bench(firmware=make_firmware())
    n_messages = iter(range(10**9))
    bench.to_board = lambda wire: wire if not wire or next(n_messages) % 3 else b""
    bench.run(5.0)
    assert bench.events(LinkUp)
    assert bench.events(LinkDown) == []


def test_another_model_is_refused_by_name(make_bench, make_firmware):
    bench = make_bench(firmware=make_firmware(), expected=Schema.of(["pressure"], 100.0))
    with pytest.raises(SchemaError, match="pressure; the board sends vib"):
        bench.run(1.0)


def test_predictions_and_alarms_arrive(make_bench, make_firmware):
    firmware = make_firmware()
    bench = make_bench(firmware=firmware)
    bench.run(0.5)
    back = bench.session.back_channel
    outputs = np.float32([0.5, -1.25, np.pi])
    message = m.Prediction(41, m.PREDICTION_WARMING_UP, 3, outputs.tobytes())
    back.put_prediction(m.encode_message(message, epoch=firmware.epoch))
    back.set_alarms(0x80000001)
    bench.run(1.2)
    board = firmware.board
    assert (board.prediction_seq(), board.prediction_flags()) == (41, m.PREDICTION_WARMING_UP)
    np.testing.assert_array_equal(board.outputs(), outputs)
    assert board.alarms() & 0xFFFFFFFF == 0x80000001
    assert board.n_alarm_calls() == 1
    assert back.status.flags & m.FLAG_ALARM_LIT
    assert back.status.n_predictions == 1
    back.set_alarms(0)
    bench.run(1.2)
    assert not board.alarm_is_lit()
    assert not back.status.flags & m.FLAG_ALARM_LIT


def test_requests_are_answered_with_their_results(make_bench, make_firmware):
    bench = make_bench(firmware=make_firmware())
    bench.run(0.5)

    def ask(command, arguments=b""):
        pending = PendingRequest(command, arguments)
        bench.session.back_channel.ask(pending)
        bench.run(0.2)
        return pending.wait(0)

    assert ask(m.FIRST_OWN_COMMAND, b"echo") == b"echo"
    assert ask(m.Command.IDENTIFY, b"\1") == b""
    with pytest.raises(ProtocolError, match="not supported"):
        ask(m.Command.SET, b"\1\2")
    with pytest.raises(ProtocolError, match="0x81: unknown command"):
        ask(m.FIRST_OWN_COMMAND + 1)
    ask(m.Command.RESET)
    bench.run(0.5)
    assert "restarted" in bench.events(EpochChanged)[0].reason


# Message by message


def test_boot_is_the_first_word(make_board):
    board = make_board(SCHEMA, 8)
    board.boot(9, 123)
    assert messages(board.sent()) == [m.Received(m.Boot(9, 3, 1, 1), 9 * 97 % 256, 0, 123)]


@pytest.mark.parametrize(
    ("lowest", "highest", "proto"), [(1, 1, 1), (1, 9, 1), (2, 9, 0), (0, 0, 0)]
)
def test_hello_of_an_old_or_new_host_is_answered_with_the_range(board, lowest, highest, proto):
    (answer,) = tell(board, m.Hello(lowest, highest, 77))
    welcome = answer.message
    assert (welcome.proto, welcome.proto_min, welcome.proto_max) == (proto, 1, 1)
    assert (welcome.nonce, welcome.boot_id, welcome.n_schema_bytes) == (77, 7, len(SCHEMA))


def test_the_schema_is_read_by_offset(board):
    read = b""
    while len(read) < len(SCHEMA):
        (answer,) = tell(board, m.ReadSchema(len(read), 17))
        assert answer.message.offset == len(read)
        read += answer.message.part
    assert read == SCHEMA
    assert tell(board, m.ReadSchema(len(SCHEMA), 17)) == []


def test_a_ping_is_answered_with_its_token_and_both_times(board):
    board.set_time(6000)
    (answer,) = tell(board, m.Ping(2**60 + 5), seq=513)
    assert answer == m.Received(m.Pong(2**60 + 5, 6000), answer.epoch, 513, 6000)


@pytest.mark.parametrize(("period_us", "n_per_frame"), [(0, 1), (1000, 0), (600_000_001, 1)])
def test_a_senseless_start_is_refused(board, period_us, n_per_frame):
    assert start(board, period_us, n_per_frame).message.status == m.AckStatus.BAD_ARGUMENT
    assert not board.is_streaming()


def test_a_rate_above_the_boards_is_refused(board):
    board.set_limits(500, 0)
    assert start(board, 499).message.status == m.AckStatus.RATE_TOO_HIGH
    assert start(board, 500, request_id=2).message.status == m.AckStatus.OK


def test_the_program_can_refuse_a_start(board):
    board.refuse(m.AckStatus.FAILED)
    epoch = board.epoch()
    assert start(board).message.status == m.AckStatus.FAILED
    assert (board.is_streaming(), board.epoch()) == (False, epoch)


def test_a_repeated_request_is_answered_again_and_acted_upon_once(board):
    first = start(board)
    again = start(board)
    assert again.message == first.message
    assert board.epoch() == first.epoch == again.epoch
    assert board.n_command_calls() == 1
    tell(board, m.Hello(1, 1, 0))
    assert start(board).epoch == first.epoch + 1


def test_start_names_the_period_in_force_and_the_new_epoch(board):
    before = board.epoch()
    answer = start(board, 12_345)
    assert answer.message.result == struct.pack("<I", 12_345)
    assert answer.epoch == (before + 1) % 256
    assert board.period_us() == 12_345


def test_stop_sends_the_samples_that_waited(board):
    start(board, n_per_frame=10)
    board.sample(1, bytes(8))
    board.sample(2, bytes(8))
    body, ack = tell(board, m.Request(2, m.Command.STOP, b""))
    assert len(body) == 8 + 16 + 4
    assert ack.message.status == m.AckStatus.OK
    assert not board.sample(3, bytes(8))


def test_a_reset_is_wanted_once_its_ack_is_out(board):
    wire = m.encode_message(m.Request(1, m.Command.RESET, b""))
    board.receive(wire, len(wire))
    board.poll()
    assert not board.reset_is_wanted()
    assert messages(board.sent())[0].message.status == m.AckStatus.OK
    assert board.reset_is_wanted()


def test_status_comes_every_second_and_counts(board):
    start(board)
    board.receive(b"\x05\x05\x05\x00" + encode_frame(31, b""), 4 + 14)
    board.sample(1, bytes(8))
    board.sent()
    board.set_time(1_005_000)
    board.poll()
    (answer,) = messages(board.sent())
    status = answer.message
    assert (status.boot_id, status.uptime_s, status.n_samples) == (7, 1, 1)
    assert (status.n_rx_bad, status.n_rx_good) == (1, 2)
    assert status.flags == m.FLAG_STREAMING
    board.set_sensor_fault(True)
    board.set_time(4_005_000)
    board.poll()
    (answer,) = messages(board.sent())
    assert answer.message.uptime_s == 4
    assert answer.message.flags == m.FLAG_STREAMING | m.FLAG_SENSOR_FAULT


def test_a_full_ring_drops_whole_frames_and_counts_them(make_board):
    board = make_board(SCHEMA, 8, n_tx_bytes=128)
    board.boot(1, 0)
    board.sent()
    start(board)
    sent = [board.sample(i, struct.pack("<2f", i, -i)) for i in range(10)]
    n_sent = sum(sent)
    assert sent == [True] * n_sent + [False] * (10 - n_sent)
    assert 0 < n_sent < 10
    bodies = messages(board.sent())
    assert [body[2] for body in bodies] == list(range(n_sent))
    board.sample(10, bytes(8))
    assert [body[2] for body in messages(board.sent())] == [10]
    assert board.n_dropped() == 10 - n_sent


def test_a_batch_is_cut_to_what_the_ring_holds(make_board):
    board = make_board(SCHEMA, 8, n_tx_bytes=128)
    board.boot(1, 0)
    board.sent()
    start(board, n_per_frame=255)
    n_samples = 0
    while not (stream := board.sent()):
        assert board.sample(n_samples, bytes(8))
        n_samples += 1
    assert len(messages(stream)[0]) == 8 + 8 * n_samples + 4
    assert n_samples == (128 - 24) // 8


def header(body):
    """Return kind, epoch, seq and t_us of a body."""
    kind, epoch, seq, t_us = HEADER.unpack_from(body)
    return kind & 31, epoch, seq, t_us


@pytest.mark.parametrize(("n_sample_bytes", "kind"), [(64, m.Kind.DATA), (65, m.Kind.BATCH)])
def test_a_sample_above_64_bytes_has_the_longer_check(make_board, n_sample_bytes, kind):
    board = make_board(SCHEMA, n_sample_bytes)
    board.boot(1, 0)
    board.sent()
    start(board)
    board.sample(3, bytes(n_sample_bytes))
    assert header(messages(board.sent())[0]) == (kind, board.epoch(), 0, 3)


def test_samples_in_one_frame_have_the_number_and_time_of_the_first(board):
    start(board, n_per_frame=3)
    for i in range(6):
        board.sample(100 + i, struct.pack("<2f", i, -i))
    first, second = messages(board.sent())
    assert header(first) == (m.Kind.BATCH, board.epoch(), 0, 100)
    assert header(second) == (m.Kind.BATCH, board.epoch(), 3, 103)
    assert struct.unpack_from("<6f", second, 8) == (3, -3, 4, -4, 5, -5)


def test_a_frame_that_is_dropped_counts_with_all_its_samples(make_board):
    board = make_board(SCHEMA, 8, n_tx_bytes=128)
    board.boot(1, 0)
    board.sent()
    start(board, n_per_frame=5)
    for i in range(20):
        board.sample(i, bytes(8))
    assert len(messages(board.sent())) == 2
    assert (board.n_samples(), board.n_dropped()) == (20, 10)


def test_a_new_start_begins_from_nothing(board):
    start(board, n_per_frame=3)
    for i in range(4):
        board.sample(i, b"\x11" * 8)
    board.sent()
    start(board, n_per_frame=3, request_id=2)
    assert board.n_samples() == 0
    for i in range(3):
        board.sample(i, b"\x22" * 8)
    (body,) = messages(board.sent())
    assert header(body) == (m.Kind.BATCH, board.epoch(), 0, 0)
    assert body[8:-4] == b"\x22" * 24


def test_samples_around_missed_ones_do_not_share_a_frame(board):
    board.set_limits(0, 500)
    start(board, 1000, n_per_frame=4)
    t_us = ctypes.c_uint32()
    for now_us in (5000, 6000, 9100):
        board.set_time(now_us)
        assert board.sample_due(ctypes.byref(t_us))
        board.sample(t_us.value, bytes(8))
    (before,) = messages(board.sent())
    assert header(before) == (m.Kind.BATCH, board.epoch(), 0, 5000)
    assert len(before) == 8 + 16 + 4
    (after, _) = tell(board, m.Request(2, m.Command.STOP, b""))
    assert header(after) == (m.Kind.DATA, board.epoch(), 4, 9000)
    assert (board.n_samples(), board.n_missed()) == (5, 2)


def test_no_frame_has_more_samples_than_a_byte_can_count(make_board):
    board = make_board(SCHEMA, 1)
    board.boot(1, 0)
    board.sent()
    start(board, n_per_frame=255)
    assert all(board.sample(i, b"\1") for i in range(255))
    assert len(messages(board.sent())[0]) == 8 + 255 + 4


def test_status_tells_how_full_the_ring_was(board):
    start(board)
    board.sample(1, bytes(8))
    board.sample(2, bytes(8))
    n_waiting = len(board.sent())
    board.set_time(1_005_000)
    board.poll()
    (answer,) = messages(board.sent())
    assert answer.message.ring_high_water == n_waiting


def test_bytes_without_room_are_counted_as_overrun(board):
    board.receive(b"\x01" * 5000, 5000)
    assert board.n_rx_overrun() == 5000 - 4096
    board.poll()
    assert board.n_rx_good() == 0
    (answer,) = tell(board, m.Hello(1, 1, 3))
    assert answer.message.nonce == 3


def test_samples_are_due_at_their_nominal_instants(board):
    start(board, 1000)
    due = []
    t_us = ctypes.c_uint32()
    for now_us in range(5000, 10_001, 300):
        board.set_time(now_us)
        while board.sample_due(ctypes.byref(t_us)):
            due.append(t_us.value)
    assert due == [5000, 6000, 7000, 8000, 9000]
    assert board.n_missed() == 0


def test_samples_are_due_across_the_wrap_of_the_timer(make_board):
    board = make_board(SCHEMA, 8)
    board.boot(1, 2**32 - 2500)
    board.sent()
    start(board, 1000)
    due = []
    t_us = ctypes.c_uint32()
    for step_us in range(0, 5000, 500):
        board.set_time((2**32 - 2500 + step_us) % 2**32)
        while board.sample_due(ctypes.byref(t_us)):
            due.append(t_us.value)
    assert due == [(2**32 - 2500 + 1000 * i) % 2**32 for i in range(5)]


@pytest.mark.parametrize(
    ("late_us", "n_missed", "next_us"),
    [(200, 0, 0), (700, 1, None), (4600, 5, None), (4200, 4, 4000)],
)
def test_samples_that_are_too_late_are_missed_and_numbered(board, late_us, n_missed, next_us):
    board.set_limits(0, 500)
    start(board, 1000)
    board.set_time(5000 + late_us)
    t_us = ctypes.c_uint32()
    is_due = board.sample_due(ctypes.byref(t_us))
    assert (t_us.value - 5000 if is_due else None) == next_us
    assert board.n_missed() == board.n_samples() == n_missed


def test_a_host_is_alive_for_three_seconds_after_its_last_word(board):
    assert not board.host_is_alive()
    tell(board, m.Ping(1))
    board.set_time(5000 + 2_999_999)
    board.poll()
    assert board.host_is_alive()
    board.set_time(5000 + 3_000_000)
    board.poll()
    assert not board.host_is_alive()


def test_a_prediction_of_another_stream_is_ignored(board):
    message = m.Prediction(1, m.PREDICTION_HAS_ALARM, 1, bytes(4))
    tell(board, message, epoch=board.epoch())
    assert board.n_predictions() == 0  # nothing streams
    start(board)
    tell(board, message, epoch=board.epoch() - 1)
    assert board.n_predictions() == 0
    tell(board, message._replace(n_values=2), epoch=board.epoch())
    assert board.n_predictions() == 0  # its length contradicts itself
    tell(board, message, epoch=board.epoch())
    assert board.n_predictions() == 1
    assert board.alarm_is_lit()
    tell(board, m.Alarm(0))
    assert not board.alarm_is_lit()


def test_a_line_for_people_is_sent(board):
    assert board.log(4, b"brown-out")
    assert messages(board.sent())[0].message == m.Log(4, b"brown-out")
    assert board.log(4, b"x" * 500)
    assert len(messages(board.sent())[0].message.text) == 200


def test_blocks_for_dma_are_the_same_bytes(board):
    start(board)
    for i in range(300):  # past the end of the ring
        board.sample(i, struct.pack("<2f", i, i))
        room = ctypes.create_string_buffer(8192)
        n_bytes = board.transmit_blocks(room)
        (body,) = messages(room.raw[:n_bytes])
        assert struct.unpack_from("<2f", body, 8) == (i, i)


@pytest.mark.parametrize(
    ("n_sample_bytes", "n_tx_bytes"), [(0, 4096), (1013, 4096), (8, 100), (8, 64), (1000, 512)]
)
def test_a_configuration_without_sense_is_refused(make_board, n_sample_bytes, n_tx_bytes):
    assert not make_board(SCHEMA, n_sample_bytes, n_tx_bytes=n_tx_bytes).boot(1, 0)
