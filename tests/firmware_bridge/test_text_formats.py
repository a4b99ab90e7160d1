"""What boards print, beside plain CSV: pairs, JSON, Teleplot, NMEA, MAVLink; and their rate."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import EpochChanged, FormatError, Gap, LinkUp, SampleBlock, Schema, SchemaError
from firmware_bridge import formats as formats_module
from firmware_bridge.clock import DeviceClock
from firmware_bridge.formats import FORMATS, new_session
from firmware_bridge.formats.arrival import ArrivalClock, RateEstimate
from firmware_bridge.formats.csv_text import parse_units, read_table
from firmware_bridge.formats.jsonl import parse_object
from firmware_bridge.formats.pairs import parse_pairs
from firmware_bridge.formats.session import LinkStatistics, SessionSettings
from firmware_bridge.formats.teleplot import parse_line

DATA = os.environ.get("EDGE_GRU_DATA", "")
TEXT = [name for name in FORMATS if name not in ("framed", "mavlink", "nmea")]


class Port:
    """A session fed by hand."""

    def __init__(self, name, expected=None, rate_hz=None):
        self.counts = LinkStatistics()
        settings = SessionSettings(expected, rate_hz)
        self.session = new_session(name, settings, self.counts, DeviceClock())
        self.session.connected(10.0, "port", None)
        self.items = []
        self.now_s = 10.0

    def feed(self, text, after_s=0.01):
        self.now_s += after_s
        wire = text if isinstance(text, bytes) else text.encode()
        self.items += self.session.receive(wire, self.now_s)
        return self

    def values(self):
        blocks = [i.values for i in self.items if isinstance(i, SampleBlock)]
        return np.concatenate(blocks).tolist() if blocks else []

    @property
    def schema(self):
        return next(i for i in self.items if isinstance(i, LinkUp)).schema


# Pairs


@pytest.mark.parametrize(
    "line",
    ["a:1,b:2.5", "a:1\tb:2.5", "a:1 b:2.5", " a: 1 , b : 2.5 ", "a: 1 b: 2.5", "a:1,b:2.5,"],
)
def test_pairs_are_parted_as_plotters_part_them(line):
    assert parse_pairs(line) == {"a": 1, "b": 2.5}


@pytest.mark.parametrize("line", ["1,2", "a:x", "a:1,2", "a:1,a:2", "ready", ":1", "a:", "t:1:2"])
def test_what_is_no_line_of_pairs_is_none(line):
    assert parse_pairs(line) is None


def test_pairs_go_by_name_and_a_line_that_lacks_one_is_refused():
    port = Port("pairs").feed("\na:1,b:2\nb:4,a:3\na:5\nb:7,a:6,c:9\nnonsense\n")
    assert port.values() == [[1, 2], [3, 4], [6, 7]]
    assert port.schema.names == ("a", "b")
    assert port.counts.bad_lines == 2


def test_a_first_line_may_be_cut_in_a_name():
    assert Port("pairs").feed("p:1,hum:2\ntemp:1,hum:2\n").schema.names == ("temp", "hum")


def test_expected_channels_are_picked_by_name():
    port = Port("pairs", Schema.of([("b", "V")])).feed("\na:1,b:2\na:3,b:4\n")
    assert port.values() == [[2], [4]]
    assert port.schema == Schema.of([("b", "V")])
    with pytest.raises(SchemaError, match=r"expected the channels x; the port sends a, b"):
        Port("pairs", Schema.of(["x"])).feed("\n" + "a:1,b:2\n" * 5)


# JSON


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ('{"a": 1, "b": 2.5}', {"a": 1, "b": 2.5}),
        ('{"t": 12, "v": [1, 2]}', {"ch0": 1, "ch1": 2}),
        ('{"id": "x", "ok": true, "a": 1}', {"a": 1}),
        ("{}", None),
        ('{"id": "x"}', None),
        ("[1, 2]", None),
        ('{"a": 1', None),
        ('{"a": NaN}', None),
        ("[" * 3000, None),
        ('{"a":' * 3000, None),
    ],
)
def test_objects_are_read_for_their_numbers(line, values):
    assert parse_object(line) == values


def test_null_is_nan_and_a_missing_name_is_no_row():
    port = Port("jsonl").feed('{"a":1,"b":2}\n{"b":null,"a":3}\n{"a":5}\n{"t":1,"v":[9]}\n')
    np.testing.assert_array_equal(port.values(), [[1, 2], [3, np.nan]])
    assert port.counts.bad_lines == 2


# Teleplot


@pytest.mark.parametrize(
    ("line", "reading"),
    [
        (">temp:23.5", ("temp", "", [23.5])),
        (">temp:1627551892437:23.5§degC", ("temp", "degC", [23.5])),
        (">temp:1:2;3:4§V|np", ("temp", "V", [2, 4])),
        (">a:1;2;3", ("a", "", [1, 2, 3])),
        (">trajectory:1:2|xy", ("trajectory", "", [2])),
        (">state:on|t", None),
        ("temp:23.5", None),
        (">temp:", None),
        (">temp:x", None),
        (">3D|cube:P:1:1:1", None),
        ("ordinary text", None),
    ],
)
def test_teleplot_lines(line, reading):
    assert parse_line(line) == reading


def test_a_row_is_complete_with_its_last_variable():
    port = Port("teleplot").feed(">a:1§V\n>b:2\n>a:3\n")
    assert port.values() == [[1, 2]]
    assert port.feed(">b:4\n").values() == [[1, 2], [3, 4]]  # not when the next round begins
    assert port.schema == Schema.of([("a", "V"), "b"])


def test_a_round_with_a_lost_variable_is_no_row_and_counted():
    port = Port("teleplot").feed(">a:1\n>b:2\n>a:3\n>b:4\n>a:5\n>a:6\n>b:7\n")
    assert port.values() == [[1, 2], [3, 4], [6, 7]]
    assert port.counts.bad_lines == 1


# Units, Edge Impulse


def test_a_line_of_units_belongs_to_the_names_before_it(tmp_path):
    for units in ("g,g,degC", "[g],[g],[degC]", "(g),(g),(degC)", "g, g, degC"):
        text = f"x,y,temp\n{units}\n1,2,3\n4,5,6\n"
        port = Port("csv").feed(text)
        assert port.schema == Schema.of([("x", "g"), ("y", "g"), ("temp", "degC")])
        assert port.values() == [[1, 2, 3], [4, 5, 6]]
        assert port.counts.frames_bad == 0
        (tmp_path / "t.csv").write_text(text)
        assert read_table(tmp_path / "t.csv")[0] == port.schema.channels


def test_names_are_not_taken_for_units():
    assert parse_units(["a", "b"]) is None
    assert parse_units(["", ""]) is None
    assert Port("csv").feed("hello,you\na,b\n1,2\n").schema.names == ("a", "b")


def test_the_header_again_is_a_restart_with_units_too():
    port = Port("csv").feed("a,b\nV,A\n1,2\na,b\nV,A\n3,4\n")
    kinds = [type(i) for i in port.items]
    assert kinds == [LinkUp, SampleBlock, EpochChanged, SampleBlock]
    assert port.counts.bad_lines == 0


def test_edge_impulse_lines_have_no_names():
    port = Port("edge-impulse").feed("\nready,steady\n1,2\n3\t4\n5,6\n")
    assert port.schema == Schema.unnamed(2)
    assert port.values() == [[1, 2], [3, 4], [5, 6]]
    assert port.counts.bad_lines == 1


# Rate


def test_the_rate_of_a_timer_is_found_within_seconds_and_smooths_the_times():
    port = Port("csv").feed("a\n")
    rng = np.random.default_rng(1)
    begun_s = port.now_s
    times = []
    for k in range(1, 1001):
        arrives_s = begun_s + k * 0.01 + rng.exponential(0.002)
        port.feed(f"{k}\n", max(arrives_s - port.now_s, 1e-5))
        port.items += port.session.tick(port.now_s)
        times.append(port.items[-1].t_s[-1] if isinstance(port.items[-1], SampleBlock) else 0)
    assert port.counts.rate_hz == pytest.approx(100.0, rel=0.01)
    assert np.diff(times[-300:]).std() < 0.0006  # they arrived with 0.002
    port.feed("1\n", after_s=1.0)
    (gap,) = [i for i in port.items if isinstance(i, Gap)]
    assert gap.n_missing == pytest.approx(99, abs=2)


def test_what_prints_when_something_happens_has_no_rate_and_no_gaps():
    port = Port("csv").feed("a\n")
    rng = np.random.default_rng(2)
    for k in range(500):
        port.feed(f"{k}\n", rng.exponential(0.3))
        port.session.tick(port.now_s)
    assert port.counts.rate_hz == 0.0
    assert not any(isinstance(i, Gap) for i in port.items)


def test_a_stall_and_its_burst_leave_the_rate_alone():
    clock = ArrivalClock(None)
    now_s = 5.0
    for _ in range(1000):
        now_s += 0.01
        clock.stamp(1, now_s)
    assert clock.estimated_hz == pytest.approx(100, rel=0.01)
    n_missing, times = clock.stamp(50, now_s + 0.5)
    assert n_missing == 0
    np.testing.assert_allclose(np.diff(times), 0.01, rtol=0.02)


def test_a_burst_read_in_pieces_is_no_gap_before_it_is_read_to_its_end():
    """After a stall of a second a terminal hands over 4095 bytes at a time."""
    wire = "".join(f"{k:07d}\n" for k in range(1500)).encode()
    port = Port("csv", rate_hz=1000.0).feed("a\n")
    port.feed(wire[:80])
    for start in range(80, 8 * 1100, 4095):
        port.feed(wire[start : min(start + 4095, 8 * 1100)], after_s=1.09 if start == 80 else 1e-4)
    assert not any(isinstance(i, Gap) for i in port.items)
    assert len(port.values()) == 1100
    port.feed(wire[8 * 1400 :], after_s=0.4)
    (gap,) = [i for i in port.items if isinstance(i, Gap)]
    assert gap.n_missing == pytest.approx(300, abs=15)


def test_a_rate_needs_some_seconds_that_agree():
    estimate = RateEstimate()
    for k in range(500):
        estimate.note(1, k * 0.01)
    assert estimate.rate_hz is None
    for k in range(500, 700):
        estimate.note(1, k * 0.01)
    assert estimate.rate_hz == pytest.approx(100, rel=0.01)
    for k in range(200):
        estimate.note(1, 7 + k * 0.02)
    assert estimate.rate_hz is None


# All of them


@pytest.mark.parametrize("name", TEXT)
def test_lines_are_marked_unverified(name):
    wire = {
        "pairs": "\na:1\na:2\n",
        "jsonl": '{"a":1}\n',
        "teleplot": ">a:1\n>a:2\n",
    }.get(name, "\n1\n2\n")
    (up,) = [i for i in Port(name).feed(wire).items if isinstance(i, LinkUp)]
    assert up.is_verified is False


TYPICAL = """1,2
a,b
V,A
a:1,b:2
b:3 a:4
{"a":1}
{"v":[1]}
>a:1
>b:2|g
$GPGLL,,,,,,V,N*64
"""
lines = st.sampled_from([*TYPICAL.encode().splitlines(keepends=True), b"\xfd\x09\x00"])


@pytest.mark.parametrize("name", [*TEXT, "nmea", "mavlink"])
@given(parts=st.lists(st.binary(max_size=30) | lines, max_size=30))
def test_any_bytes_never_raise_and_any_split_gives_the_same_values(name, parts):
    pytest.importorskip({"nmea": "pynmea2", "mavlink": "pymavlink"}.get(name, "numpy"))
    whole, pieces = Port(name), Port(name)
    stream = b"".join(parts)
    whole.feed(stream)
    for i in range(0, len(stream), 3):
        pieces.feed(stream[i : i + 3])
    np.testing.assert_array_equal(np.array(pieces.values()), np.array(whole.values()))
    assert pieces.counts.frames_good == whole.counts.frames_good
    if name != "mavlink":  # its library skips bytes by the chunk
        assert pieces.counts.frames_bad == whole.counts.frames_bad


def test_a_format_whose_library_is_missing_says_what_to_install(monkeypatch):
    def fail(module):
        raise ModuleNotFoundError("No module named 'pynmea2'", name="pynmea2")

    monkeypatch.setattr(formats_module, "import_module", fail)
    with pytest.raises(FormatError, match=r"nmea needs pynmea2; pip install 'edge-gru\[nmea\]'"):
        Port("nmea")


# NMEA


CAPTURES = ["gpsd_bundg_zeus_9.log", "gpsd_haicom-305N.log", "gpsd_neo-m8n.log", "gpsd_sounder.log"]
N_SENTENCES = 5861


@pytest.mark.skipif(not DATA, reason="EDGE_GRU_DATA does not name the folder of recordings")
def test_every_valid_sentence_of_real_receivers_is_taken_and_no_other():
    pytest.importorskip("pynmea2", reason="edge-gru[nmea] is not installed")
    n_good = n_rows = 0
    for name in CAPTURES:
        wire = (Path(DATA) / "serial" / name).read_bytes() + b"\n"
        port = Port("nmea")
        for i in range(0, len(wire), 997):
            port.feed(wire[i : i + 997])
        n_good += port.counts.frames_good
        n_rows += port.counts.samples
        assert port.counts.bad_lines == 0
        spoilt = Port("nmea").feed(wire.replace(b"*", b"1*"))
        assert spoilt.counts.frames_good < 0.02 * port.counts.frames_good or not spoilt.values()
    assert n_good == N_SENTENCES
    assert n_rows > 500


def with_sum(body):
    total = 0
    for byte in body.encode():
        total ^= byte
    return f"${body}*{total:02X}\r\n"


def test_sentences_become_rows_of_the_channels_asked_for():
    pytest.importorskip("pynmea2", reason="edge-gru[nmea] is not installed")
    expected = Schema.of(["DPT.depth", "HDG.heading"])
    port = Port("nmea", expected).feed("# a comment\n")
    for k in range(4):
        port.feed(with_sum(f"SDDPT,{5 + k}.5,0.4,") + with_sum(f"SDHDG,{100 + k}.0,,,1.3,E"))
    port.feed(with_sum("SDDPT,1.0,0.4,").replace("*", "0*"))
    assert port.values() == [[5.5, 100], [6.5, 101], [7.5, 102]]
    assert port.counts.bad_lines == 1
    assert port.counts.frames_good == 8


def test_positions_are_degrees():
    pytest.importorskip("pynmea2", reason="edge-gru[nmea] is not installed")
    port = Port("nmea", Schema.of(["GLL.lat", "GLL.lon"]))
    for _ in range(3):
        port.feed(with_sum("GPGLL,5230.000,S,01315.000,W,120000,A,A"))
    assert port.values()[0] == [-52.5, -13.25]


# MAVLink


def test_mavlink_messages_become_rows_and_spoilt_ones_count():
    common = pytest.importorskip(
        "pymavlink.dialects.v20.common", reason="edge-gru[mavlink] is not installed"
    )
    packer = common.MAVLink(None)
    port = Port("mavlink", Schema.of(["ATTITUDE.roll", "HIGHRES_IMU.xacc"]))
    for k in range(6):
        attitude = packer.attitude_encode(k, 0.1 * k, 0, 0, 0, 0, 0).pack(packer)
        imu = packer.highres_imu_encode(k, k, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0).pack(packer)
        if k == 3:
            imu = imu[:-1] + bytes([imu[-1] ^ 1])
        port.feed(attitude + imu)
    roll, acceleration = np.array(port.values()).T
    np.testing.assert_allclose(roll, [0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert acceleration.tolist() == [0, 1, 2, 2, 4]  # the spoilt one left the newest value
    assert port.counts.frames_good == 11
    assert port.counts.bad_check >= 1
