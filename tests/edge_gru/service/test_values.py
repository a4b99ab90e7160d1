"""Readings that no sensor can have meant: rejected, held or clipped, and never in the state."""

from __future__ import annotations

import numpy as np
import pytest

from edge_gru.manifest import InputRange
from edge_gru.service.values import ValueRepair
from firmware_bridge.sample import SampleBlock

LIMITS = InputRange((-1.0, 0.0), (1.0, 10.0))
NAN, INF = float("nan"), float("inf")


def block(*rows):
    values = np.array(rows, np.float32)
    seq = np.arange(len(values))
    return SampleBlock(seq / 100, seq, values, 1.0)


def test_reject_changes_nothing():
    repair = ValueRepair("reject", LIMITS)
    spoilt = block([NAN, 1], [5, INF])
    assert repair.apply(spoilt) is spoilt
    assert repair.n_repaired == 0


def test_hold_carries_the_last_finite_value_over_blocks():
    repair = ValueRepair("hold", LIMITS)
    first = repair.apply(block([NAN, 1], [0.5, 2], [NAN, 3], [INF, NAN], [0.7, 4]))
    np.testing.assert_array_equal(
        first.values, np.array([[NAN, 1], [0.5, 2], [0.5, 3], [0.5, 3], [0.7, 4]], np.float32)
    )
    assert repair.n_repaired == 2
    second = repair.apply(block([-INF, NAN], [9, 9]))
    np.testing.assert_array_equal(second.values, np.array([[0.7, 4], [9, 9]], np.float32))
    repair.begin()
    assert np.isnan(repair.apply(block([NAN, 1])).values[0, 0])


def test_clip_brings_values_into_the_range_and_leaves_nan():
    repair = ValueRepair("clip", LIMITS)
    clipped = repair.apply(block([1e30, -5], [INF, -INF], [NAN, 20], [0.5, 5]))
    np.testing.assert_array_equal(
        clipped.values, np.array([[1, 0], [1, 0], [NAN, 10], [0.5, 5]], np.float32)
    )
    assert repair.n_repaired == 3


@pytest.mark.parametrize("policy", ["hold", "clip"])
def test_good_blocks_pass_as_they_are(policy):
    good = block([0.5, 5], [-1, 10])
    assert ValueRepair(policy, LIMITS).apply(good) is good
