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
from quantization.grids import find_grids
from quantization.quantized import Quantized
from quantization.recipe import RECIPES
from quantization.sites import find_sites
from quantization.step_model import StepModel

N_IN, N_HIDDEN, N_PROJECTED = 3, 6, 4
N_ROWS = 8  # onnxruntime 1.23 gets the 32nd row of an integer product wrong on CPUs with AMX
FORMS = [name for name, recipe in RECIPES.items() if not recipe.n_finetune_steps]
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


@pytest.mark.parametrize("recipe", FORMS)
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("is_cpu", [False, True])
def test_graph_computes_the_reference_step(kind, recipe, is_cpu, quantized_by):
    model = model_of(kind)
    quantized, feed = quantized_by(model, recipe), feed_of(model)
    weights = {**model.weights, **quantized.tensors}
    cell = {name.removeprefix("k."): widened(value) for name, value in weights.items()}
    forms = {name.removeprefix("k."): form for name, form in quantized.products.items()}
    states = tuple(feed[info.name].astype(np.float64) for info in model.states)
    expected = step_cell(kind, feed["x"].astype(np.float64), states, cell, forms)
    got = run(step_graph.build(model, quantized, cpu=is_cpu), feed)
    for info, value in zip(model.states, expected, strict=True):
        error = np.abs(got[f"{info.name}_out"] - value).max()
        assert error <= TOLERANCES[quantized.precision]


@pytest.mark.parametrize(
    ("kind", "recipe", "n_products"),
    [("GRU", "int8", 1), ("LSTM", "int8", 1), ("GRU_RESET_FIRST", "int8", 2), ("GRU", "rec", 2)],
)
def test_joint_recipe_makes_one_product_where_x_and_h_add_up(
    kind, recipe, n_products, quantized_by
):
    model = model_of(kind)
    proto = step_graph.build(model, quantized_by(model, recipe))
    assert sum(node.op_type == "MatMul" for node in proto.graph.node) == n_products


@pytest.mark.parametrize("kind", CELLS)
def test_masked_rows_keep_every_state(kind, quantized_by):
    model = model_of(kind)
    quantized, feed = quantized_by(model, "rec-nearest"), feed_of(model)
    active = np.arange(N_ROWS)[:, None] % 2 == 0
    stepped = run(step_graph.build(model, quantized), feed)
    got = run(step_graph.build(model, quantized, active=True), feed | {"active": active})
    for info in model.states:
        expected = np.where(active, stepped[f"{info.name}_out"], feed[info.name])
        assert np.array_equal(got[f"{info.name}_out"], expected)


@pytest.mark.parametrize("kind", CELLS)
def test_int8_touches_the_recurrent_product_alone(kind, quantized_by):
    model = model_of(kind)
    proto = step_graph.build(model, quantized_by(model, "rec-nearest"))
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


@pytest.mark.parametrize("kind", CELLS)
def test_h_without_a_bound_gets_a_scale_with_head_room(kind):
    model = model_of(kind)
    (site,) = [site for site in find_sites(model) if site.kind == "recurrent"]
    operands = {"state_00_h": np.array([[1.0], [-6.0], [2.0]], np.float32)}
    grid = find_grids(model, [site], RECIPES["rec"], operands)["k.w_hh"]
    is_bounded = CELLS[kind].bounds["h"] is not None
    assert grid.step == pytest.approx(1 / 127 if is_bounded else 2.0 * 6.0 / 127)
    assert ("k.w_hh_operand_scale" in grid.tensors("k.w_hh")) is not is_bounded


def test_transposed_weights_are_packed_as_they_read():
    model = model_of("RNN_TANH")
    turned = np.asfortranarray(model.weights["k.w_hh"])
    weights = {**model.weights, "k.w_hh": turned}
    model = replace(model, weights=weights)
    outputs = tuple(f"y{k}" for k in range(N_HIDDEN))
    description = pack.Description("net", Schema.unnamed(N_IN), RECIPES["fp32"], outputs)
    data = Calibration((np.zeros((4, N_IN), np.float32),))
    made = pack.draft(model, description, data, Quantized())
    packed = safetensors.numpy.load(made.parts["weights.safetensors"])
    np.testing.assert_array_equal(packed["k.w_hh"], turned)
