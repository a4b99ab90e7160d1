"""The simulated board as a shipped instrument: settings, sources, faults."""

import os
import select

import numpy as np
import pytest

from firmware_bridge import FormatError, PortError, Schema, SchemaError
from firmware_bridge.simulator import ReplaySource, SimulatedBoard


def test_replay_gives_its_rows_once_or_for_ever(rows, schema):
    assert np.array(list(ReplaySource(rows[:5], schema))).tolist() == rows[:5].tolist()
    endless = iter(ReplaySource(rows[:2], schema, loop=True))
    got = [next(endless) for _ in range(5)]
    np.testing.assert_array_equal(got, rows[[0, 1, 0, 1, 0]])


@pytest.mark.parametrize("shape", [(4,), (4, 2), (0, 3)])
def test_replay_of_another_shape_is_refused(schema, shape):
    with pytest.raises(SchemaError, match=r"expected samples of shape \(T, 3\)"):
        ReplaySource(np.zeros(shape), schema)


def test_replay_needs_a_rate(rows, schema):
    with pytest.raises(SchemaError, match="rate"):
        ReplaySource(rows, Schema(schema.channels))


def test_replay_of_a_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a [g];b\n1;2\n3;4\n")
    source = ReplaySource.from_csv(path, 50.0)
    assert source.schema == Schema.of([("a", "g"), "b"], 50.0)
    assert source.samples.tolist() == [[1, 2], [3, 4]]


def test_the_link_is_there_while_the_board_is(source, tmp_path):
    path = tmp_path / "sensor"
    board = SimulatedBoard(source, link_path=path)
    assert not path.exists()
    with board:
        assert board.port == str(path)
        assert os.path.realpath(path).startswith("/dev/pts/")
        board.unplug()
        assert not path.is_symlink()
        board.unplug()
        board.replug()
        board.replug()
        assert path.exists()
    assert not path.is_symlink()
    board.stop()


def test_a_stale_link_is_replaced_but_a_file_is_not(source, tmp_path):
    path = tmp_path / "sensor"
    path.symlink_to("/dev/pts/9999")
    with SimulatedBoard(source, link_path=path):
        assert path.exists()
    path.write_text("mine")
    with pytest.raises(PortError, match="is no link"):
        SimulatedBoard(source, link_path=path).start()
    assert path.read_text() == "mine"


def test_settings_that_make_no_sense_are_refused(source):
    with pytest.raises(
        FormatError, match="framed, csv, pairs, jsonl, teleplot, edge-impulse, got 'nmea'"
    ):
        SimulatedBoard(source, format="nmea")
    with pytest.raises(FormatError, match="raw types"):
        SimulatedBoard(source, dtype="f16")
    with (
        pytest.raises(FormatError, match="one that prints has no lost-ack"),
        SimulatedBoard(source, format="csv") as board,
    ):
        board.inject("lost-ack")
    with pytest.raises(PortError, match="is off"):
        SimulatedBoard(source).restart()


def test_a_board_nobody_reads_drops_whole_frames_and_counts_them(rows, schema):
    fast = ReplaySource(rows[:20_000], Schema(schema.channels, 50_000.0))
    with SimulatedBoard(fast, format="csv") as board:
        reader = os.open(board.port, os.O_RDWR | os.O_NOCTTY)
        try:
            assert board.wait(0.0) is False
            board._order(lambda: None)
            deadline = 200
            while board.n_sent + board.n_dropped < 20_000 and deadline:
                deadline -= not board.wait(0.1)
            assert board.n_dropped > 0
            assert board.n_sent + board.n_dropped == 20_000
            lines = b""
            while (ready := select.select([reader], [], [], 0.05)[0]) or not board.wait(0.0):
                lines += os.read(reader, 4096) if ready else b""
        finally:
            os.close(reader)
    printed = lines.split(b"\r\n")[1:-1]
    assert all(line.count(b",") == 2 for line in printed)


def test_a_second_board_leaves_the_link_of_the_first_alone(source, tmp_path):
    path = tmp_path / "sensor"
    with SimulatedBoard(source, link_path=path):
        device = path.readlink()
        with pytest.raises(PortError, match="another simulated board's"):
            SimulatedBoard(source, link_path=path).start()
        assert path.readlink() == device
    assert not path.is_symlink()


def test_a_link_that_cannot_be_made_is_one_sentence(source, tmp_path):
    with pytest.raises(PortError, match="cannot make the link"):
        SimulatedBoard(source, link_path=tmp_path / "absent" / "sensor").start()
