"""The table of cells: complete on both sides, within its bounds, golden on every engine."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gru.bundle import Bundle
from edge_gru.engines.base import EngineSource
from edge_gru.engines.cells import CELLS
from edge_gru.engines.golden import replay
from edge_gru.engines.products import FLOAT, HALF, multiply
from edge_gru.engines.reference import ReferenceEngine, step_cell
from edge_gru.engines.table import ENGINES
from edge_gru.errors import BundleError
from edge_gru.manifest import ProductForm
from quantization.cells import ONNX_CELLS, reordered
from quantization.recipe import RECIPES

N_IN, N_HIDDEN = 3, 4
FORMS = [name for name, recipe in RECIPES.items() if not recipe.n_finetune_steps]
INT8 = ProductForm("int8", "int8")


def cell_of(kind: str, rng: np.random.Generator, gain: float) -> dict[str, np.ndarray]:
    n_rows = len(CELLS[kind].gates) * N_HIDDEN
    shapes = {"w_ih": (n_rows, N_IN), "w_hh": (n_rows, N_HIDDEN), "w_hr": (N_HIDDEN, N_HIDDEN)}
    shapes |= {"b_ih": (n_rows,), "b_hh": (n_rows,)}
    cell = {name: rng.normal(0, gain, shape) for name, shape in shapes.items()}
    cell["w_hh_scale"] = (np.abs(cell["w_hh"]).max(axis=1) / 127).astype(np.float32)
    cell["w_hh_q"] = np.rint(cell["w_hh"] / cell["w_hh_scale"][:, None]).astype(np.int8)
    return cell


def test_every_kind_is_written_as_onnx_and_no_other() -> None:
    assert list(CELLS) == list(ONNX_CELLS)
    for kind, cell in CELLS.items():
        assert sorted(cell.gates) == sorted(ONNX_CELLS[kind].gates)
        assert cell.states[0] == "h"


@given(
    kind=st.sampled_from([k for k, c in CELLS.items() if c.bounds["h"] is not None]),
    form=st.sampled_from([FLOAT, HALF, INT8, ProductForm("int8-hilo", "int8")]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_h_never_leaves_its_bound(kind: str, form: ProductForm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = cell_of(kind, rng, gain=8.0)
    states = tuple(rng.choice([-1.0, 1.0], size=(1, N_HIDDEN)) for _ in CELLS[kind].states)
    for x in rng.normal(0, 100, size=(20, 1, N_IN)):
        states = step_cell(kind, x, states, cell, {"w_hh": form})
        states = tuple(s.astype(np.float32).astype(np.float64) for s in states)
        assert np.abs(states[0]).max() <= CELLS[kind].bounds["h"]


@pytest.mark.parametrize("kind", ["LSTM", "LSTM_PROJECTED"])
def test_c_grows_past_any_calibration_and_is_kept(kind: str) -> None:
    cell = cell_of(kind, np.random.default_rng(0), gain=1e-6)
    cell["b_ih"] = np.full(4 * N_HIDDEN, 50.0)  # forget nothing, add one in each step
    states = (np.zeros((1, N_HIDDEN)), np.zeros((1, N_HIDDEN)))
    for _ in range(300):
        states = step_cell(kind, np.zeros((1, N_IN)), states, cell, {"w_hh": INT8})
    np.testing.assert_allclose(states[1], 300.0, rtol=1e-3)


def test_wide_h_is_read_on_its_own_grid() -> None:
    cell = cell_of("RNN_RELU", np.random.default_rng(1), gain=0.5)
    h = np.array([[30.0, 7.0, 0.1, 60.0]])
    exact = h @ cell["w_hh"].T
    narrow = multiply(INT8, h, cell, "w_hh")
    cell["w_hh_operand_scale"] = np.array(0.5, np.float32)
    wide = multiply(INT8, h, cell, "w_hh")
    assert np.abs(wide - exact).max() < 0.5
    assert np.abs(narrow - exact).max() > 5


def test_reordered_gates_come_back() -> None:
    value = np.arange(24.0).reshape(8, 3)
    there = reordered(value, ("i", "f", "g", "o"), ("i", "o", "f", "g"))
    np.testing.assert_array_equal(there[:, 0], [0, 3, 18, 21, 6, 9, 12, 15])
    np.testing.assert_array_equal(
        reordered(there, ("i", "o", "f", "g"), ("i", "f", "g", "o")), value
    )


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("recipe", FORMS)
def test_golden_vectors_pass_in_every_precision(
    kind: str, engine: str, recipe: str, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(kind, recipe=recipe)
    for precision in bundle.manifest.precisions:
        with bundle.open(engine, precision=precision) as opened:
            result = replay(opened, bundle.parts["golden.safetensors"])
        assert result.passed, result


@pytest.mark.parametrize(
    "start", [None, np.zeros(3, np.float32), np.full(8, np.nan, np.float32), np.zeros(8)]
)
@pytest.mark.parametrize("engine", ["reference", "onnxruntime"])
def test_start_that_does_not_fit_is_refused(
    make_bundle: Callable[..., Bundle], start: np.ndarray | None, engine: str
) -> None:
    bundle = make_bundle("LSTM")
    weights = safetensors.numpy.load(bundle.parts["weights.safetensors"])
    del weights["state_01_c.initial"]
    if start is not None:
        weights["state_01_c.initial"] = start
    parts = {**bundle.parts, "weights.safetensors": safetensors.numpy.save(weights)}
    with pytest.raises(BundleError, match="8 finite float32 values that state_01_c starts from"):
        Bundle(bundle.manifest, parts).open(engine, precision="fp32")


def test_engine_that_needs_no_weights_does_not_read_them(make_bundle: Callable[..., Bundle]):
    bundle = make_bundle("GRU")
    parts = {k: v for k, v in bundle.parts.items() if k != "weights.safetensors"}
    manifest = msgspec.structs.replace(bundle.manifest)
    assert not EngineSource(manifest, parts).initial_states()["state_00_h"].any()
    with pytest.raises(BundleError, match="with weights"):
        ReferenceEngine(EngineSource(manifest, parts), n_streams=1, precision="fp32")
