"""What was recorded comes back bit by bit, also from a file that a crash has cut."""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

from firmware_bridge import (
    EpochChanged,
    FormatError,
    Gap,
    LinkDown,
    LinkUp,
    SampleBlock,
    Schema,
    SchemaError,
)
from firmware_bridge.recording import (
    Recorder,
    Recording,
    ReplayLink,
    SampleTable,
    read_samples,
    write_samples,
)
from firmware_bridge.recording import library as library_module
from firmware_bridge.recording import recorder as recorder_module
from firmware_bridge.simulator import SimulatedBoard
from firmware_bridge.simulator.player import BytePlayer, RecordedSource

mcap_reader = pytest.importorskip("mcap.reader", reason="edge-gru[record] is not installed")

SCHEMA = Schema.of([("vib", "g"), "flow"], 100.0)


def block(first, n, read_s, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 2)).astype(np.float32)
    values[0] = [np.float32(1e-45), np.float32(3.4028235e38)]
    return SampleBlock(read_s - rng.random(n), np.arange(first, first + n), values, read_s)


def odd_items():
    """Items of every kind, with every kind of number."""
    spoilt = block(20, 3, 7.25, 3)
    spoilt.values[1] = [np.nan, np.inf]
    spoilt.values[2] = [-np.inf, -0.0]
    return [
        LinkDown(1.0, "no such port"),
        LinkUp(2.1, "/dev/ttyACM0", SCHEMA, is_verified=False),
        block(0, 5, 0.1 + 0.2),
        block(5, 4, 5.5, 1),
        Gap(6.0, 11),
        spoilt,
        EpochChanged(7.5, 98, "restarted"),
        block(0, 2, 8.0, 4),
    ]


def assert_same(got, expected):
    assert [type(i) for i in got] == [type(i) for i in expected]
    for mine, theirs in zip(got, expected, strict=True):
        if isinstance(mine, SampleBlock):
            assert mine.values.tobytes() == theirs.values.tobytes()
            assert mine.t_s.tobytes() == theirs.t_s.tobytes()
            assert mine.seq.tolist() == theirs.seq.tolist()
            assert mine.read_s == theirs.read_s
        else:
            assert mine == theirs


@pytest.fixture
def recorded(tmp_path):
    """A recording of odd items."""
    path = tmp_path / "odd.mcap"
    with Recorder(path, {"format": "csv"}) as recorder:
        recorder.note_bytes(3.0, b"\x00\xff1,2\n")
        recorder.note_items(odd_items())
        recorder.note_bytes(4.0, b"rest")
    return path


def test_items_and_bytes_come_back_bit_by_bit(recorded):
    recording = Recording(recorded)
    assert_same(list(recording.items()), odd_items())
    assert [chunk.wire for chunk in recording.chunks()] == [b"\x00\xff1,2\n", b"rest"]
    assert [chunk.t_s for chunk in recording.chunks()] == pytest.approx([3.0, 4.0], abs=1e-6)
    assert recording.about["format"] == "csv"
    assert recording.schema == SCHEMA


def test_other_programs_find_json_with_a_schema(recorded):
    make_reader = mcap_reader.make_reader
    with recorded.open("rb") as file:
        summary = make_reader(file).get_summary()
        encodings = {c.topic: c.message_encoding for c in summary.channels.values()}
        assert encodings == {
            "/samples": "json",
            "/events": "json",
            "/bytes": "application/octet-stream",
        }
        assert {s.encoding for s in summary.schemas.values()} == {"jsonschema"}
        messages = list(make_reader(file).iter_messages(topics=["/samples"]))
    schema, _, message = messages[0]
    assert json.loads(schema.data)["properties"]["values"]["properties"]["vib"] == {
        "type": "number",
        "description": "g",
    }
    assert set(json.loads(message.data)) == {"t_s", "seq", "read_s", "values"}
    assert abs(message.log_time * 1e-9 - time.time()) < 1e6 + time.monotonic()


def test_a_live_link_is_recorded_and_replayed_exactly(tmp_path, source, open_link):
    path = tmp_path / "live.mcap"
    with SimulatedBoard(source) as board, Recorder(path) as recorder:
        got = open_link(board.port, recorder=recorder).until_samples(300)
        board.inject("lost=17")
        got.until_event(Gap)
        board.restart()
        got.until_event(EpochChanged)
        got.until_samples(100)
        got.link.stop()
        got.until(lambda c: c.link.finished)
    merged = SampleTable.from_items(got.items)
    with ReplayLink(path) as link:
        items = []
        while not link.finished:
            items.append(link.receive(1.0))
    replayed = SampleTable.from_items(items)
    assert replayed.values.tobytes() == merged.values.tobytes()
    assert replayed.t_s.tobytes() == merged.t_s.tobytes()
    assert replayed.seq.tolist() == merged.seq.tolist()
    assert [e for e in items if not isinstance(e, SampleBlock)] == got.events()
    assert link.statistics.samples == got.n_samples
    assert link.statistics.lost_samples == 17
    assert sum(len(c.wire) for c in Recording(path).chunks()) == got.link.statistics.bytes_read


