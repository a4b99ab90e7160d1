"""The single-step ONNX graphs: batch on axis 0, explicit state, one builder for every precision.

Inputs ``x`` (batch, n_in) and the states ``state_NN_h``, ``state_NN_c`` (batch, size); outputs
``y`` and ``state_NN_h_out`` and so on. States are fp32 and never pass a Q/DQ. Forms:

``fp32``, ``fp16``, ``int8``  what TensorRT reads; int8 is Q/DQ on the recurrent product alone
``cpu``     what onnxruntime runs fast: its recurrent operators, or MatMulInteger for the Q/DQ pair
``active``  with an input ``active`` (batch, 1) bool: where false, the state is handed on unchanged
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from edge_gru.engines.cells import CELLS
from edge_gru.engines.walk import WALK
from edge_gru.manifest import StepNode
from quantization.cells import ONNX_CELLS, CellGraph, write_operator
from quantization.graph_builder import GraphBuilder
from quantization.products import CPU_PRODUCTS, PRODUCTS
from quantization.step_model import Array, StepModel
from quantization.walk_graph import write_walk

IR_VERSION = 8
CPU_PRECISIONS = ("fp32", *CPU_PRODUCTS)
"""Precisions with a form of their own for onnxruntime; for others it runs what TensorRT reads."""


def build(
    model: StepModel,
    weights: Mapping[str, Array],
    precision: str,
    *,
    active: bool = False,
    cpu: bool = False,
) -> onnx.ModelProto:
    """Write the step graph of one precision and form; ``weights`` hold the int8 tensors too."""
    builder = GraphBuilder(weights)
    new_states = frozenset(f"{state.name}_out" for state in model.states)
    for node in model.program.nodes:
        if node.op in CELLS:
            _add_cell(builder, node, precision, cpu=cpu, active=active)
        elif node.op == WALK:
            write_walk(builder, node)
        else:
            _add_operation(builder, node, new_states if active else frozenset())
    builder.add("Identity", [model.program.output], "y")
    return _finish(builder, model, active=active)


def _add_operation(b: GraphBuilder, node: StepNode, masked: frozenset[str]) -> None:
    """Add an operation; new states in ``masked`` are taken over only where ``active``."""
    inputs = [b.operand(name) if name else "" for name in node.inputs]
    outputs = [f"{name}_stepped" if name in masked else name for name in node.outputs]
    b.add_many(node.op, inputs, outputs, **node.attributes)
    for stepped, name in zip(outputs, node.outputs, strict=True):
        if name in masked:
            b.add("Where", ["active", stepped, name.removesuffix("_out")], name)


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


def _add_cell(b: GraphBuilder, node: StepNode, precision: str, *, cpu: bool, active: bool) -> None:
    x, *states = node.inputs
    cell = str(node.attributes["cell"])
    names = CELLS[node.op].states
    stepped = tuple(f"{cell}.{name}_stepped" for name in names) if active else node.outputs
    products = {**PRODUCTS, **CPU_PRODUCTS} if cpu else PRODUCTS
    graph = CellGraph(b, node.op, cell, x, tuple(states), stepped, products[precision])
    form = ONNX_CELLS[node.op]
    if cpu and precision == "fp32" and form.operator:
        write_operator(graph)
    else:
        form.write(graph)
    if active:
        for new, state, output in zip(stepped, states, node.outputs, strict=True):
            b.add("Where", ["active", new, state], output)
