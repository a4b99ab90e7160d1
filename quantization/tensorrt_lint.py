"""The rules that TensorRT's explicit quantization lays on a step graph, checked before a board is.

TensorRT 10.3 to 11.4 refuse some of these graphs with an error, build others without INT8, and run
a few of them wrong; each rule says which. The names of nodes are those of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_gru.engines.operators import OPERATORS

MIN_OPSET = 13  # from here on scales have an axis, and Split takes its sizes as an input
MAX_OPSET = 20  # the newest that the parser of TensorRT 10.3 reads
MAX_IR = 10  # of the ONNX release that it was built with
_INTEGER_OPERATORS = (
    "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
)  # fmt: skip
_RECURRENT = ("GRU", "LSTM", "RNN")
_LOOPS = ("Loop", "Scan", "If")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_PRODUCTS = ("MatMul", "Gemm")
# NVIDIA's parser was seen to read each of these in a step.
_READ = {
    *OPERATORS, *_QUANTIZERS, "Cast", "Expand", "Identity", "Reshape", "Shape", "Split", "Squeeze",
    "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


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

    def is_constant(self, name: str) -> bool:
        """Whether a value is a constant, or one that is quantized in the graph."""
        if name in self.constants:
            return True
        maker = self.made_by.get(name)
        return (
            maker is not None
            and maker.op_type == "QuantizeLinear"
            and self.is_constant(maker.input[0])
        )

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
    findings = [*_check_versions(model), *_check_types(model), *_check_states(graph)]
    findings += [*_check_batch(model), *_check_constants(graph)]
    for node in graph.nodes:
        found = [*_check_operator(node), *_check_quantizer(graph, node)]
        found += [*_check_product(graph, node), *_check_blend(graph, node)]
        findings += [Finding(f"{node.op_type} {node.name}".strip(), rule) for rule in found]
    return findings


def _check_versions(model: onnx.ModelProto) -> Iterator[Finding]:
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset > MAX_OPSET:
        yield Finding("graph", f"expected opset {MAX_OPSET} or older, got {opset}")
    if opset < MIN_OPSET:
        yield Finding("graph", f"expected opset {MIN_OPSET} or newer, got {opset}")
    if model.ir_version > MAX_IR:
        yield Finding("graph", f"expected IR {MAX_IR} or older, got {model.ir_version}")


def _check_types(model: onnx.ModelProto) -> Iterator[Finding]:
    """TensorRT takes the types of a graph as they are, and refuses what does not fit together."""
    for value in [*model.graph.input, *model.graph.output]:
        expected = TensorProto.BOOL if value.name == "active" else TensorProto.FLOAT
        found = value.type.tensor_type.elem_type
        if found != expected:
            yield Finding(value.name, f"expected {_type(expected)}, got {_type(found)}")
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        yield Finding("graph", f"its types or shapes do not fit: {' '.join(str(error).split())}")


def _type(number: int) -> str:
    return TensorProto.DataType.Name(number)


def _check_constants(graph: _Graph) -> Iterator[Finding]:
    for name, value in graph.constants.items():
        if value.dtype == np.float64:
            yield Finding(name, "TensorRT rounds float64 to float32; expected that to begin with")


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
    if node.domain not in ("", "ai.onnx"):
        yield f"TensorRT goes by the name alone and takes {node.domain}'s for that of ONNX"
    if node.op_type in _INTEGER_OPERATORS:
        yield "TensorRT has no such operator; expected QuantizeLinear and DequantizeLinear"
    if node.op_type in _LOOPS:
        yield "TensorRT quantizes nothing in loops and branches; expected one step"
    if node.op_type in _RECURRENT:
        yield (
            "TensorRT builds a loop of it, in float, and captures no CUDA graph of the step; "
            "expected plain operations"
        )
    known = (*_INTEGER_OPERATORS, *_LOOPS, *_RECURRENT)
    if node.op_type not in _READ and node.op_type not in known:
        yield "TensorRT's parser was never seen to read it; expected the operations of a step"


def _check_quantizer(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type not in _QUANTIZERS:
        return
    scale = graph.constants.get(node.input[1])
    if scale is None or not (scale > 0).all():
        yield "expected a constant, positive scale"
        return
    if scale.dtype != np.float32:
        yield f"expected scales in float32, got {scale.dtype}: the types do not fit the product's"
    yield from _check_integers(graph, node)
    is_weight = graph.is_constant(node.input[0])
    if scale.size > 1 and not is_weight:
        yield "expected one scale for an activation: per channel, TensorRT makes no INT8 product"
    if is_weight and scale.size > 1:
        yield from _check_axis(graph, node, scale.size)


def _check_integers(graph: _Graph, node: onnx.NodeProto) -> Iterator[str]:
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else np.array(0, np.int8)
    if zero is None or zero.dtype == np.uint8:
        yield "expected int8, got uint8: TensorRT builds it as int8, wrong above 127"
    elif zero.dtype != np.int8 or zero.any():
        yield f"expected int8 with zero point 0, got {zero.dtype} with {np.unique(zero).tolist()}"
    values = graph.constants.get(node.input[0])
    if node.op_type == "DequantizeLinear" and values is not None and values.dtype != np.int8:
        yield f"expected int8 to dequantize, got {values.dtype}: a parse error"


def _check_axis(graph: _Graph, node: onnx.NodeProto, n_scales: int) -> Iterator[str]:
    axes = [a.i for a in node.attribute if a.name == "axis"]
    if not axes:
        yield "expected the axis written out: the parser of TensorRT 10.1 takes 0 where ONNX says 1"
    shape = _shape(graph, node.input[0])
    if axes and shape and shape[axes[0]] != n_scales:
        yield f"expected {shape[axes[0]]} scales on axis {axes[0]}, got {n_scales}: a parse error"


def _shape(graph: _Graph, name: str) -> tuple[int, ...]:
    """Give the shape of a constant, or of what one is quantized to."""
    while name not in graph.constants:
        name = graph.made_by[name].input[0]
    value: npt.NDArray[np.generic] = graph.constants[name]
    return value.shape


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
