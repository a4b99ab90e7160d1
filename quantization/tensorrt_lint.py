"""The rules that TensorRT's explicit quantization lays on a step graph, checked before a board is.

TensorRT 10.3 to 11.4 refuse some of these graphs with an error, build others without INT8, and run
a few of them wrong; each rule says which. The names of nodes are those of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

MAX_OPSET = 20  # the newest that the parser of TensorRT 10.3 reads
_INTEGER_OPERATORS = (
    "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
)  # fmt: skip
_RECURRENT = ("GRU", "LSTM", "RNN")
_LOOPS = ("Loop", "Scan", "If")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule, and what would come of it."""

    node: str
    rule: str

    def __str__(self) -> str:
        return f"{self.node}: {self.rule}"


class _Graph:
    """A graph with its constants and who makes and reads what."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = model.graph.node
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.made_by = {name: node for node in self.nodes for name in node.output}
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]

    def is_dequantized(self, name: str) -> bool:
        return name in self.made_by and self.made_by[name].op_type == "DequantizeLinear"

    def is_rounded(self, name: str, of: str) -> bool:
        """Whether a value is another one, quantized and dequantized."""
        if not self.is_dequantized(name):
            return False
        source = self.made_by.get(self.made_by[name].input[0])
        return source is not None and source.input[0] == of


def lint(model: onnx.ModelProto) -> list[Finding]:
    """Find what TensorRT refuses, does not make INT8, or gets wrong in a step graph."""
    graph = _Graph(model)
    findings = [*_check_versions(model), *_check_states(graph), *_check_batch(model)]
    for node in graph.nodes:
        found = [*_check_operator(node), *_check_quantizer(graph, node)]
        found += [*_check_product(graph, node), *_check_blend(graph, node)]
        findings += [Finding(f"{node.op_type} {node.name}".strip(), rule) for rule in found]
    return findings


def _check_versions(model: onnx.ModelProto) -> Iterator[Finding]:
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset > MAX_OPSET:
        yield Finding("graph", f"expected opset {MAX_OPSET} or older, got {opset}")


def _check_batch(model: onnx.ModelProto) -> Iterator[Finding]:
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if not dims or not dims[0].dim_param:
            yield Finding(value.name, "expected a free batch on axis 0: one engine, any streams")


def _check_states(graph: _Graph) -> Iterator[Finding]:
    """Servers pair states by the sorted order of their names: wrong pairs are silent."""
    states = sorted(n for n in graph.inputs if n not in ("x", "active"))
    after = sorted(n for n in graph.outputs if n != "y")
    if after != [f"{name}_out" for name in states]:
        yield Finding("graph", f"expected states {states} to sort into pairs, got {after}")
    for name in after:
        if graph.is_dequantized(name):
            yield Finding(name, "the carried state is dequantized: slow memory sticks to the grid")


def _check_operator(node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type in _INTEGER_OPERATORS:
        yield "TensorRT has no such operator; expected QuantizeLinear and DequantizeLinear"
    if node.op_type in _LOOPS:
        yield "TensorRT quantizes nothing in loops and branches; expected one step"
    if node.op_type in _RECURRENT:
        yield (
            "TensorRT builds a loop of it, in float, and captures no CUDA graph of the step; "
            "expected plain operations"
        )


def _check_quantizer(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type not in _QUANTIZERS:
        return
    scale = graph.constants.get(node.input[1])
    if scale is None or not (scale > 0).all():
        yield "expected a constant, positive scale"
        return
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else np.array(0, np.int8)
    if zero is None or zero.dtype == np.uint8:
        yield "expected int8, got uint8: TensorRT builds it as int8, wrong above 127"
    elif zero.dtype != np.int8 or zero.any():
        yield f"expected int8 with zero point 0, got {zero.dtype} with {np.unique(zero).tolist()}"
    is_weight = node.input[0] in graph.constants
    if scale.size > 1 and not is_weight:
        yield "expected one scale for an activation: per channel, TensorRT makes no INT8 product"
    if is_weight and scale.size > 1 and "axis" not in {a.name for a in node.attribute}:
        yield "expected the axis written out: the parser of TensorRT 10.1 takes 0 where ONNX says 1"


def _check_product(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type not in _PRODUCTS:
        return
    quantized = [graph.is_dequantized(name) for name in node.input[:2]]
    if any(quantized) and not all(quantized):
        yield "expected both operands quantized or none: else TensorRT multiplies in float"
    if not all(quantized):
        return
    weight = graph.made_by[node.input[1]]
    attributes = {a.name: helper.get_attribute_value(a) for a in weight.attribute}
    per_column = 0 if _is_transposed(node) else 1
    scale = graph.constants.get(weight.input[1], np.ones(1))
    if scale.size > 1 and attributes.get("axis", 1) != per_column:
        yield f"expected weight scales on axis {per_column}, one a column: else no INT8 product"
    if len(node.input) > 2 and graph.is_dequantized(node.input[2]):
        yield "expected a float bias: a dequantized one is a parse error"


def _is_transposed(node: onnx.NodeProto) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def _check_blend(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type in (*_PRODUCTS, *_QUANTIZERS):
        return
    if node.op_type == "Sub" and graph.is_rounded(node.input[1], node.input[0]):
        return  # what the rounding of an operand leaves, for its second row
    if any(graph.is_dequantized(name) for name in node.input):
        yield "reads a dequantized value outside a product: what it makes lives on the grid"
