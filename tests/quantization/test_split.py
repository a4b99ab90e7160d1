from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gru.errors import DataError
from quantization.calibrate import check_sequences
from quantization.split import split


def numbered(lengths):
    """Sequences whose values are all different, with targets that repeat them."""
    ends = np.cumsum(lengths)
    arrays = [
        np.arange(end - n, end, dtype=np.float32) for n, end in zip(lengths, ends, strict=True)
    ]
    return check_sequences([a[:, None] for a in arrays], None, arrays)


def values(part):
    return np.concatenate(part.sequences)[:, 0].tolist()


@given(st.lists(st.integers(4, 40), min_size=1, max_size=20))
def test_parts_are_disjoint_and_lose_nothing(lengths):
    data = numbered(lengths)
    parts = split(data)
    every = values(parts.fit) + values(parts.choose) + values(parts.judge)
    assert sorted(every) == list(range(sum(lengths)))
    for part in (parts.fit, parts.choose, parts.judge):
        assert part.n_steps >= sum(lengths) / 10 or sum(lengths) < 40
    assert values(parts.judge) == np.concatenate(parts.judge.targets).tolist()


def test_enough_sequences_stay_whole():
    parts = split(numbered([10] * 16))
    assert parts.by == "sequences"
    assert [len(p.sequences) for p in (parts.fit, parts.choose, parts.judge)] == [8, 4, 4]
    assert {len(s) for s in parts.judge.sequences} == {10}


def test_recordings_sorted_by_class_reach_every_part():
    parts = split(numbered([10] * 40))
    for part in (parts.fit, parts.choose, parts.judge):
        assert {int(s[0, 0]) // 100 for s in part.sequences} == {0, 1, 2, 3}


def test_one_long_sequence_among_short_ones_is_cut_in_time():
    parts = split(numbered([1000, 5, 5, 5]))
    assert parts.by == "time"
    assert values(parts.fit)[:500] == list(range(500))


def test_a_single_sequence_is_cut_in_time():
    parts = split(numbered([8]))
    assert [values(p) for p in (parts.fit, parts.choose, parts.judge)] == [
        [0, 1, 2, 3],
        [4, 5],
        [6, 7],
    ]


def test_a_target_of_the_last_step_goes_with_the_end():
    data = check_sequences([np.zeros((8, 1))], None, [np.array(3.0)])
    assert split(data).judge.targets[0] == 3.0


def test_too_little_for_three_parts_is_refused():
    with pytest.raises(DataError, match="at least 4 steps, got 2 in 1"):
        split(numbered([2]))


def test_targets_must_match_the_sequences():
    with pytest.raises(DataError, match="each of 2 sequences, got 1"):
        check_sequences([np.zeros((4, 1))] * 2, None, [np.zeros(4)])
    with pytest.raises(DataError, match="targets as numbers"):
        check_sequences([np.zeros((4, 1))], None, [np.array(["walk"] * 4)])