def test_a_file_cut_anywhere_reads_up_to_the_cut_and_says_so(tmp_path, caplog):
    path = tmp_path / "long.mcap"
    recorder = Recorder(path)
    recorder.open()
    recorder.note_items([LinkUp(0.0, "port", SCHEMA)])
    for turn in range(40):
        recorder.note_items([block(turn * 50, 50, turn + 1.0, turn)])
    recorder.close()
    whole = path.read_bytes()
    n_all = sum(len(i) for i in Recording(path).items() if isinstance(i, SampleBlock))
    assert n_all == 2000
    rng = np.random.default_rng(0)
    counts = []
    for size in [*sorted(rng.integers(9, len(whole), 60).tolist()), len(whole)]:
        cut = tmp_path / "cut.mcap"
        cut.write_bytes(whole[:size])
        caplog.clear()
        samples = [i for i in Recording(cut).items() if isinstance(i, SampleBlock)]
        seqs = [seq for b in samples for seq in b.seq.tolist()]
        assert seqs == list(range(len(seqs)))
        counts.append(len(seqs))
        said = [f"{cut} is cut short: "] if size < len(whole) else []
        assert [m[: len(said[0])] for m in caplog.messages] == said
    assert counts == sorted(counts)
    assert counts[-2] > 0


def test_bytes_that_went_bad_on_the_disk_end_the_reading_and_it_says_so(recorded, caplog):
    whole = recorded.read_bytes()
    n_items = len(list(Recording(recorded).items()))
    assert caplog.messages == []
    for position in range(64, len(whole), 23):
        wire = bytearray(whole)
        wire[position] ^= 0xFF
        recorded.write_bytes(wire)
        caplog.clear()
        if len(list(Recording(recorded).items())) < n_items:
            (said,) = caplog.messages
            assert "is damaged: " in said or "is cut short: " in said
            assert f" of {len(whole)}; what came after is lost" in said


