from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantization.rounding import round_rows, round_rows_gptq

_values = st.floats(-1e3, 1e3, width=32).filter(lambda v: v == 0 or abs(v) > 1e-20)
_matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=_values)


@given(_matrices)
def test_every_value_is_within_half_a_step_of_its_row(weight):
    rows = round_rows(weight)
    assert rows.q.dtype == np.int8
    assert np.abs(rows.q.astype(int)).max(initial=0) <= 127
    error = np.abs(rows.q.astype(np.float64) * rows.scale[:, None] - weight)
    assert (error <= rows.scale[:, None].astype(np.float64) * 0.5001).all()


@given(_matrices)
def test_largest_value_of_a_row_takes_the_whole_grid(weight):
    rows = round_rows(weight)
    for q, row in zip(rows.q, weight, strict=True):
        assert np.abs(q.astype(int)).max() == (127 if np.any(row) else 0)


def test_values_on_the_grid_come_back_exactly():
    weight = np.array([[127, -3, 0], [64, 127, -127]], np.float32) * np.float32(0.5)
    assert np.array_equal(round_rows(weight).values, weight)


def test_rows_have_scales_of_their_own():
    weight = np.array([[100.0, 1.0], [0.001, 0.0005]], np.float32)
    assert np.abs(round_rows(weight).values - weight)[1].max() < 1e-5


def test_gptq_of_uncorrelated_operands_is_nearest():
    weight = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    operand = np.eye(8, dtype=np.float32).repeat(3, axis=0)
    found, nearest = round_rows_gptq(weight, operand), round_rows(weight)
    assert np.array_equal(found.q, nearest.q)
    assert np.array_equal(found.scale, nearest.scale)


def test_gptq_halves_the_error_of_a_product_with_correlated_operands():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(48, 16)).astype(np.float32)
    operand = np.tanh(rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 16))).astype(np.float32)

    def error(rows):
        return np.linalg.norm(operand @ (rows.values - weight).T)

    assert error(round_rows_gptq(weight, operand)) < 0.5 * error(round_rows(weight))


def test_gptq_survives_units_that_never_move():
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for operand in (np.zeros((50, 4)), np.ones((50, 4)) * [1, 1, 0, 0]):
        rows = round_rows_gptq(weight, operand.astype(np.float32))
        assert np.abs(rows.values - weight).max() < 0.2
