from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from quantization.importers.onnx import import_onnx

PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture
def model(gru_file, write):
    return import_onnx(write(gru_file), 3).model


def run(proto, feed):
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def producers(proto):
    return {name: node for node in proto.graph.node for name in node.output}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_state_and_blend_never_pass_a_quantized_or_narrowed_tensor(model, precision, build):
    proto = build(model, precision)
    made_by = producers(proto)
    blend = made_by["state_00_h_out"]
    assert blend.op_type == "Add"
    scaled = made_by[blend.input[1]]
    difference = made_by[scaled.input[1]]
    assert (scaled.op_type, difference.op_type) == ("Mul", "Sub")
    assert difference.input[0] == "state_00_h"
    assert {made_by[blend.input[0]].op_type, made_by[scaled.input[0]].op_type} == {"Tanh", "Split"}
    outputs = {value.name: value.type.tensor_type.elem_type for value in proto.graph.output}
    assert set(outputs.values()) == {onnx.TensorProto.FLOAT}


def test_int8_graph_has_the_operators_of_the_recipe(model, build):
    proto = build(model, "int8")
    ops = Counter(node.op_type for node in proto.graph.node)
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"], ops["MatMul"]) == (1, 2, 3)
    assert proto.opset_import[0].version == 17
    assert proto.ir_version == 8


def test_int8_graph_obeys_what_tensorrt_reads(model, build):
    proto = build(model, "int8")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    refused = {"MatMulInteger", "QLinearMatMul", "DynamicQuantizeLinear", "GRU", "Loop", "Scan"}
    assert not refused & {node.op_type for node in proto.graph.node}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[name] for name in node.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()
            assert (scale > 0).all()
    weight = next(
        n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants
    )
    assert {a.name: a.i for a in weight.attribute} == {"axis": 1}
    assert constants[weight.input[0]].dtype == np.int8


def test_sorted_state_inputs_pair_with_sorted_outputs(model, build):
    proto = build(model, "fp32")
    ins = sorted(v.name for v in proto.graph.input if v.name.startswith("state"))
    outs = sorted(v.name for v in proto.graph.output if v.name.startswith("state"))
    assert outs == [f"{name}_out" for name in ins]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_masked_rows_keep_their_state_and_others_step(model, precision, build):
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.normal(size=(4, 3)).astype(np.float32),
        "state_00_h": rng.uniform(-1, 1, (4, 5)).astype(np.float32),
    }
    stepped = run(build(model, precision), feed)["state_00_h_out"]
    active = np.array([[True], [False], [True], [False]])
    got = run(build(model, precision, active=True), feed | {"active": active})["state_00_h_out"]
    assert np.array_equal(got, np.where(active, stepped, feed["state_00_h"]))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_cpu_form_computes_the_same_step(model, precision, build):
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.normal(size=(64, 3)).astype(np.float32),
        "state_00_h": rng.uniform(-1, 1, (64, 5)).astype(np.float32),
    }
    expected = run(build(model, precision), feed)
    got = run(build(model, precision, cpu=True), feed)
    for name, value in expected.items():
        assert np.abs(got[name] - value).max() <= 1e-6


def test_fp16_narrows_the_two_products_and_nothing_else(model, build):
    proto = build(model, "fp16")
    halves = [t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert sorted(halves) == ["gru_00.w_hh_t", "gru_00.w_ih_t"]


def test_same_model_gives_the_same_bytes(model, build):
    first, second = (build(model, "int8").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
