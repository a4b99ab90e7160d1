"""What exporters get wrong with a recurrence, undone one at a time to see which undoing fits."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantization.importers.onnx_rewrite import constant_of
from quantization.importers.recurrence import OPERATORS, attributes_of
from quantization.step_model import Array

_GATES = {"GRU": ("z", "r", "n"), "LSTM": ("i", "o", "f", "g"), "RNN": ("n",)}


def repaired(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the model with one fault of its cells undone, and the sentence that names the fault."""
    kinds = {node.op_type for node in proto.graph.node if node.op_type in OPERATORS}
    if "GRU" in kinds:
        yield _reset_sentence(proto), _with_other_reset(proto)
        swapped = _with_biases_swapped(proto)
        yield "biases: those of x and of h are stored in each other's place", swapped
    for kind in sorted(kinds):
        gates = _GATES[kind]
        for order in list(itertools.permutations(gates))[1:]:
            sentence = (
                f"gate order: the gates of {kind} are stored as {', '.join(order)}, "
                f"but ONNX reads them as {', '.join(gates)}"
            )
            reordered = _with_gates(proto, kind, order)
            yield sentence, reordered
            if kind == "GRU":
                yield f"{sentence}; and {_reset_sentence(proto)}", _with_other_reset(reordered)


def crossings(pairs: Mapping[str, str | None]) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield other ways to pair states with outputs, and the sentence that says so."""
    names, outputs = list(pairs), list(pairs.values())
    for other in list(itertools.permutations(outputs))[1:]:
        crossed = dict(zip(names, other, strict=True))
        moved = [f"{o!r} is the next {n!r}" for n, o in crossed.items() if o != pairs[n]]
        yield f"swapped state pairs: {', '.join(moved)}", crossed


def lengths_in(proto: onnx.ModelProto) -> list[int]:
    """Numbers that a time axis may be frozen to: the integers in the constants of the model."""
    found: set[int] = set()
    for tensor in [*proto.graph.initializer, *_constants(proto)]:
        if tensor.data_type == onnx.TensorProto.INT64:
            found.update(int(v) for v in numpy_helper.to_array(tensor).reshape(-1))
    return sorted(size for size in found if 1 < size <= 10_000)


def _constants(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    nodes = (node for node in proto.graph.node if node.op_type == "Constant")
    return [value for node in nodes if (value := attributes_of(node).get("value")) is not None]


def _reset_sentence(proto: onnx.ModelProto) -> str:
    gru = next(node for node in proto.graph.node if node.op_type == "GRU")
    is_late = bool(attributes_of(gru).get("linear_before_reset", 0))
    return (
        f"reset convention: it has linear_before_reset={int(is_late)}, the network was trained "
        f"with {int(not is_late)}"
    )


def _with_other_reset(proto: onnx.ModelProto) -> onnx.ModelProto:
    changed = copy.deepcopy(proto)
    for node in changed.graph.node:
        if node.op_type == "GRU":
            is_late = attributes_of(node).get("linear_before_reset", 0)
            kept = [a for a in node.attribute if a.name != "linear_before_reset"]
            del node.attribute[:]
            node.attribute.extend(
                [*kept, helper.make_attribute("linear_before_reset", int(not is_late))]
            )
    return changed


def _with_biases_swapped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Swap the halves of B: they matter apart only where the reset gate acts on one of them."""
    changed = copy.deepcopy(proto)
    for node in changed.graph.node:
        bias = node.input[3] if node.op_type == "GRU" and len(node.input) > 3 else ""
        value = constant_of(changed.graph, bias) if bias else None
        if value is not None:
            node.input[3] = f"{node.output[0] or node.name}.swapped"
            halves = np.split(value, 2, axis=1)[::-1]
            tensor = numpy_helper.from_array(np.concatenate(halves, axis=1), node.input[3])
            changed.graph.initializer.append(tensor)
    return changed


def _with_gates(proto: onnx.ModelProto, kind: str, order: Sequence[str]) -> onnx.ModelProto:
    """Read the blocks of every such cell as gates in ``order``, and put them as ONNX has them."""
    changed = copy.deepcopy(proto)
    places = [order.index(gate) for gate in _GATES[kind]]
    for node in changed.graph.node:
        if node.op_type != kind:
            continue
        for k, source in enumerate(node.input[1:4], start=1):
            value = constant_of(changed.graph, source) if source else None
            if value is not None:
                name = f"{node.output[0] or node.name}.reordered_{k}"
                node.input[k] = name
                moved = _moved(value, places, n_parts=2 if k == 3 else 1)
                changed.graph.initializer.append(numpy_helper.from_array(moved, name))
    return changed


def _moved(value: Array, places: Sequence[int], n_parts: int) -> Array:
    parts = []
    for part in np.split(value, n_parts, axis=1):
        blocks = np.split(part, len(places), axis=1)
        parts += [blocks[place] for place in places]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))
