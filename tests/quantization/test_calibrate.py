from __future__ import annotations

import numpy as np
import pytest

from edge_gru.errors import DataError
from firmware_bridge.sample import Schema
from quantization.calibrate import check_sequences

GOOD = np.arange(12, dtype=np.float64).reshape(4, 3)


def test_sequences_become_float32_and_keep_their_values():
    data = check_sequences([GOOD, GOOD.tolist()], None)
    assert [s.dtype for s in data.sequences] == [np.float32, np.float32]
    assert np.array_equal(data.sequences[1], GOOD)
    assert (data.n_channels, data.n_steps) == (3, 8)
    assert data.input_range.maximum == (9.0, 10.0, 11.0)


@pytest.mark.parametrize(
    ("sequences", "reason"),
    [
        ([], "at least one calibration sequence, got none"),
        ([GOOD[0]], r"got \(3,\) in sequence 0"),
        ([GOOD, GOOD[:1]], r"got \(1, 3\) in sequence 1"),
        ([GOOD, GOOD[:, :2]], r"same channels in all sequences, got \[2, 3\]"),
        ([[["a", "b"]]], "no numbers"),
    ],
)
def test_what_is_no_sequence_is_one_sentence(sequences, reason):
    with pytest.raises(DataError, match=reason):
        check_sequences(sequences, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_located_by_name(value):
    bad = GOOD.copy()
    bad[2, 1] = bad[3, 1] = value
    with pytest.raises(DataError, match=r"sequence 1, step 2, channel current \(2 such"):
        check_sequences([GOOD, bad], Schema.of(["vibration", "current", "pressure"]))


def test_schema_with_other_channels_names_them():
    with pytest.raises(DataError, match=r"of 2 channels \(a, b\), got 3"):
        check_sequences([GOOD], Schema.of(["a", "b"]))


def test_hash_depends_on_values_and_on_where_sequences_end():
    whole = check_sequences([GOOD], None).sha256
    assert check_sequences([GOOD[:2], GOOD[2:]], None).sha256 != whole
    assert check_sequences([GOOD + 1], None).sha256 != whole
    assert check_sequences([GOOD.astype(np.float32)], None).sha256 == whole


def test_joined_goes_round():
    data = check_sequences([GOOD[:2], GOOD[2:]], None)
    assert np.array_equal(data.joined(6)[:, 0], [0, 3, 6, 9, 0, 3])
