"""Cells with other activations, a clip, peepholes, coupled gates: written out in the step."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_gru.errors import StateMismatchError
from edge_gru.state import State
from quantization import quantize
from quantization.importers.activations import read_activations
from quantization.importers.onnx import import_onnx


def _load(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


matrix = _load("matrix")
unusual, zoo = matrix.unusual_zoo, matrix.zoo
CASES = matrix.unusual_cases()
N_STEPS = 120  # the table of `make importers` has 1,000


@pytest.mark.parametrize("name", CASES)
def test_written_out_cell_is_the_operator(name, tmp_path):
    for engine, parity in matrix.measure(CASES[name], tmp_path, N_STEPS).items():
        assert parity.is_equal, (engine, parity)


@pytest.mark.parametrize("name", unusual.CASES)
def test_bound_of_each_state_is_what_the_activations_allow(name, tmp_path):
    case = unusual.CASES[name]
    found = [s.bound for s in import_onnx(CASES[f"onnx {name}"].make(tmp_path), 3).model.states]
    assert [bound is None for bound in found] == [bound is None for bound in case.bounds]
    for bound, expected in zip(found, case.bounds, strict=True):
        assert bound is None or bound == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "alpha", "beta", "limit", "expected"),
    [
        ("Affine", -2.0, 0.5, 1.0, (-1.5, 2.5)),
        ("Elu", -1.5, None, None, (0.0, 1e300)),
        ("Elu", 0.7, None, 2.0, (0.7 * np.expm1(-2.0), 2.0)),
        ("LeakyRelu", -0.5, None, 2.0, (0.0, 2.0)),
        ("ThresholdedRelu", -0.5, None, 1.0, (-0.5, 1.0)),
        ("ThresholdedRelu", 0.5, None, 0.4, (0.0, 0.0)),
        ("HardSigmoid", 0.2, 0.5, 1.0, (0.3, 0.7)),
        ("ScaledTanh", -2.0, 1.0, None, (-2.0, 2.0)),
        ("Softsign", None, None, 1.0, (-0.5, 0.5)),
    ],
)
def test_range_of_an_activation_holds_the_values_that_it_has(name, alpha, beta, limit, expected):
    parameters = [[] if p is None else [p] for p in (alpha, beta)]
    (activation,) = read_activations([name], *parameters, "a cell")
    low, high = activation.range(limit)
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    values = np.linspace(-(limit or 50), limit or 50, 20_001)
    for op in activation.ops:
        values = op(values)
    assert low <= values.min() + 1e-9
    assert values.max() - 1e-9 <= high


def test_a_state_beyond_its_bound_is_refused(tmp_path):
    model = import_onnx(CASES["onnx gru, clip"].make(tmp_path), 3).model
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    with matrix.draft(model, x).open("onnxruntime", "fp32") as engine:
        values = {"state_00_h": np.full(zoo.N_HIDDEN, 0.7, np.float32)}
        state = State(engine.model_hash, 0, values)
        with pytest.raises(StateMismatchError, match=r"within \+-0\.664"):
            engine.load_state(0, state)
        for row in 50 * x:
            engine.step(row)
        engine.load_state(0, engine.save_state(0))


def test_recipe_finds_the_recurrent_product_and_the_gate_passes(tmp_path):
    """Keras' GRU with hard sigmoid gates in INT8, on slow inputs: the state stays float."""
    path = CASES["onnx gru of keras 2, hard sigmoid"].make(tmp_path)
    steps = np.random.default_rng(1).normal(0, 0.2, (3, 400, 3)).cumsum(axis=1)
    bundle = quantize(path, list(np.tanh(steps).astype(np.float32)), recipe="rec-nearest")
    assert bundle.manifest.gate.verdict in ("pass", "warn")
    assert set(bundle.manifest.precisions["int8"].products) == {"gru_00.w_hh_rz"}
    assert json.loads(bundle.parts["report.json"])["tensorrt_lint"] == []
    step = onnx.load_model_from_string(bundle.parts["int8.onnx"])
    assert sum(node.op_type == "QuantizeLinear" for node in step.graph.node) == 1
    reference = bundle.open("reference", precision="int8")
    with reference, bundle.open("onnxruntime", precision="int8") as engine:
        for row in np.tanh(steps[0]).astype(np.float32)[:50]:
            engine.load_state(0, reference.save_state(0))
            assert np.abs(engine.step(row) - reference.step(row)).max() <= 1e-5


@pytest.mark.parametrize("name", ["onnx lstm, peepholes", "onnx gru, clip"])
def test_masked_graph_hands_on_the_state_of_an_inactive_stream(name, tmp_path):
    model = import_onnx(CASES[name].make(tmp_path), 3).model
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 3)).astype(np.float32)
    feed = {s.name: rng.uniform(-0.5, 0.5, (3, s.size)).astype(np.float32) for s in model.states}
    made = matrix.draft(model, x)
    plain, masked = (
        onnxruntime.InferenceSession(made.parts[part], providers=["CPUExecutionProvider"])
        for part in ("fp32.onnx", "fp32_active.onnx")
    )
    names = [f"{state}_out" for state in feed]
    stepped = plain.run(names, {"x": x, **feed})
    active = np.array([[True], [False], [True]])
    for state, new, all_new in zip(
        feed, masked.run(names, {"x": x, "active": active, **feed}), stepped, strict=True
    ):
        assert np.array_equal(new, np.where(active, all_new, feed[state]))
        assert not np.array_equal(new, all_new)
