from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantization.stream import JoinedStream, has_slow_stretch, median_input


def joined(sequences, n_streams, n_steps, **options):
    held = median_input(sequences)
    stream = JoinedStream(
        sequences, n_streams, n_steps, **{"has_holds": False, "held": held, **options}
    )
    blocks, begins = zip(*stream.blocks(), strict=True)
    return np.concatenate(blocks), np.concatenate(begins)


def numbered(lengths):
    return [(k + np.arange(n)[:, None] / 100).astype(np.float32) for k, n in
            enumerate(lengths)]  # fmt: skip


@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 400))
def test_sequences_come_whole_and_each_once_a_round(lengths, n_streams, n_steps):
    sequences = numbered(lengths)
    x, begins = joined(sequences, n_streams, n_steps, resets=True)
    assert x.shape == (n_steps, n_streams, 1)
    for k in range(n_streams):
        starts = np.flatnonzero(begins[:, k]).tolist()
        assert starts[0] == 0
        pieces = np.split(x[:, k], starts[1:])
        order = [int(piece[0, 0]) for piece in pieces]
        for which, piece in zip(order, pieces, strict=True):
            assert np.array_equal(piece, sequences[which][: len(piece)])
        first_round = order[: len(lengths)]
        assert len(set(first_round)) == len(first_round)


def test_streams_differ_and_a_seed_repeats_them():
    sequences = numbered([7] * 9)
    x, _ = joined(sequences, 2, 200)
    assert not np.array_equal(x[:, 0], x[:, 1])
    assert np.array_equal(x, joined(sequences, 2, 200)[0])
    assert not np.array_equal(x, joined(sequences, 2, 200, seed=1)[0])


def test_nothing_is_cleared_unless_asked():
    assert not joined(numbered([5, 5]), 2, 50)[1].any()


def test_holds_are_of_the_median_and_take_a_fifth():
    sequences = [np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)] * 3
    x, _ = joined(sequences, 1, 20_000, has_holds=True)
    is_held = (x[:, 0] == median_input(sequences)).all(axis=1)
    assert 0.15 < is_held.mean() < 0.25
    assert np.diff(np.flatnonzero(np.diff(is_held.astype(int)))).max() >= 508


def test_a_short_look_begins_anywhere():
    x, _ = joined(numbered([1000]), 8, 10, begins_anywhere=True)
    assert len(np.unique(x[0])) > 4


@pytest.mark.parametrize(
    ("make", "is_slow"),
    [
        (lambda rng: rng.normal(size=(4000, 2)), False),
        (lambda rng: rng.normal(size=(300, 2)).cumsum(axis=0), False),  # shorter than two stretches
        (lambda rng: rng.normal(size=(4000, 2)).cumsum(axis=0), True),
        (lambda _: np.sin(np.arange(4000) / 5)[:, None], False),
        (lambda rng: np.sin(np.arange(4000) / 500)[:, None] + rng.normal(size=(4000, 1)), True),
    ],
)
def test_slow_stretches_are_found(make, is_slow):
    sequences = [make(np.random.default_rng(0)).astype(np.float32)]
    assert has_slow_stretch(sequences) is is_slow
