"""Every form of the step graph of every kind of cell, against the reference step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from edge_gru.engines.cells import CELLS
from edge_gru.engines.reference import step_cell, widened
from edge_gru.manifest import Program, StateInfo, StepNode
from firmware_bridge.sample import Schema
from quantization import pack, step_graph
from quantization.calibrate import Calibration
from quantization.operand_scale import HEAD_ROOM, with_operand_scales
from quantization.pack import with_rows
from quantization.rounding_choice import round_nearest
from quantization.step_model import StepModel

N_IN, N_HIDDEN, N_PROJECTED, N_ROWS = 3, 6, 4, 16
PRECISIONS = ("fp32", "fp16", "int8")
TOLERANCES = {"fp32": 1e-6, "fp16": 5e-3, "int8": 2e-6}


def model_of(kind: str, seed: int = 0) -> StepModel:
    rng = np.random.default_rng(seed)
    n_rows = len(CELLS[kind].gates) * N_HIDDEN
    n_h = N_PROJECTED if kind == "LSTM_PROJECTED" else N_HIDDEN
    shapes = {"w_ih": (n_rows, N_IN), "w_hh": (n_rows, n_h), "b_ih": (n_rows,), "b_hh": (n_rows,)}
    if kind == "LSTM_PROJECTED":
        shapes["w_hr"] = (n_h, N_HIDDEN)
    weights = {f"k.{n}": rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
    states = tuple(
        StateInfo(f"state_00_{name}", n_h if name == "h" else N_HIDDEN, bound)
        for name, bound in CELLS[kind].bounds.items()
    )
    names = tuple(info.name for info in states)
    node = StepNode(kind, ("x", *names), tuple(f"{n}_out" for n in names), {"cell": "k"})
    return StepModel(Program((node,), "state_00_h_out", 17), weights, states, N_IN, n_h)


def weights_of(model: StepModel) -> dict[str, np.ndarray]:
    return with_rows(model.weights, round_nearest(model.recurrent_weights))


def feed_of(model: StepModel) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    feed = {"x": rng.normal(size=(N_ROWS, N_IN)).astype(np.float32)}
    for info in model.states:
        feed[info.name] = rng.uniform(-1, 1, (N_ROWS, info.size)).astype(np.float32)
    return feed


def run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("is_cpu", [False, True])
def test_graph_computes_the_reference_step(kind, precision, is_cpu):
    model = model_of(kind)
    weights, feed = weights_of(model), feed_of(model)
    cell = {name.removeprefix("k."): widened(value) for name, value in weights.items()}
    states = tuple(feed[info.name].astype(np.float64) for info in model.states)
    expected = step_cell(kind, feed["x"].astype(np.float64), states, cell, precision=precision)
    is_own = is_cpu and precision in step_graph.CPU_PRECISIONS
    got = run(step_graph.build(model, weights, precision, cpu=is_own), feed)
    for info, value in zip(model.states, expected, strict=True):
        assert np.abs(got[f"{info.name}_out"] - value).max() <= TOLERANCES[precision]


@pytest.mark.parametrize("kind", CELLS)
def test_masked_rows_keep_every_state(kind):
    model = model_of(kind)
    weights, feed = weights_of(model), feed_of(model)
    active = np.arange(N_ROWS)[:, None] % 2 == 0
    stepped = run(step_graph.build(model, weights, "int8"), feed)
    got = run(step_graph.build(model, weights, "int8", active=True), feed | {"active": active})
    for info in model.states:
        expected = np.where(active, stepped[f"{info.name}_out"], feed[info.name])
        assert np.array_equal(got[f"{info.name}_out"], expected)


@pytest.mark.parametrize("kind", CELLS)
def test_int8_touches_the_recurrent_product_alone(kind):
    model = model_of(kind)
    proto = step_graph.build(model, weights_of(model), "int8")
    quantized = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    assert len(quantized) == (2 if CELLS[kind].is_operand_computed else 1)
    assert quantized[0].input[0] == "state_00_h"
    readers = {n.output[0]: n for n in proto.graph.node}
    for node in proto.graph.node:
        if node.op_type not in {"MatMul", "DequantizeLinear"}:
            sources = {readers[name].op_type for name in node.input if name in readers}
            assert "DequantizeLinear" not in sources, node.name
    into = [name for n in proto.graph.node for name in n.input if name == "state_00_c"]
    assert len(into) == ("c" in CELLS[kind].states)  # read once, by the product with f


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("GRU", None), ("LSTM", None), ("RNN_RELU", 6.0), ("LSTM_PROJECTED", 6.0)],
)
def test_h_without_a_bound_gets_a_scale_with_head_room(kind, expected):
    class Engine:
        """States that grow to 6 and fall again."""

        def reset(self, stream):
            self.n = 0

        def step(self, x):
            self.n += 1

        def save_state(self, stream):
            value = np.full(2, -6.0 if self.n == 3 else 1.0, np.float32)
            return type("Saved", (), {"values": {"state_00_h": value}})

    model = model_of(kind)
    scaled = with_operand_scales(model, Engine(), [np.zeros((5, N_IN), np.float32)] * 2)
    if expected is None:
        assert scaled is model
    else:
        scale = float(scaled.weights["k.h_scale"])
        assert scale == pytest.approx(HEAD_ROOM * expected / 127)
        assert scaled.operands["k"] == ("state_00_h", np.float32(scale))


def test_transposed_weights_are_packed_as_they_read():
    model = model_of("RNN_TANH")
    turned = np.asfortranarray(model.weights["k.w_hh"])
    weights = {**model.weights, "k.w_hh": turned}
    model = replace(model, weights=weights)
    outputs = tuple(f"y{k}" for k in range(N_HIDDEN))
    description = pack.Description("net", Schema.unnamed(N_IN), "fp32", outputs)
    made = pack.draft(model, description, Calibration((np.zeros((4, N_IN), np.float32),)), {})
    packed = safetensors.numpy.load(made.parts["weights.safetensors"])
    np.testing.assert_array_equal(packed["k.w_hh"], turned)
