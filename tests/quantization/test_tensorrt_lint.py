from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quantization.importers.onnx import import_onnx
from quantization.recipe import RECIPES
from quantization.tensorrt_lint import lint


@pytest.fixture
def model(gru_file, write):
    return import_onnx(write(gru_file), 3).model


@pytest.fixture
def graph(model, build):
    return build(model, "int8")


def rules(graph):
    return "\n".join(str(finding) for finding in lint(graph))


def node(graph, op, k=0):
    return [n for n in graph.graph.node if n.op_type == op][k]


def replace_constant(graph, name, value):
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
            return
    raise AssertionError(name)


@pytest.mark.parametrize("precision", [n for n, r in RECIPES.items() if not r.n_finetune_steps])
@pytest.mark.parametrize("active", [False, True])
def test_what_we_write_for_tensorrt_breaks_no_rule(model, precision, active, build):
    assert lint(build(model, precision, active=active)) == []


def test_the_form_for_onnxruntime_is_not_for_tensorrt(model, build):
    assert "MatMulInteger" in rules(build(model, "int8", cpu=True))
    assert "a loop of it" in rules(build(model, "fp32", cpu=True))


def test_uint8_and_zero_points_are_found(graph):
    zero = node(graph, "QuantizeLinear").input[2]
    replace_constant(graph, zero, np.array(128, np.uint8))
    assert "got uint8" in rules(graph)
    replace_constant(graph, zero, np.array(3, np.int8))
    assert "got int8 with [3]" in rules(graph)


def test_scales_must_be_positive_constants(graph):
    scale = node(graph, "QuantizeLinear").input[1]
    replace_constant(graph, scale, np.array(0, np.float32))
    assert "positive scale" in rules(graph)


def test_per_channel_activation_is_found(graph):
    quantizer = node(graph, "QuantizeLinear")
    replace_constant(graph, quantizer.input[1], np.full(5, 1 / 127, np.float32))
    assert "one scale for an activation" in rules(graph)


def test_weight_scales_along_k_and_unwritten_axes_are_found(graph):
    weight = node(graph, "DequantizeLinear", 1)
    weight.attribute[0].i = 0
    assert "on axis 1, one a column" in rules(graph)
    del weight.attribute[:]
    assert "axis written out" in rules(graph)


def test_weight_only_quantization_is_found(graph):
    product = next(n for n in graph.graph.node if n.name == "gru_00.gh_product_MatMul")
    product.input[0] = "state_00_h"
    assert "both operands quantized or none" in rules(graph)


def test_quantized_state_and_blend_are_found(graph):
    blend = node(graph, "Sub")
    blend.input[0] = node(graph, "DequantizeLinear").output[0]
    assert "lives on the grid" in rules(graph)


def test_dequantized_state_output_is_found(graph):
    quantizer = node(graph, "QuantizeLinear")
    last = next(n for n in graph.graph.node if "state_00_h_out" in n.output)
    last.output[0] = "wide"
    constants = list(quantizer.input[1:])
    graph.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["wide", *constants], ["narrow"]),
            helper.make_node("DequantizeLinear", ["narrow", *constants], ["state_00_h_out"]),
        ]
    )
    assert "the carried state is dequantized" in rules(graph)


def test_swapped_states_are_found(graph):
    for value in graph.graph.output:
        value.name = value.name.replace("state_00", "state_10")
    assert "to sort into pairs" in rules(graph)


def test_frozen_batch_and_new_opset_are_found(graph):
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph.opset_import[0].version = 21
    assert "free batch on axis 0" in rules(graph)
    assert "expected opset 20 or older, got 21" in rules(graph)


def test_a_finding_names_the_node(graph):
    product = next(n for n in graph.graph.node if n.name == "gru_00.gh_product_MatMul")
    product.input[0] = "state_00_h"
    (finding,) = lint(graph)
    assert finding.node == "MatMul gru_00.gh_product_MatMul"
    assert isinstance(graph, onnx.ModelProto)


def test_states_and_inputs_are_float32_and_the_mask_is_bool(model, build):
    graph = build(model, "fp16", active=True)
    for value in graph.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    found = rules(graph)
    assert "state_00_h: expected FLOAT, got FLOAT16" in found
    assert "active: expected BOOL, got FLOAT16" in found


def test_a_weight_that_the_graph_quantizes_is_a_weight(graph):
    weight = node(graph, "DequantizeLinear", 1)
    values = numpy_helper.to_array(
        next(t for t in graph.graph.initializer if t.name == weight.input[0])
    )
    graph.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), "wide"))
    quantizer = helper.make_node("QuantizeLinear", ["wide", *weight.input[1:]], ["q"], axis=1)
    graph.graph.node.insert(0, quantizer)
    weight.input[0] = "q"
    assert lint(graph) == []
    quantizer = graph.graph.node[0]
    quantizer.attribute[0].i = 0
    assert "scales on axis 0, got" in rules(graph)
