"""Rules that turn one traced node into operations on ``(batch, n)`` arrays.

A rule returns False where it does not apply; the node then keeps its own axes between two reshapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from edge_gru.errors import ModelError
from quantization.importers.emitter import Emitter
from quantization.importers.recurrence import attributes_of
from quantization.importers.trace import Trace, map_indices

Rule = Callable[[Emitter, onnx.NodeProto], bool]


def _unary(emitter: Emitter, node: onnx.NodeProto) -> bool:
    inputs = [emitter.name_of(node.input[0])]
    return emitter.emit(node.op_type, inputs, node.output[0], **attributes_of(node))


def _elementwise(emitter: Emitter, node: onnx.NodeProto) -> bool:
    """Two operands, either of them a constant that is spread over the row."""
    output = node.output[0]
    if len(node.input) != 2:
        return False
    inputs = []
    for k, source in enumerate(node.input):
        if emitter.trace.is_constant(source):
            inputs.append(emitter.rows_like(f"{output}.{k}", source, output))
        elif emitter.width(source) in (1, emitter.width(output)):
            inputs.append(emitter.name_of(source))
        else:
            return False
    return emitter.emit(node.op_type, inputs, output)


def _clip(emitter: Emitter, node: onnx.NodeProto) -> bool:
    limits = attributes_of(node)  # opset 6 has them as attributes
    inputs = [emitter.name_of(node.input[0])]
    for k, key in enumerate(("min", "max"), start=1):
        source = node.input[k] if len(node.input) > k else ""
        value = emitter.trace.values[source] if source else limits.get(key)
        name = f"{node.output[0]}.{key}"
        inputs.append(
            "" if value is None else emitter.constant(name, np.float32(value).reshape(()))
        )
    return emitter.emit("Clip", inputs, node.output[0])


def _matmul(emitter: Emitter, node: onnx.NodeProto) -> bool:
    a, b = node.input
    if not emitter.trace.is_constant(b) or emitter.trace.values[b].ndim != 2:
        return False
    weight = emitter.trace.values[b]
    if emitter.width(a) != weight.shape[0]:
        return False
    inputs = [emitter.name_of(a), emitter.constant(f"{node.output[0]}.w", weight)]
    return emitter.emit("MatMul", inputs, node.output[0])


def _gemm(emitter: Emitter, node: onnx.NodeProto) -> bool:
    a, *others = node.input
    attributes = attributes_of(node)
    if attributes.get("transA") or not all(emitter.trace.is_constant(n) for n in others):
        return False
    inputs = [emitter.name_of(a)]
    for letter, source in zip("bc", others, strict=False):
        inputs.append(emitter.constant(f"{node.output[0]}.{letter}", emitter.trace.values[source]))
    return emitter.emit("Gemm", inputs, node.output[0], **attributes)


def _layer_normalization(emitter: Emitter, node: onnx.NodeProto) -> bool:
    source, output = node.input[0], node.output[0]
    attributes = attributes_of(node)
    shape = emitter.trace.values[source].shape
    if math.prod(shape[int(attributes.get("axis", -1)) :]) != emitter.width(source):
        return False
    inputs = [emitter.name_of(source)]
    for letter, name in zip("wb", node.input[1:], strict=False):
        inputs.append(emitter.rows_like(f"{output}.{letter}", name, output))
    epsilon = float(attributes.get("epsilon", 1e-5))
    return emitter.emit("LayerNormalization", inputs, output, axis=-1, epsilon=epsilon)


def _softmax(emitter: Emitter, node: onnx.NodeProto) -> bool:
    source = node.input[0]
    default = -1 if emitter.trace.opset >= 13 else 1
    axis = int(attributes_of(node).get("axis", default))
    if emitter.trace.values[source].shape[axis] == 1 and emitter.width(source) > 1:
        emitter.suspect(node, "normalises over an axis of one step: over time")
        return False
    return emitter.emit(node.op_type, [emitter.name_of(source)], node.output[0], axis=1)


def _row_mean(emitter: Emitter, node: onnx.NodeProto) -> bool:
    """The mean of a whole row, as a product: exporters before opset 17 write a LayerNorm so."""
    source, output = node.input[0], node.output[0]
    width = emitter.width(source)
    if width == 1 or emitter.width(output) != 1:
        return False
    weight = emitter.constant(f"{output}.mean", np.full((width, 1), 1 / width))
    return emitter.emit("MatMul", [emitter.name_of(source), weight], output)


def _concat(emitter: Emitter, node: onnx.NodeProto) -> bool:
    if any(emitter.trace.is_constant(source) for source in node.input):
        return False
    return emitter.emit("Concat", [emitter.name_of(s) for s in node.input], node.output[0], axis=1)


def _batch_normalization(emitter: Emitter, node: onnx.NodeProto) -> bool:
    """Two operations on the running statistics, computed in float64."""
    source, output = node.input[0], node.output[0]
    values = (emitter.trace.values[name].astype(np.float64) for name in node.input[1:5])
    scale, bias, mean, variance = values
    factor = scale / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    n_inner = emitter.width(source) // len(factor)
    if n_inner * len(factor) != emitter.width(source):
        return False
    mul = emitter.constant(f"{output}.factor", np.repeat(factor, n_inner))
    add = emitter.constant(f"{output}.offset", np.repeat(bias - mean * factor, n_inner))
    scaled = emitter.emit_between("Mul", [emitter.name_of(source), mul], f"v.{output}.scaled")
    return emitter.emit("Add", [scaled, add], output)


def _gelu(emitter: Emitter, node: onnx.NodeProto) -> bool:
    """``0.5 x (1 + erf(x / sqrt 2))`` (Hendrycks and Gimpel 2016), in operators of any version."""
    if attributes_of(node).get("approximate", "none") != "none":
        return False
    output, x = node.output[0], emitter.name_of(node.input[0])
    root, one, half = (
        emitter.constant(f"{output}.{name}", np.array([value], np.float32))
        for name, value in (("root", math.sqrt(2)), ("one", 1.0), ("half", 0.5))
    )
    ratio = emitter.emit_between("Div", [x, root], f"v.{output}.ratio")
    erf = emitter.emit_between("Erf", [ratio], f"v.{output}.erf")
    shifted = emitter.emit_between("Add", [erf, one], f"v.{output}.shifted")
    scaled = emitter.emit_between("Mul", [x, half], f"v.{output}.scaled")
    return emitter.emit("Mul", [scaled, shifted], output)


def _move(emitter: Emitter, node: onnx.NodeProto) -> bool:
    """Nodes that only move values: nothing, a slice, or a gather of a row's elements."""
    sources = [name for name in node.input if name and not emitter.trace.is_constant(name)]
    if len(sources) != 1:
        return False
    source = sources[0]
    if node.op_type == "ReverseSequence" or _is_reversed(emitter.trace, node):
        emitter.suspect(node, "reads an axis of one step backwards: over time")
    for output, taken in map_indices(node, emitter.trace, source).items():
        if len(taken):  # an exporter may split off nothing
            _emit_taken(emitter, source, output, taken)
    return True


