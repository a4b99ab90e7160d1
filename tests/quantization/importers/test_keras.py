"""Keras networks as tf2onnx writes them, some as loops: equal to Keras, step by step."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_gru.errors import ModelError
from firmware_bridge.sample import Schema
from quantization import pack, quantize
from quantization.calibrate import Calibration
from quantization.evaluate import run_stream
from quantization.importers.onnx import import_onnx, import_proto
from quantization.importers.proof import TOLERANCE, prove
from quantization.quantized import Quantized
from quantization.recipe import RECIPES

FILES = Path(__file__).parent / "keras_files"
EXPECTED = np.load(FILES / "expected.npz")
X = EXPECTED["x"]

CELLS = {
    "gru": ["GRU"],
    "gru_last_step": ["GRU"],
    "gru_window": ["GRU"],
    "gru_reset_before": ["GRU_RESET_FIRST"],
    "lstm_batch_norm": ["LSTM"],
    "lstm_stacked": ["LSTM", "LSTM"],
    "rnn": ["RNN_TANH"],
    "rnn_stacked": ["RNN_TANH", "GRU_RESET_FIRST"],
    "lstm_hard_sigmoid": [],
    "gru_hard_sigmoid": [],
    "gru_hard_sigmoid_reset_before": [],
    "gru_relu": [],
}


def opened(model, engine: str):
    outputs = tuple(f"y{k}" for k in range(model.n_out))
    description = pack.Description("keras", Schema.unnamed(3), RECIPES["fp32"], outputs)
    return pack.draft(model, description, Calibration((X,)), Quantized()).open(engine, "fp32")


@pytest.mark.parametrize("name", CELLS)
def test_step_is_what_keras_computes_and_proven_against_the_file(name):
    imported = import_onnx(FILES / f"{name}.onnx", 3)
    kinds = [n.op for n in imported.model.program.nodes if "cell" in n.attributes]
    assert kinds == CELLS[name]
    for kind in ("onnxruntime", "reference"):
        with opened(imported.model, kind) as engine:
            got = run_stream(engine, X)
            proof = prove(imported.original, partial(run_stream, engine), [X], ())
        expected = EXPECTED[name]
        got = got if expected.ndim == 2 else got[-1]
        assert np.abs(got - expected).max() <= TOLERANCE
        assert proof.n_steps == len(X)


def test_all_files_are_tested():
    refused = {"gru_bidirectional", "gru_layer_norm"}
    assert {path.stem for path in FILES.glob("*.onnx")} == set(CELLS) | refused


def test_product_with_the_state_of_an_opened_loop_is_int8(tmp_path):
    bundle = quantize(FILES / "gru_hard_sigmoid.onnx", [X] * 6, recipe="rec-nearest")
    (weight,) = bundle.manifest.precisions["int8"].products
    assert bundle.manifest.state_sizes == {"state_00_h": 5}
    assert weight.endswith("MatMul_1:0.w")


def test_loop_without_shapes_says_what_to_do():
    model = onnx.load(FILES / "rnn.onnx")
    for node in model.graph.node:
        for attribute in node.attribute:
            for value in attribute.g.input:
                value.type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match=r"of unknown shape; expected a file with shapes"):
        import_proto(model, 3, "rnn.onnx")


@pytest.mark.parametrize("name", ["rnn", "gru_relu"])
def test_loop_that_starts_beside_zero_is_a_stream_that_starts_there(name):
    model = onnx.load(FILES / f"{name}.onnx")
    expand = next(node for node in model.graph.node if node.op_type == "Expand")
    for tensor in model.graph.initializer:
        if tensor.name == expand.input[0]:
            tensor.CopyFrom(numpy_helper.from_array(np.array(0.3, np.float32), tensor.name))
    imported = import_proto(model, 3, name)
    assert [state.has_initial for state in imported.model.states] == [True]
    with opened(imported.model, "reference") as engine:
        proof = prove(imported.original, partial(run_stream, engine), [X], ())
    assert proof.largest_difference <= TOLERANCE
