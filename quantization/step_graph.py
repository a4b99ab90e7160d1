"""The single-step ONNX graphs: batch on axis 0, explicit state, one builder for every precision.

Inputs ``x`` (batch, n_in) and the states ``state_NN_h``, ``state_NN_c`` (batch, size); outputs
``y`` and ``state_NN_h_out`` and so on. States are fp32 and never pass a Q/DQ. Forms:

``step``    what TensorRT reads; products of integers are Q/DQ around a MatMul
``cpu``     what onnxruntime runs fast: its recurrent operators, or MatMulInteger for the Q/DQ pair
``active``  with an input ``active`` (batch, 1) bool: where false, the state is handed on unchanged
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edge_gru.engines.cells import CELLS
from edge_gru.engines.products import dense_weight
from edge_gru.engines.walk import WALK
from edge_gru.manifest import StepNode
from quantization.cells import ONNX_CELLS, CellGraph, write_operator
from quantization.graph_builder import GraphBuilder
from quantization.products import Rows, write_product
from quantization.quantized import Quantized
from quantization.step_model import StepModel
from quantization.walk_graph import write_walk

IR_VERSION = 8


def build(
    model: StepModel, quantized: Quantized, *, active: bool = False, cpu: bool = False
) -> onnx.ModelProto:
    """Write the step graph of one precision in one form."""
    builder = GraphBuilder({**model.weights, **quantized.tensors}, model.program.opset)
    masked = frozenset(f"{state.name}_out" for state in model.states) if active else frozenset()
    for node in model.program.nodes:
        if node.op in CELLS:
            _add_cell(builder, node, quantized, cpu=cpu, active=active)
        elif node.op == WALK:
            write_walk(builder, node)
        else:
            _add_operation(builder, node, quantized, masked, cpu=cpu)
    builder.add("Identity", [model.program.output], "y")
    return _finish(builder, model, active=active)


def _add_operation(
    b: GraphBuilder, node: StepNode, quantized: Quantized, masked: frozenset[str], *, cpu: bool
) -> None:
    """Add an operation; new states in ``masked`` are taken over only where ``active``."""
    outputs = tuple(f"{name}_stepped" if name in masked else name for name in node.outputs)
    stepped = StepNode(node.op, node.inputs, outputs, node.attributes)
    if not _add_dense(b, stepped, quantized, cpu=cpu):
        inputs = [b.operand(name) if name else "" for name in node.inputs]
        b.add_many(node.op, inputs, list(outputs), **node.attributes)
    for new, name in zip(outputs, node.outputs, strict=True):
        if name in masked:
            b.add("Where", ["active", new, name.removesuffix("_out")], name)


def _finish(builder: GraphBuilder, model: StepModel, *, active: bool) -> onnx.ModelProto:
    def value(name: str, width: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    inputs = [value("x", model.n_in), *(value(s.name, s.size) for s in model.states)]
    if active:
        inputs.append(helper.make_tensor_value_info("active", TensorProto.BOOL, ["batch", 1]))
    outputs = [value("y", model.n_out), *(value(f"{s.name}_out", s.size) for s in model.states)]
    graph = helper.make_graph(builder.nodes, "step", inputs, outputs, builder.constants)
    opset = helper.make_opsetid("", model.program.opset)
    proto = helper.make_model(graph, opset_imports=[opset], producer_name="edge-gru")
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _add_cell(
    b: GraphBuilder, node: StepNode, quantized: Quantized, *, cpu: bool, active: bool
) -> None:
    x, *states = node.inputs
    cell = str(node.attributes["cell"])
    names = CELLS[node.op].states
    stepped = tuple(f"{cell}.{name}_stepped" for name in names) if active else node.outputs
    graph = CellGraph(
        b,
        node.op,
        cell,
        x,
        tuple(states),
        stepped,
        quantized.products,
        is_joint=cell in quantized.joint,
        cpu=cpu,
    )
    form = ONNX_CELLS[node.op]
    if cpu and graph.is_float and form.operator:
        write_operator(graph)
    else:
        form.write(graph)
    if active:
        for new, state, output in zip(stepped, states, node.outputs, strict=True):
            b.add("Where", ["active", new, state], output)


def _add_dense(b: GraphBuilder, node: StepNode, quantized: Quantized, *, cpu: bool) -> bool:
    """Add a MatMul or Gemm whose weight has a form of its own; tell whether it has."""
    dense = dense_weight(node, b.weights)
    if dense is None or dense[0] not in quantized.products:
        return False
    weight, is_transposed = dense
    rows = Rows(weight, f"{node.outputs[0]}_of", is_transposed=is_transposed)
    form = quantized.products[weight]
    product = write_product(b, form, b.operand(node.inputs[0]), rows, cpu=cpu)
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if bias:
        b.add("Add", [product, b.operand(bias)], node.outputs[0])
    else:
        b.add("Identity", [product], node.outputs[0])
    return True
