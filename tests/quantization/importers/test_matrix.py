"""The importer matrix: every model equal over 1,000 steps, or refused with the reason."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantization.importers.onnx import import_onnx


def _load_matrix():
    if "matrix" not in sys.modules:
        path = Path(__file__).parent / "matrix.py"
        spec = importlib.util.spec_from_file_location("matrix", path)
        sys.modules["matrix"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["matrix"])
    return sys.modules["matrix"]


matrix = _load_matrix()
zoo = matrix.zoo
ONNX_CASES = matrix.onnx_cases()
TORCH_CASES = matrix.torch_zoo.cases(matrix.Case) if matrix.torch_zoo else {}


def assert_equal(case, folder: Path) -> None:
    for engine, parity in matrix.measure(case, folder).items():
        assert parity.is_equal, (engine, parity)


@pytest.mark.parametrize("name", ONNX_CASES)
def test_onnx_is_equal_over_1000_steps_from_a_random_state(name, tmp_path):
    assert_equal(ONNX_CASES[name], tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH_CASES)
def test_torch_is_equal_over_1000_steps_from_a_random_state(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters that write some of the files
        assert_equal(TORCH_CASES[name], tmp_path)


def test_parity_notices_a_wrong_network(tmp_path):
    case = ONNX_CASES["onnx lstm, one step"]
    wrong = replace(case, run=lambda x, states: case.run(x, states[::-1]))
    with pytest.raises(AssertionError):
        assert_equal(wrong, tmp_path)


@given(
    kinds=st.lists(st.sampled_from(sorted(zoo.KINDS)), min_size=1, max_size=3),
    activations=st.lists(st.sampled_from(["Tanh", "Relu", "Sigmoid", "Elu"]), max_size=3),
    sizes=st.lists(st.integers(1, 9), min_size=5, max_size=5),
    batch_first=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_stacks_are_equal(kinds, activations, sizes, batch_first, seed, tmp_path):
    proto = zoo.stack(kinds, activations, sizes, batch_first=batch_first, seed=seed)
    path = tmp_path / "stack.onnx"
    onnx.save(proto, path)
    case = matrix.Case(
        lambda _: path, lambda x, _: zoo.run_stack(proto, x), sizes[0], has_own_start=True
    )
    assert_equal(case, tmp_path)


@pytest.mark.parametrize("name", matrix.refused_zoo.REFUSED)
def test_what_is_no_step_is_refused_with_the_reason(name, tmp_path):
    make, reason = matrix.refused_zoo.REFUSED[name]
    assert re.search(reason, matrix.refusal(make, tmp_path))


@pytest.mark.parametrize(
    "name", [n for n in TORCH_CASES if n.startswith("onnx step written out by torch's exporter")]
)
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_step_written_out_is_proven_by_streaming_it(name, tmp_path):
    path = TORCH_CASES[name].make(tmp_path)
    matrix.prove_file(path)
    ops = [node.op for node in import_onnx(path, zoo.N_IN).model.program.nodes]
    assert len(set(ops) & {"GRU", "LSTM", "RNN_TANH", "RNN_RELU"}) == 1
    assert "Gemm" not in ops[:2]


def test_zero_peepholes_are_no_peepholes(tmp_path):
    onnx.save(zoo.with_peepholes(0.0), tmp_path / "model.onnx")
    program = import_onnx(tmp_path / "model.onnx", zoo.N_IN).model.program
    assert [node.op for node in program.nodes] == ["LSTM", "MatMul", "Add"]


@pytest.mark.parametrize(
    "names", [("{}0", "{}n"), ("state_{}", "new_state_{}"), ("{}_prev", "{}_next")]
)
def test_states_are_paired_by_what_people_call_them(names, tmp_path):
    matrix_case = matrix.written_case("lstm", zoo.one_step("lstm", names))
    assert_equal(matrix_case, tmp_path)
    matrix.prove_file(tmp_path / "model.onnx")


def test_states_whose_names_say_nothing_are_paired_in_order(tmp_path):
    proto = zoo.renamed(
        zoo.one_step("lstm"), {"h_in": "f", "c_in": "g", "h_out": "p", "c_out": "q"}
    )
    onnx.save(proto, tmp_path / "model.onnx")
    matrix.prove_file(tmp_path / "model.onnx")


def test_learned_starts_are_where_streams_begin(tmp_path):
    case = ONNX_CASES["onnx lstm, layout 0, dynamic time, constant start, opset 13"]
    model = import_onnx(case.make(tmp_path), zoo.N_IN).model
    start = zoo.weights_of("lstm")
    assert np.array_equal(model.weights["state_00_h.initial"], start["start_0"][0, 0])
    assert np.array_equal(model.weights["state_00_c.initial"], start["start_1"][0, 0])
