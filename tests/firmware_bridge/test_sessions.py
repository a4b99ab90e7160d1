"""What holds for every format a port may speak."""

import importlib.util
import inspect

import numpy as np
import pytest

from firmware_bridge import FormatError, LinkDown, LinkUp, SampleBlock
from firmware_bridge.clock import DeviceClock
from firmware_bridge.formats import FORMATS, new_session
from firmware_bridge.formats.session import LinkStatistics, Session, SessionSettings
from firmware_bridge.simulator.text_firmware import PRINTERS

LIBRARIES = {"nmea": "pynmea2", "mavlink": "pymavlink"}


def needs(extra):
    """Skip where the library of an optional format is not installed."""
    is_missing = bool(extra) and importlib.util.find_spec(LIBRARIES[extra]) is None
    return pytest.mark.skipif(is_missing, reason=f"edge-gru[{extra}] is not installed")


every_format = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(row.extra)) for name, row in FORMATS.items()]
)
every_simulated = pytest.mark.parametrize("name", ["framed", *PRINTERS])


@every_simulated
def test_samples_follow_the_link_up_and_are_exact(make_bench, rows, name):
    bench = make_bench(name)
    bench.run(1.0)
    assert isinstance(bench.items[0], LinkUp)
    n = len(bench.values())
    assert n > 90
    np.testing.assert_array_equal(bench.values(), rows[:n])
    assert bench.seqs() == list(range(n))
    assert bench.counts.samples == n
    assert bench.values().dtype == np.float32


@every_simulated
def test_blocks_are_whole_and_times_rise(make_bench, name):
    bench = make_bench(name)
    bench.run(1.0)
    for block in bench.items[1:]:
        assert isinstance(block, SampleBlock)
        assert len(block.t_s) == len(block.seq) == len(block.values) == len(block)
    assert (np.diff(bench.times()) > 0).all()


@every_simulated
def test_expected_schema_is_the_schema_of_the_link(make_bench, schema, name):
    bench = make_bench(name, expected=schema)
    bench.run(0.5)
    assert bench.events(LinkUp)[0].schema == schema


def held_by(thing, depth=3):
    """Return the bytes and lists that an object and its parts hold."""
    for value in vars(thing).values():
        if isinstance(value, bytes | bytearray | list):
            yield value
        elif depth and hasattr(value, "__dict__") and not isinstance(value, type):
            yield from held_by(value, depth - 1)


@every_format
def test_garbage_never_raises_and_is_not_kept(name):
    counts = LinkStatistics()
    session = new_session(name, SessionSettings(), counts, DeviceClock())
    session.connected(0.0, "port", None)
    rng = np.random.default_rng(1)
    for step in range(500):
        filler = [rng.bytes(4095), b"\0" * 4095, b"\xff" * 4095, b"AT\r", b"\n" * 9][step % 5]
        session.receive(filler, step * 0.01)
        session.tick(step * 0.01)
        session.take_outgoing()
    assert counts.bytes_read == 100 * (3 * 4095 + 3 + 9)
    assert sum(map(len, held_by(session))) < 5000


@every_format
def test_silence_is_one_link_down_after_three_seconds(name):
    session = new_session(name, SessionSettings(), LinkStatistics(), DeviceClock())
    session.connected(100.0, "port", None)
    items = []
    for tenth in range(100):
        new = session.tick(100 + tenth / 10)
        items += [(tenth, item) for item in new]
    ((tenth, item),) = items
    assert isinstance(item, LinkDown)
    assert 30 <= tenth <= 33
    assert "alive" in item.reason


@every_simulated
def test_a_hang_up_in_mid_line_leaves_nothing_behind(make_bench, rows, name):
    bench = make_bench(name)
    bench.run(0.3)
    bench.feed(b"\x05\x01,77.5")
    bench.items += bench.session.disconnected(bench.now_s, "unplugged")
    n = bench.n_given
    bench.session.connected(bench.now_s, "bench", None)
    bench.feed(bench.firmware.boot(bench.t_us) + bench.firmware.greet(bench.t_us))
    bench.run(0.5)
    assert [type(e) for e in bench.events()] == [LinkUp, LinkDown, LinkUp]
    assert bench.counts.frames_bad == 0
    np.testing.assert_array_equal(bench.values()[n:], rows[n : len(bench.values())])


@every_format
def test_sessions_have_the_promised_methods(name):
    session = new_session(name, SessionSettings(), LinkStatistics(), DeviceClock())
    promised = [n for n, _ in inspect.getmembers(Session, inspect.isfunction) if n[0] != "_"]
    assert len(promised) >= 6
    assert all(callable(getattr(session, method)) for method in promised)
    assert session.wake_at_s < 10


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(FormatError, match=r"framed, csv, pairs, .* got 'morse'"):
        new_session("morse", SessionSettings(), LinkStatistics(), DeviceClock())