def test_a_recorder_that_is_killed_leaves_what_was_flushed(tmp_path):
    path = tmp_path / "killed.mcap"
    code = f"""
import os, threading
import numpy as np
from firmware_bridge import LinkUp, SampleBlock, Schema
from firmware_bridge.recording import Recorder, recorder
recorder._FLUSH_S = 0.05
made = Recorder({str(path)!r})
made.open()
made.note_items([LinkUp(0.0, "port", Schema.of(["a"]))])
made.note_items([SampleBlock(np.zeros(9), np.arange(9), np.ones((9, 1), np.float32), 1.0)])
threading.Event().wait(0.5)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    items = list(Recording(path).items())
    assert [type(i) for i in items] == [LinkUp, SampleBlock]
    assert len(items[1]) == 9


def test_a_disk_that_stalls_drops_what_is_new_and_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "_MAX_PENDING", 10)
    recorder = Recorder(tmp_path / "x.mcap")
    for _ in range(25):
        recorder.note_bytes(1.0, b"x")
    assert recorder.n_dropped == 15


def test_what_cannot_be_recorded_or_read_is_said(tmp_path, recorded, monkeypatch):
    with pytest.raises(FormatError, match="File exists; choose another file"):
        Recorder(recorded).open()
    with pytest.raises(FormatError, match="No such file"):
        list(Recording(tmp_path / "none.mcap").items())
    (tmp_path / "text.mcap").write_text("a,b\n1,2\n" * 9)
    with pytest.raises(FormatError, match="expected a recording"):
        list(Recording(tmp_path / "text.mcap").items())
    with pytest.raises(FormatError, match="positive speed"):
        ReplayLink(recorded, speed=0)
    with (
        pytest.raises(SchemaError, match=r"expected the channels x; .*odd.mcap has vib"),
        ReplayLink(recorded, schema=Schema.of(["x"])) as link,
    ):
        [link.receive(1) for _ in range(3)]

    def fail(name):
        raise ModuleNotFoundError("No module named 'mcap'", name="mcap")

    monkeypatch.setattr(library_module, "import_module", fail)
    with pytest.raises(FormatError, match=r"need mcap; pip install 'edge-gru\[record\]'"):
        Recorder(tmp_path / "y.mcap").open()


def test_replay_keeps_its_pace(recorded):
    now_s = [100.0]
    link = ReplayLink(recorded, speed=2.0, clock=lambda: now_s[0])
    link.open()
    assert isinstance(link.receive(0), LinkDown)  # recorded at 1.0
    assert link.receive(0) is None  # at 2.1, so 0.55 s from now
    now_s[0] += 0.54
    assert link.receive(0) is None
    now_s[0] += 0.02
    assert isinstance(link.receive(0), LinkUp)
    link.stop()
    assert link.finished
    assert link.receive(0) is None


# Tables


@pytest.mark.parametrize("ending", [".csv", ".npz"])
def test_tables_come_back(tmp_path, recorded, ending):
    table = read_samples(recorded)
    assert table.stream.tolist() == [0] * 12 + [1] * 2
    path = tmp_path / f"table{ending}"
    write_samples(table, path)
    again = read_samples(path)
    assert again.values.tobytes() == table.values.tobytes()
    assert again.t_s.tobytes() == table.t_s.tobytes()
    assert again.seq.tolist() == table.seq.tolist()
    assert again.stream.tolist() == table.stream.tolist()
    assert again.schema.channels == SCHEMA.channels
    kinds = [type(i) for i in again.items()]
    assert kinds == [LinkUp, SampleBlock, Gap, SampleBlock, EpochChanged, SampleBlock]
    assert next(i for i in again.items() if isinstance(i, Gap)).n_missing == 11


def test_files_that_are_no_tables_are_refused(tmp_path, recorded):
    bad = tmp_path / "bad.csv"
    for text, error in (
        ("a,b\n1,2\n", FormatError),
        ("t_s,seq,stream,a\n1,2,3\n", FormatError),
        ("t_s,seq,stream,a\n1,2,3,x\n", FormatError),
        ("t_s,seq,stream,a\n", SchemaError),
        ("", FormatError),
    ):
        bad.write_text(text)
        with pytest.raises(error):
            read_samples(bad)
    (tmp_path / "bad.npz").write_bytes(b"no")
    for name in ("bad.npz", "none.csv", "what.txt"):
        with pytest.raises(FormatError):
            read_samples(tmp_path / name)
    for name in ("x.txt", "absent/x.csv"):
        with pytest.raises(FormatError):
            write_samples(read_samples(recorded), tmp_path / name)
    other = LinkUp(0.0, "port", Schema.of(["x"]))
    with pytest.raises(SchemaError, match="one set of channels"):
        SampleTable.from_items([*odd_items(), other])


# On a port


def test_what_a_board_printed_is_played_byte_by_byte(tmp_path, source, open_link):
    path = tmp_path / "csv.mcap"
    about = {"format": "csv"}
    with SimulatedBoard(source, format="csv") as board, Recorder(path, about) as recorder:
        got = open_link(board.port, format="csv", recorder=recorder).until_samples(300)
        got.link.close()
    sent = b"".join(chunk.wire for chunk in Recording(path).chunks())
    player = BytePlayer(path, link_path=tmp_path / "sensor", speed=math.inf)
    player.plug_in()
    replay_path = tmp_path / "again.mcap"
    with Recorder(replay_path, about) as recorder:
        again = open_link(player.port, format="csv", recorder=recorder)
        player.play()
        again.until_event(LinkDown)
        again.link.close()
    assert b"".join(chunk.wire for chunk in Recording(replay_path).chunks()) == sent
    np.testing.assert_array_equal(again.values(), source.samples[: again.n_samples])
    assert again.n_samples >= 300


def test_a_board_that_spoke_frames_is_played_with_its_gaps(tmp_path, source, open_link):
    path = tmp_path / "framed.mcap"
    with SimulatedBoard(source, faults=[]) as board, Recorder(path) as recorder:
        got = open_link(board.port, recorder=recorder).until_samples(100)
        board.inject("lost=9")
        got.until_event(Gap)
        got.until_samples(100)
        got.link.close()
    n = sum(len(i) for i in Recording(path).items() if isinstance(i, SampleBlock))
    with SimulatedBoard(RecordedSource(path, speed=4.0)) as board:
        again = open_link(board.port).until_samples(n)
    assert [g.n_missing for g in again.events(Gap)] == [9]
    table, other = SampleTable.from_items(got.items), SampleTable.from_items(again.items)
    assert other.values[: len(table.values)].tobytes() == table.values.tobytes()
    with pytest.raises(FormatError, match="positive speed"):
        RecordedSource(path, speed=math.inf)
