"""Lines as boards print them: separators, headers, units, junk; and what Arduinos really sent."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import EpochChanged, Gap, LinkDown, LinkUp, SampleBlock, Schema, SchemaError
from firmware_bridge.clock import DeviceClock
from firmware_bridge.formats import new_session
from firmware_bridge.formats.arrival import ArrivalClock
from firmware_bridge.formats.csv_text import parse_header, parse_numbers, read_table, split_fields
from firmware_bridge.formats.session import LinkStatistics, SessionSettings
from firmware_bridge.sample import Channel


class Session:
    def __init__(self, expected=None, rate_hz=None):
        self.counts = LinkStatistics()
        settings = SessionSettings(expected, rate_hz)
        self.session = new_session("csv", settings, self.counts, DeviceClock())
        self.session.connected(10.0, "port", None)
        self.items = []
        self.now_s = 10.0

    def feed(self, text, after_s=0.01):
        self.now_s += after_s
        wire = text if isinstance(text, bytes) else text.encode()
        self.items += self.session.receive(wire, self.now_s)
        return self

    def wait(self, duration_s):
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            self.now_s += 0.1
            self.items += self.session.tick(self.now_s)

    def values(self):
        blocks = [i.values for i in self.items if isinstance(i, SampleBlock)]
        return np.concatenate(blocks).tolist() if blocks else []

    def events(self, kind):
        return [i for i in self.items if isinstance(i, kind)]


@pytest.mark.parametrize("line", ["1,2.5,-3", "1;2.5;-3", "1\t2.5\t-3", "1 2.5  -3", "1, 2.5 ,-3,"])
def test_every_separator(line):
    assert parse_numbers(split_fields(line)) == [1, 2.5, -3]


def test_what_is_no_finite_number_becomes_nan():
    values = parse_numbers(["nan", "inf", "-INF", "ovf", " NaN ", "1e3"])
    assert values is not None
    assert np.isnan(values[:5]).all()
    assert values[5] == 1000.0


@pytest.mark.parametrize("fields", [["1", ""], ["1", "x"], ["ready"], ["1,5", "2"], ["inf", "x"]])
def test_text_is_no_sample(fields):
    assert parse_numbers(fields) is None


def test_header_gives_names_and_units():
    assert parse_header(["vib_x [g]", " temp [degC]", "n"]) == (
        Channel("vib_x", "g"),
        Channel("temp", "degC"),
        Channel("n"),
    )
    assert parse_header(["1", "2"]) is None
    assert parse_header(["a", "a"]) is None
    assert parse_header(["a", ""]) is None


def test_header_lines_blank_lines_and_crlf():
    session = Session().feed("a [g],b\r\n\r\n1,2\r\n\n   \n3,4\r\n")
    assert session.values() == [[1, 2], [3, 4]]
    (up,) = session.events(LinkUp)
    assert up.schema == Schema.of([("a", "g"), "b"])
    assert session.counts.frames_bad == 0


def test_first_line_may_be_cut_and_is_not_trusted():
    session = Session().feed("3.25,7\n1,2\n")
    assert session.values() == [[1, 2]]
    assert session.counts.frames_bad == 0


def test_count_is_fixed_by_the_first_full_line_and_bad_lines_are_counted():
    session = Session().feed("0,0\n1,2\n1,2,3\n3\nx,y,z\n4,5\n1,\xb5\n")
    assert session.values() == [[1, 2], [4, 5]]
    assert session.counts.bad_lines == 4
    assert session.counts.samples == session.counts.frames_good == 2


def test_greetings_before_the_header_are_ignored():
    session = Session().feed("Booting v1.2, please wait\nSensor ok\nx,y\n1,2\n")
    assert session.values() == [[1, 2]]
    assert session.events(LinkUp)[0].schema.names == ("x", "y")


def test_lines_over_4_kb_are_discarded_up_to_their_end():
    session = Session().feed("a,b\n1,2\n")
    for _ in range(50):
        session.feed(b"9" * 65536)
        assert len(session.session._parser._rest) <= 4096
    session.feed("\n3,4\n" + "5" * 5000 + ",5\n6,7\n")
    assert session.values() == [[1, 2], [3, 4], [6, 7]]
    assert session.counts.long_lines == 2


def test_expected_columns_are_compared_with_the_header():
    expected = Schema.of([("a", "g"), ("b", "V")])
    assert Session(expected).feed("a [g],b\n1,2\n").events(LinkUp)[0].schema == expected
    for header in ("b,a", "a [m/s2],b", "a,c"):
        with pytest.raises(SchemaError, match=r"expected the columns a \[g\], b \[V\]"):
            Session(expected).feed(f"x\n{header}\n1,2\n")


def test_a_header_joined_in_the_middle_is_no_mismatch():
    expected = Schema.of(["vib_x", "vib_y"])
    assert Session(expected).feed("ib_x,vib_y\n1,2\n").values() == [[1, 2]]


def test_expected_count_without_a_header():
    expected = Schema.of(["a", "b"])
    session = Session(expected).feed("0,0\n1,2,3\n1,2\n3,4\n")
    assert session.values() == [[1, 2], [3, 4]]
    with pytest.raises(SchemaError, match=r"expected 2 columns .*the port sends 3"):
        Session(expected).feed("0\n" + "1,2,3\n" * 5)


def test_header_again_says_that_the_board_restarted():
    session = Session().feed("a,b\n1,2\n3,4\na,b\n5,6\n")
    kinds = [type(i) for i in session.items]
    assert kinds == [LinkUp, SampleBlock, EpochChanged, SampleBlock]
    assert session.items[-1].seq.tolist() == [0]


def test_silence_is_down_once_and_lines_are_up_again():
    session = Session().feed("a,b\n1,2\n")
    session.wait(10)
    session.feed("3,4\n")
    assert [type(i) for i in session.items if not isinstance(i, SampleBlock)] == [
        LinkUp,
        LinkDown,
        LinkUp,
    ]


def test_slow_boards_are_not_silent():
    session = Session(rate_hz=0.2).feed("a,b\n1,2\n")
    for _ in range(3):
        session.wait(5)
        session.feed("1,2\n")
    assert session.events(LinkDown) == []


def test_wrong_baud_rate_is_suspected():
    session = Session()
    for _ in range(25):
        session.feed(bytes(range(128, 255)) * 4)
        session.wait(0.1)
    (down,) = session.events(LinkDown)
    assert "no line of numbers: wrong baud rate or format?" in down.reason


@given(st.lists(st.binary(max_size=40) | st.just(b"1,2\n") | st.just(b"a,b\n"), max_size=30))
def test_any_bytes_never_raise_and_any_split_gives_the_same_values(parts):
    whole, pieces = Session(), Session()
    stream = b"".join(parts)
    whole.feed(stream)
    for i in range(0, len(stream), 3):
        pieces.feed(stream[i : i + 3])
    np.testing.assert_array_equal(np.array(pieces.values()), np.array(whole.values()))
    assert pieces.counts == whole.counts


def test_known_rate_smooths_arrival():
    clock = ArrivalClock(100.0)
    rng = np.random.default_rng(0)
    late_s = rng.exponential(0.003, 500)
    times = np.concatenate([clock.stamp(1, 5 + i * 0.01 + late_s[i])[1] for i in range(500)])
    steps = np.diff(times)
    assert (steps > 0).all()
    assert steps[100:].std() < 0.001 < late_s.std()


def test_a_burst_is_spread_back_and_is_no_gap():
    clock = ArrivalClock(100.0)
    clock.stamp(1, 5.0)
    n_missing, times = clock.stamp(50, 5.5)
    assert n_missing == 0
    np.testing.assert_allclose(times, 5.0 + 0.01 * np.arange(1, 51), atol=1e-9)


def test_a_pause_is_a_gap_where_the_rate_is_known():
    session = Session(rate_hz=100.0).feed("a\n1\n")
    session.feed("2\n", after_s=1.0)
    assert [g.n_missing for g in session.events(Gap)] == [99]
    assert session.items[-1].seq.tolist() == [100]
    unknown = Session().feed("a\n1\n").feed("2\n", after_s=1.0)
    assert unknown.events(Gap) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 0.3)), max_size=30), st.booleans())
def test_times_rise_strictly(arrivals, is_rate_known):
    clock = ArrivalClock(50.0 if is_rate_known else None)
    now_s, last_s = 100.0, 0.0
    for n, after_s in arrivals:
        now_s += after_s
        times = clock.stamp(n, now_s)[1]
        assert times[0] > last_s
        assert (np.diff(times) > 0).all()
        last_s = times[-1]


def test_tables_are_read_or_the_line_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a [g],b\n1,2\n\n3,nan\n")
    channels, samples = read_table(path)
    assert channels == (Channel("a", "g"), Channel("b"))
    np.testing.assert_array_equal(samples, np.array([[1, 2], [3, np.nan]], np.float32))
    for text, reason in (("a,b\n1,2\n3\n", "line 3"), ("", "none"), ("a,b\n", "none")):
        path.write_text(text)
        with pytest.raises(SchemaError, match=reason):
            read_table(path)


DATA = os.environ.get("EDGE_GRU_DATA", "")
RECORDINGS = {
    "arduino_apds9960_apple.csv": ("Red", "Green", "Blue"),
    "arduino_nano33_flex.csv": ("aX", "aY", "aZ", "gX", "gY", "gZ"),
    "arduino_nano33_punch.csv": ("aX", "aY", "aZ", "gX", "gY", "gZ"),
}


@pytest.mark.skipif(not DATA, reason="EDGE_GRU_DATA does not name the folder of recordings")
@pytest.mark.parametrize("name", RECORDINGS)
def test_what_arduinos_printed_is_read_in_full(name):
    path = Path(DATA) / "serial" / name
    channels, table = read_table(path)
    assert tuple(c.name for c in channels) == RECORDINGS[name]
    session = Session()
    text = path.read_bytes()
    for i in range(0, len(text), 61):
        session.feed(text[i : i + 61])
    session.feed("\n")
    np.testing.assert_array_equal(np.array(session.values(), np.float32), table)
    assert session.events(LinkUp)[0].schema.names == RECORDINGS[name]
    assert session.counts.frames_bad == 0
    assert len(table) > 60
