"""Products in every form, against their equations once more, one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gru.engines.products import dense_weight, multiply, operand_grid, operand_steps
from edge_gru.engines.tensors import packed, unpacked
from edge_gru.errors import BundleError
from edge_gru.manifest import ProductForm, StepNode

INT8, HILO = ProductForm("int8", "int8"), ProductForm("int8-hilo", "int8")
N_ROWS, N = 5, 7


def tensors_of(seed: int, gain: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(N_ROWS, N)).astype(np.float32),
        "w_q": rng.integers(-127, 128, (N_ROWS, N)).astype(np.int8),
        "w_scale": rng.uniform(0.001, 0.1, N_ROWS).astype(np.float32),
        "w_operand_scale": np.array(rng.uniform(0.01, 0.1), np.float32),
        "w_operand_gain": np.full(N, gain, np.float32),
    }


def steps_of(v: np.float32, step: np.float32) -> int:
    return max(-128, min(127, round(float(v / step))))


@given(
    seed=st.integers(0, 2**32 - 1),
    form=st.sampled_from([INT8, HILO]),
    gain=st.sampled_from([1.0, 0.3]),
)
@settings(max_examples=80, deadline=None)
def test_integer_products_are_their_equation(seed: int, form: ProductForm, gain: float) -> None:
    tensors = tensors_of(seed, gain)
    x = np.random.default_rng(seed + 1).normal(0, 3, N).astype(np.float32)
    step = np.float32(tensors["w_operand_scale"])
    high = [steps_of(v * np.float32(gain), step) for v in x]
    rest = [
        (v * np.float32(gain) - np.float32(h) * step) * np.float32(254)
        for v, h in zip(x, high, strict=True)
    ]
    low = [steps_of(r, step) if form is HILO else 0 for r in rest]
    got = multiply(form, x[None].astype(np.float64), tensors, "w")[0]
    for j in range(N_ROWS):
        q = [int(v) for v in tensors["w_q"][j]]
        sums = np.dot(q, high) + np.dot(q, low) / 254
        expected = sums * float(tensors["w_scale"][j]) * float(step)
        assert got[j] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_two_rows_hold_sixteen_bits_of_what_the_grid_reaches(seed: int) -> None:
    step = np.float32(1 / 127)
    x = np.random.default_rng(seed).uniform(-1, 1, (1, 50)).astype(np.float32)
    one = operand_steps(INT8, x, step) * float(step)
    two = operand_steps(HILO, x, step) * float(step)
    assert np.abs(one - x).max() <= 0.5001 / 127
    assert np.abs(two - x).max() <= 0.5001 / 127 / 254 + 1e-7


@pytest.mark.parametrize("form", [INT8, HILO])
def test_what_is_beyond_the_grid_saturates(form: ProductForm) -> None:
    step = np.float32(0.1)
    steps = operand_steps(form, np.array([[100.0, -100.0]], np.float32), step)
    assert abs(steps[0, 0] - 127) < 0.51
    assert abs(steps[0, 1] + 128) < 0.51


def test_operand_without_a_grid_of_its_own_lies_in_one() -> None:
    assert operand_grid({}, "w") == (np.float32(1 / 127), None)


def test_integer_weight_under_a_float_operand_is_read_back() -> None:
    tensors = tensors_of(3)
    x = np.random.default_rng(0).normal(size=(2, N))
    expected = x @ (tensors["w_q"] * tensors["w_scale"][:, None].astype(np.float64)).T
    got = multiply(ProductForm("fp32", "int8"), x, tensors, "w")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@given(n=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_four_bits_come_back_from_half_the_bytes(n: int, seed: int) -> None:
    q = np.random.default_rng(seed).integers(-8, 8, (3, n)).astype(np.int8)
    plain = {"w": np.zeros((n, 3), np.float32), "w_scale": np.ones(3, np.float32), "w_q": q}
    stored = packed(plain, "w")  # the weight itself lies the other way, as in a MatMul
    assert stored["w_q4"].nbytes == 3 * ((n + 1) // 2)
    assert "w_q" not in stored
    np.testing.assert_array_equal(unpacked(stored)["w_q"], q)


@pytest.mark.parametrize(
    "broken",
    [
        {"w_q4": np.zeros((3, 2), np.uint8)},
        {"w_q4": np.zeros((3, 2), np.uint8), "w": np.zeros((3, 9), np.float32)},
        {"w_q4": np.zeros((3, 2), np.int8), "w": np.zeros((3, 4), np.float32)},
        {"w_q4": np.zeros((3, 2), np.uint8), "w": np.zeros(4, np.float32)},
        {"w_q4": np.zeros((3, 2), np.uint8), "w": np.zeros((3, 4)), "w_scale": np.ones(0)},
    ],
)
def test_packed_rows_that_do_not_fit_their_weight_are_refused(broken: dict) -> None:
    with pytest.raises(BundleError, match="w_q4"):
        unpacked({"w_scale": np.ones(3, np.float32), **broken})


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (StepNode("MatMul", ("h", "w"), ("y",)), ("w", True)),
        (StepNode("Gemm", ("h", "w", "b"), ("y",), {"transB": 1}), ("w", False)),
        (StepNode("Gemm", ("h", "w", "b"), ("y",), {"alpha": 2.0}), None),
        (StepNode("Gemm", ("h", "w"), ("y",), {"transA": 1}), None),
        (StepNode("MatMul", ("w", "w"), ("y",)), None),
        (StepNode("MatMul", ("h", "g"), ("y",)), None),
        (StepNode("Add", ("h", "w"), ("y",)), None),
    ],
)
def test_weights_outside_the_cells_are_found(node: StepNode, expected: tuple | None) -> None:
    assert dense_weight(node, {"w": np.zeros((2, 3)), "b": np.zeros(2)}) == expected


@pytest.mark.parametrize(
    ("operand", "weight", "is_fine"),
    [
        ("int8", "int8", True),
        ("int8-hilo", "int4", True),
        ("fp32", "int8", True),
        ("fp16", "fp16", True),
        ("int8", "fp32", False),
        ("fp16", "fp32", False),
        ("fp32", "fp16", False),
        ("fp16", "int8", False),
    ],
)
def test_forms_that_no_engine_has_say_why(operand: str, weight: str, is_fine: bool) -> None:
    assert (ProductForm(operand, weight).fault is None) is is_fine


def test_operand_has_one_step_for_all_of_its_values() -> None:
    with pytest.raises(BundleError, match=r"expected one step for the operand of w, got \(7,\)"):
        operand_grid({"w_operand_scale": np.ones(7, np.float32)}, "w")
