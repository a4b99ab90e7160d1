"""The recurrent models that ONNX tests every backend with, and the outputs that it expects."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_gru.errors import ModelError
from firmware_bridge.sample import Schema
from quantization import pack
from quantization.calibrate import Calibration
from quantization.evaluate import run_stream
from quantization.importers.onnx import import_proto
from quantization.quantized import Quantized
from quantization.recipe import RECIPES

MODULES = ("gru", "lstm", "rnn")
DIRECTIONS = ("reverse", "bidirectional")


def _collected():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cases of other operators
        cases = importlib.import_module("onnx.backend.test.case.node")
        for name in MODULES:
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
    found = {case.name: case for case in cases._NodeTestCases}
    return {name: c for name, c in found.items() if c.model.graph.node[0].op_type in OPERATORS}


OPERATORS = ("GRU", "LSTM", "RNN")
CASES = _collected()
STREAMS = [n for n in CASES if not n.endswith(DIRECTIONS)]
OTHERS = [n for n in CASES if n.endswith(DIRECTIONS)]


def file_of(case):
    """The model with its weights inside, as a file has them; and x and the expected outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = 8
    inputs, outputs = case.data_sets[0]
    values = [v if isinstance(v, np.ndarray) else numpy_helper.to_array(v) for v in inputs]
    names = [value.name for value in model.graph.input]
    for name, value in list(zip(names, values, strict=True))[1:]:
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model, values[0], dict(zip([o.name for o in model.graph.output], outputs, strict=True))


def streamed(model, x):
    outputs = tuple(f"y{k}" for k in range(model.n_out))
    description = pack.Description("onnx", Schema.unnamed(model.n_in), RECIPES["fp32"], outputs)
    made = pack.draft(model, description, Calibration((x,)), Quantized())
    with made.open("onnxruntime", "fp32") as engine:
        return run_stream(engine, np.ascontiguousarray(x))


def test_there_are_cases():
    assert len(STREAMS) >= 9
    assert {case.model.graph.node[0].op_type for case in CASES.values()} == set(OPERATORS)


@pytest.mark.parametrize("name", STREAMS)
def test_each_row_of_the_batch_is_a_stream_with_the_expected_outputs(name):
    model, x, expected = file_of(CASES[name])
    imported = import_proto(model, x.shape[2], name)
    is_batch_first = any(a.name == "layout" and a.i for a in model.graph.node[0].attribute)
    rows = x if is_batch_first else x.swapaxes(0, 1)
    for k, row in enumerate(rows):
        y = streamed(imported.model, row)
        if "Y" in expected:  # (T, D, B, H), or with the rows first
            whole = expected["Y"][k, :, 0] if is_batch_first else expected["Y"][:, 0, k]
            assert np.abs(y - whole).max() <= 1e-5
        last = expected["Y_h"][k, 0] if is_batch_first else expected["Y_h"][0, k]
        assert np.abs(y[-1] - last).max() <= 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_what_reads_the_future_is_refused(name):
    model, x, _ = file_of(CASES[name])
    with pytest.raises(ModelError, match="reads the future"):
        import_proto(model, x.shape[2], name)
