from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import edge_gru
from edge_gru.errors import DataError, ModelError
from quantization import quantize
from quantization.importers.onnx import import_onnx

ZERO = np.zeros((1, 2, 5), np.float32)


def streamed(bundle: edge_gru.Bundle, sequence: np.ndarray) -> np.ndarray:
    with bundle.open("onnxruntime", precision="fp32") as engine:
        return np.stack([engine.step(x) for x in sequence])


def offline(path, sequence: np.ndarray, batch_axis: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": np.expand_dims(sequence, batch_axis)})[0]
    return y[0] if batch_axis == 0 else y[:, 0]


def test_plain_gru_streams_as_it_runs_offline(gru_file, write, sequences):
    path = write(gru_file)
    bundle = quantize(path, sequences)
    for sequence in sequences:
        expected = offline(path, sequence, batch_axis=1)
        assert np.abs(streamed(bundle, sequence) - expected).max() <= 1e-6
    assert json.loads(bundle.parts["report.json"])["proof"]["n_steps"] == 65
    assert bundle.manifest.name == "model"


def test_batch_first_is_found_by_what_reaches_the_gru(gru_file, write, sequences):
    gru_file.batch_first, gru_file.dims = True, ["batch", "time", 3]
    path = write(gru_file)
    bundle = quantize(path, sequences)
    expected = offline(path, sequences[0], batch_axis=0)
    assert np.abs(streamed(bundle, sequences[0]) - expected).max() <= 1e-6


def test_axes_of_transposes_around_the_gru_leave_no_trace_in_the_step(gru_file, write, sequences):
    gru_file.batch_first, gru_file.dims = True, ["batch", "time", 3]
    model = import_onnx(write(gru_file), 3).model
    assert [node.op for node in model.program.nodes] == ["GRU", "MatMul"]


@pytest.mark.parametrize("batch", [2, "batch"])
def test_zero_start_frozen_to_a_batch_is_no_obstacle(gru_file, write, sequences, batch):
    gru_file.start, gru_file.dims = ZERO, ["time", batch, 3]
    if batch == "batch":
        gru_file.start = ZERO[:, :1]
        gru_file.dims = ["time", 1, 3]
    bundle = quantize(write(gru_file), sequences)
    assert bundle.manifest.state_sizes == {"state_00_h": 5}


def test_frozen_time_axis_is_proven_on_its_own_length(gru_file, write, sequences):
    gru_file.dims = [7, 1, 3]
    proof = json.loads(quantize(write(gru_file), sequences).parts["report.json"])["proof"]
    assert (proof["n_sequences"], proof["n_steps"]) == (2, 14)


def test_state_that_is_an_input_becomes_the_state(gru_file, write, sequences):
    gru_file.start = "h0"
    bundle = quantize(write(gru_file), sequences)
    assert bundle.manifest.state_sizes == {"state_00_h": 5}


def test_layout_1_is_the_same_network(gru_file, write, sequences):
    # onnxruntime's own CPU kernel refuses layout=1: the same network in layout 0 tells the truth.
    expected = offline(write(gru_file), sequences[0], batch_axis=1)
    gru_file.attributes["layout"] = 1
    gru_file.dims, gru_file.squeeze_axis = ["batch", "time", 3], 2
    bundle = quantize(write(gru_file), sequences)
    assert np.abs(streamed(bundle, sequences[0]) - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("direction", "bidirectional", "is bidirectional: it reads the future"),
        ("direction", "reverse", "is reverse: it reads the future"),
        ("activations", ["Sigmoid", "Swish"], r"with activations of ONNX .*, got 'Swish'"),
    ],
)
def test_other_grus_are_refused_by_name(gru_file, write, sequences, attribute, value, reason):
    gru_file.attributes[attribute] = value
    if value == "bidirectional":
        for name in ("w", "r", "b"):
            gru_file.weights[name] = np.concatenate([gru_file.weights[name]] * 2)
        gru_file.output, gru_file.rank = "all", 4
    with pytest.raises(ModelError, match=reason) as caught:
        quantize(write(gru_file), sequences)
    assert "rnn" in str(caught.value)


@pytest.mark.parametrize("dims", [["time", 1, 3], ["time", "batch", 3], [25, 1, 3]])
def test_constant_start_is_carried_whatever_batch_it_was_frozen_to(
    gru_file, write, sequences, dims
):
    gru_file.start = np.linspace(-0.9, 0.9, 5, dtype=np.float32).reshape(1, 1, 5)
    gru_file.dims = dims
    bundle = quantize(write(gru_file), sequences)
    assert bundle.manifest.states[0].has_initial
    with bundle.open("reference") as engine:
        start = engine.save_state().values["state_00_h"]
    assert np.array_equal(start, gru_file.start[0, 0])


def test_starts_that_differ_from_row_to_row_are_refused(gru_file, write, sequences):
    gru_file.start, gru_file.dims = np.ones((1, 2, 5), np.float32), ["time", 2, 3]
    gru_file.start[0, 1] = 0.5
    with pytest.raises(ModelError, match="differ from row to row"):
        quantize(write(gru_file), sequences)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax"])
def test_pooling_over_time_is_refused_and_named(gru_file, write, sequences, op):
    gru_file.add_tail(op, axes=[0], keepdims=0)
    gru_file.rank = 2
    with pytest.raises(ModelError, match=rf"{op} \({op}\) pools over an axis of one step"):
        quantize(write(gru_file), sequences)


def test_cumulative_sum_over_time_is_refused_and_named(gru_file, write, sequences):
    model = gru_file.model()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "time_axis"))
    model.graph.node.append(helper.make_node("CumSum", ["y", "time_axis"], ["sum"], name="running"))
    model.graph.output[0].name = "sum"
    path = write(gru_file)
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"CumSum \(running\)"):
        quantize(path, sequences)


def test_wrong_number_of_channels_says_both(gru_file, write):
    with pytest.raises(DataError, match="of 3 channels, as the model takes, got 4"):
        quantize(write(gru_file), [np.zeros((9, 4), np.float32)])


def test_model_without_memory_is_refused(tmp_path, sequences):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", "batch", 3])
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="without memory"):
        quantize(tmp_path / "m.onnx", sequences)


def test_files_that_are_no_model_are_one_sentence(tmp_path, sequences):
    with pytest.raises(ModelError, match="no model at"):
        quantize(tmp_path / "missing.onnx", sequences)
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelError, match="no valid ONNX model"):
        quantize(tmp_path / "text.onnx", sequences)
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module or an .onnx file"):
        quantize(tmp_path / "model.tflite", sequences)
    with pytest.raises(ModelError, match="got int"):
        quantize(5, sequences)


def test_scan_over_a_subgraph_is_refused(gru_file, write, sequences):
    model = gru_file.model()
    inner = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["s_out"])],
        "body",
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, [None, None])],
        [helper.make_tensor_value_info("s_out", TensorProto.FLOAT, [None, None])],
    )
    model.graph.node.append(
        helper.make_node("Scan", ["y"], ["scanned"], name="loop", body=inner, num_scan_inputs=1)
    )
    model.graph.output[0].name = "scanned"
    path = write(gru_file)
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"Scan \(loop\), a loop or branch"):
        quantize(path, sequences)