def _emit_taken(emitter: Emitter, source: str, output: str, taken: np.ndarray[Any, Any]) -> None:
    first, name = int(taken[0]), emitter.name_of(source)
    if not np.array_equal(taken, np.arange(first, first + len(taken))):
        indices = emitter.constant(f"{output}.indices", taken)
        emitter.emit("Gather", [name, indices], output, axis=1)
    elif len(taken) == emitter.width(source):
        emitter.alias(output, name)
    else:
        bounds = {"starts": first, "ends": first + len(taken), "axes": 1}
        limits = [emitter.constant(f"{output}.{k}", np.array([v])) for k, v in bounds.items()]
        emitter.emit("Slice", [name, *limits], output)


def _is_reversed(trace: Trace, node: onnx.NodeProto) -> bool:
    if node.op_type != "Slice" or len(node.input) < 5 or not node.input[4]:
        return False
    return bool((trace.values[node.input[4]] < 0).any())


_UNARY = (
    *("Abs", "Elu", "Erf", "Exp", "HardSigmoid", "LeakyRelu", "Log", "Neg"),
    *("Reciprocal", "Relu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
)
_MOVES = (
    *("Expand", "Flatten", "Gather", "Identity", "Reshape", "ReverseSequence", "Slice"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"), _elementwise),
    **dict.fromkeys(_MOVES, _move),
    "Clip": _clip,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Concat": _concat,
    "BatchNormalization": _batch_normalization,
    "Gelu": _gelu,
    "ReduceMean": _row_mean,
}


def flatten_other(emitter: Emitter, node: onnx.NodeProto) -> None:
    """Keep a node that no rule covers, with its own axes restored around it.

    Raises:
        ModelError: it needs a tensor as attribute, or a constant with the batch size in it.
    """
    sources = [name for name in node.input if name and not emitter.trace.is_constant(name)]
    output = node.output[0]
    if _does_nothing(emitter, sources, output):
        if node.op_type not in ("Cast", "Dropout"):
            emitter.suspect(node, _remark(node.op_type))
        emitter.alias(output, emitter.name_of(sources[0]))
        return
    if node.op_type in ("Conv", "ConvTranspose") and _sees_more_than_there_is(emitter.trace, node):
        emitter.suspect(node, "has a kernel longer than one step: over time")
    inputs = [_restored(emitter, node, name) if name else "" for name in node.input]
    for name, value in attributes_of(node).items():
        if isinstance(value, onnx.TensorProto):
            raise ModelError(f"{node.op_type} ({node.name}) has a tensor as attribute {name!r}")
    raw = f"v.{output}.raw"
    emitter.emit_foreign(node.op_type, inputs, raw, **attributes_of(node))
    axis = emitter.trace.batch_axis(output)
    order = [axis, *(k for k in range(emitter.trace.values[output].ndim) if k != axis)]
    if axis:
        raw = emitter.emit_foreign("Transpose", [raw], f"{raw}.rows", perm=order)
    shape = emitter.constant(f"{output}.flat", np.array([-1, emitter.width(output)]))
    emitter.alias(output, emitter.emit_foreign("Reshape", [raw, shape], f"v.{output}"))


def _remark(op: str) -> str:
    if op.startswith("Reduce") or op.endswith("Pool"):
        return "pools over an axis of one step: over time"
    return "does nothing at one step: it may work over time"


def _does_nothing(emitter: Emitter, sources: list[str], output: str) -> bool:
    if len(sources) != 1:
        return False
    before, after = emitter.trace.flat(sources[0]), emitter.trace.flat(output)
    return before.shape == after.shape and bool(np.array_equal(before, after))


def _sees_more_than_there_is(trace: Trace, node: onnx.NodeProto) -> bool:
    spatial = trace.values[node.input[0]].shape[2:]
    kernel = trace.values[node.input[1]].shape[2:]
    return any(k > 1 and n == 1 for k, n in zip(kernel, spatial, strict=True))


def _restored(emitter: Emitter, node: onnx.NodeProto, source: str) -> str:
    """An input with the axes that it has in the traced graph."""
    trace, output = emitter.trace, node.output[0]
    if trace.is_constant(source):
        if trace.n_batch in trace.values[source].shape:
            raise ModelError(f"{node.op_type} ({node.name}) is frozen to one batch size")
        return emitter.constant(f"{output}.{source}.value", trace.values[source])
    axis, shape = trace.batch_axis(source), trace.row_shape(source)
    target = emitter.constant(f"{output}.{source}.shape", np.array([-1, *shape]))
    inputs = [emitter.name_of(source), target]
    name = emitter.emit_foreign("Reshape", inputs, f"v.{output}.{source}.rows")
    if axis:
        order = [*range(1, axis + 1), 0, *range(axis + 1, len(shape) + 1)]
        name = emitter.emit_foreign("Transpose", [name], f"v.{output}.{source}", perm=order)
    return name
