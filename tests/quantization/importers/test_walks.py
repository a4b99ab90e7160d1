"""Recurrences over the channels of one sample: whole inside the step, nothing kept over time."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantization import quantize
from quantization.importers.onnx import import_onnx


def _load(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


matrix = _load("matrix")
CASES = matrix.walk_cases()
N_STEPS = 120  # the table of `make importers` has 1,000


@pytest.mark.parametrize("name", CASES)
def test_walk_in_the_step_is_the_operator(name, tmp_path):
    for engine, parity in matrix.measure(CASES[name], tmp_path, N_STEPS).items():
        assert parity.is_equal, (engine, parity)


def test_only_the_recurrence_over_time_is_a_state(tmp_path):
    model = import_onnx(CASES["onnx lstm bidirectional over channels"].make(tmp_path), 3).model
    assert [node.op for node in model.program.nodes] == ["Walk", "GRU"]
    assert [state.name for state in model.states] == ["state_00_h"]


def test_tensorrt_lint_says_what_becomes_of_it_and_the_product_over_time_is_int8(tmp_path):
    path = CASES["onnx gru bidirectional over channels"].make(tmp_path)
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    bundle = quantize(path, [x], recipe="rec-nearest", accept_failure=True)
    lint = json.loads(bundle.parts["report.json"])["tensorrt_lint"]
    assert len(lint) == 2 * len(bundle.manifest.precisions)  # each with and without the mask
    assert all("TensorRT builds a loop of it, in float" in finding for finding in lint)
    assert set(bundle.manifest.precisions["int8"].products) == {"gru_00.w_hh"}
    for name in ("int8.onnx", "int8_active.onnx"):
        ops = [n.op_type for n in onnx.load_model_from_string(bundle.parts[name]).graph.node]
        assert ops.count("GRU") == 1


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_streams_do_not_mix_in_a_walk(kind, tmp_path):
    case = CASES[f"onnx {kind} over channels, computed start, last"]
    x = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    made = matrix.draft(import_onnx(case.make(tmp_path), 3).model, x)
    for engine in ("onnxruntime", "reference"):
        with made.open(engine, "fp32", 4) as many, made.open(engine, "fp32") as one:
            y = many.step_batch(x[:4])
            assert np.abs(y[2] - one.step(x[2])).max() <= 1e-6
