"""Readings far beyond the calibration, and channels that repeat one value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gru.manifest import InputRange
from edge_gru.service.plausibility import Plausibility
from firmware_bridge.sample import SampleBlock

NAMES = ("vib", "temp")
LIMITS = InputRange((-1.0, 10.0), (1.0, 30.0))
RATE_HZ = 10.0


def block_of(values, first: int = 0) -> SampleBlock:
    values = np.array(values, np.float32)
    seq = np.arange(first, first + len(values))
    return SampleBlock(seq / RATE_HZ, seq, values, 0.0)


def test_readings_far_beyond_the_calibration_are_counted_and_warned_of_once(caplog):
    watch = Plausibility(NAMES, LIMITS, 0.0)
    watch.look(block_of([[0, 20], [2.0, 40.0], [np.nan, 0.0]]))  # half a span beyond: still inside
    assert watch.outside == {}
    for k in range(2):
        watch.look(block_of([[0, 41], [-2.5, 20], [0, -1]], 3 * k))
    assert watch.outside == {"vib": 2, "temp": 4}
    assert [r.getMessage().split()[0] for r in caplog.records] == ["vib", "temp"]


def test_channel_that_repeats_one_value_is_stuck_until_it_moves(caplog):
    watch = Plausibility(NAMES, LIMITS, 1.0)
    watch.look(block_of([[k, 20] for k in range(10)]))
    assert watch.stuck == ()
    watch.look(block_of([[k, 20] for k in range(10, 12)], 10))
    assert watch.stuck == ("temp",)
    assert "temp has given one value for 1 s" in caplog.text
    watch.look(block_of([[12, 21]], 12))
    assert watch.stuck == ()


def test_new_stream_begins_the_time_anew():
    watch = Plausibility(NAMES, LIMITS, 1.0)
    watch.look(block_of([[0, 20]] * 9))
    watch.begin()
    watch.look(block_of([[0, 20]] * 9, 9))
    assert watch.stuck == ()


def test_nobody_asks_unless_a_time_is_set():
    watch = Plausibility(NAMES, LIMITS, 0.0)
    watch.look(block_of([[0, 20]] * 1000))
    assert watch.stuck == ()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), min_size=1, max_size=40), st.data()
)
def test_how_the_stream_is_cut_into_blocks_changes_nothing(rows, data):
    whole, parts = (Plausibility(NAMES, LIMITS, 0.5) for _ in range(2))
    whole.look(block_of(rows))
    k = 0
    while k < len(rows):
        n = data.draw(st.integers(1, len(rows) - k))
        parts.look(block_of(rows[k : k + n], k))
        k += n
    assert (parts.stuck, parts.outside) == (whole.stuck, whole.outside)


@pytest.mark.parametrize("n", [5, 6])
def test_time_counts_from_the_last_change(n):
    watch = Plausibility(NAMES, LIMITS, 0.5)
    watch.look(block_of([[0, 1], *([[k, 20] for k in range(n)])]))
    assert watch.stuck == (("temp",) if n == 6 else ())
