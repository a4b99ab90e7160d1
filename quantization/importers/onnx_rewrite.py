"""Other people's ONNX files in the one form that the tracer reads; the meaning stays the same."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from edge_gru.errors import ModelError
from quantization.importers.emitter import CLOSED_SET_OPSET
from quantization.importers.recurrence import OPERATORS, attributes_of
from quantization.importers.trace import Array, reached_from, run_once

_TIME_FIRST = [1, 0, 2]
_LENGTHS = 4  # position of sequence_lens among the inputs of an operator
_STARTS = (5, 6)  # of initial_h and initial_c


def feeds_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller feeds: old files list their weights among them too."""
    constants = {t.name for t in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def dims_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """Dimensions of a graph input: numbers, or names where the caller chooses."""
    return [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim]


def in_newer_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a file older than the step graph's opset, if ONNX's own converter can."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= CLOSED_SET_OPSET:
        return proto
    try:
        converted = version_converter.convert_version(proto, CLOSED_SET_OPSET)
        onnx.checker.check_model(converted)
    except (RuntimeError, onnx.checker.ValidationError):
        return proto
    return converted


def with_time_first(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put transposes around operators with ``layout=1``, which onnxruntime does not run."""
    if not any(_is_batch_first(node) for node in proto.graph.node):
        return proto
    rewritten = copy.deepcopy(proto)
    nodes = list(rewritten.graph.node)
    del rewritten.graph.node[:]
    for node in nodes:
        replaced = _time_first(node) if _is_batch_first(node) else [node]
        rewritten.graph.node.extend(replaced)
    return rewritten


def _is_batch_first(node: onnx.NodeProto) -> bool:
    return node.op_type in OPERATORS and bool(attributes_of(node).get("layout"))


def _time_first(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    before, after = [], []
    for k in (0, *_STARTS):
        if len(node.input) > k and node.input[k]:
            name = f"{node.output[0] or node.name}.in_{k}"
            before.append(helper.make_node("Transpose", [node.input[k]], [name], perm=_TIME_FIRST))
            node.input[k] = name
    for k, name in enumerate(node.output):
        if name:
            perm = _TIME_FIRST if k else [2, 0, 1, 3]
            after.append(helper.make_node("Transpose", [f"{name}.time_first"], [name], perm=perm))
            node.output[k] = f"{name}.time_first"
    kept = [a for a in node.attribute if a.name != "layout"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return [*before, node, *after]


def without_lengths(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop constant sequence lengths that are all the same, often frozen to one batch size.

    That they are those of whole sequences is for the proof to find out.
    """
    bare = copy.deepcopy(proto)
    for node in bare.graph.node:
        if node.op_type in OPERATORS and len(node.input) > _LENGTHS and node.input[_LENGTHS]:
            lengths = constant_of(bare.graph, node.input[_LENGTHS])
            if lengths is not None and (lengths == lengths.reshape(-1)[:1]).all():
                node.input[_LENGTHS] = ""
    return bare


def with_free_starts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Free constant initial states, often frozen to one batch size: zeros go, others are spread.

    Raises:
        ModelError: the model does not run at the shapes it declares, or starts from constants that
            differ from row to row of the batch.
    """
    values = _constant_starts(proto)
    if not values:
        return proto
    bare = copy.deepcopy(proto)
    nodes = list(bare.graph.node)
    del bare.graph.node[:]
    for node in nodes:
        for k in _STARTS:
            if node.op_type in OPERATORS and len(node.input) > k and node.input[k] in values:
                value = values[node.input[k]]
                node.input[k] = _spread(bare.graph, node, k, value) if value.any() else ""
        bare.graph.node.append(node)
    _drop_unused(bare.graph)
    return bare


def _constant_starts(proto: onnx.ModelProto) -> dict[str, Array]:
    """Initial states that do not depend on what the caller feeds, with their values."""
    feeds = feeds_of(proto.graph)
    reached = reached_from(proto.graph.node, {value.name for value in feeds})
    names = {
        node.input[k]
        for node in proto.graph.node
        for k in _STARTS
        if node.op_type in OPERATORS and len(node.input) > k and node.input[k] not in {"", *reached}
    }
    if not names:
        return {}
    exposed = copy.deepcopy(proto)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    _drop_unused(exposed.graph)
    feed = {
        v.name: np.ones([d if isinstance(d, int) else 2 for d in dims_of(v)], np.float32)
        for v in feeds
    }
    return dict(zip(sorted(names), run_once(exposed, feed, sorted(names)), strict=True))


def _spread(graph: onnx.GraphProto, node: onnx.NodeProto, k: int, value: Array) -> str:
    """Repeat one row of a start (D, batch, H) for whatever batch the operator's input has."""
    if not (value == value[:, :1]).all():
        raise ModelError(
            f"{node.op_type} ({node.name}) starts from states that differ from row to row"
        )
    start = f"{node.output[0] or node.name}.start_{k}"

    def constant(name: str, array: Array) -> str:
        graph.initializer.append(numpy_helper.from_array(array, f"{start}.{name}"))
        return f"{start}.{name}"

    n_directions, _, width = value.shape
    ends = [constant("first", np.array([n_directions])), constant("last", np.array([width]))]
    batch = [f"{start}.shape", constant("axis", np.array([1]))]
    row = constant("row", np.ascontiguousarray(value[:, :1]))
    graph.node.extend(
        [
            helper.make_node("Shape", [node.input[0]], [f"{start}.shape"]),
            helper.make_node("Gather", batch, [f"{start}.batch"]),
            helper.make_node(
                "Concat", [ends[0], f"{start}.batch", ends[1]], [f"{start}.to"], axis=0
            ),
            helper.make_node("Expand", [row, f"{start}.to"], [start]),
        ]
    )
    return start


def _drop_unused(graph: onnx.GraphProto) -> None:
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def with_shapes_for(
    proto: onnx.ModelProto, feed: Mapping[str, Array], n_batch: int, frozen: Sequence[int]
) -> onnx.ModelProto:
    """Rewrite constant targets of reshapes for one time step and ``n_batch`` rows.

    ``frozen`` has the rows and the steps that the file was exported for, 0 for free. Which number
    of a target stands for which is tried; the proof on whole sequences finds a wrong guess.

    Raises:
        ModelError: a part of the model before a reshape does not run at these shapes.
    """
    freed = copy.deepcopy(proto)
    del freed.graph.value_info[:]
    for k, node in enumerate(freed.graph.node):
        target = constant_of(freed.graph, node.input[1]) if node.op_type == "Reshape" else None
        if target is None:
            continue
        shape = _value_before(freed, k, node.input[0], feed).shape
        found = next(_targets(shape, target.tolist(), n_batch, frozen), None)
        if found is not None:
            name = f"{node.output[0]}.target"
            freed.graph.initializer.append(numpy_helper.from_array(np.array(found), name))
            node.input[1] = name
    return freed


def constant_of(graph: onnx.GraphProto, name: str) -> Array | None:
    """Value of an initializer or of a Constant node; None: the name is neither."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in graph.node:
        if name in node.output and node.op_type == "Constant":
            value = attributes_of(node).get("value")
            return None if value is None else numpy_helper.to_array(value)
    return None


def _value_before(proto: onnx.ModelProto, k: int, name: str, feed: Mapping[str, Array]) -> Array:
    """Run the nodes before the k-th alone: those after it may not run at these shapes yet."""
    if name in feed:
        return feed[name]
    part = copy.deepcopy(proto)
    del part.graph.node[k:]
    del part.graph.output[:]
    part.graph.output.append(onnx.ValueInfoProto(name=name))
    return run_once(part, feed, [name])[0]


def _targets(
    shape: tuple[int, ...], target: list[int], n_batch: int, frozen: Sequence[int]
) -> Iterator[list[int]]:
    """Targets with as many elements as there are, those with the most replaced numbers first."""
    n_rows, n_steps = frozen
    if not n_rows:  # the file leaves the batch free, or says so and holds one row
        yield from _swapped(shape, target, n_batch, {n_steps: 1})
        n_rows = 1
    n_steps = n_steps or 1
    swaps = {n_rows: n_batch, n_steps: 1, n_rows * n_steps: n_batch}
    yield from _swapped(shape, target, n_batch, swaps)


def _swapped(
    shape: tuple[int, ...], target: list[int], n_batch: int, swaps: Mapping[int, int]
) -> Iterator[list[int]]:
    options = []
    for axis, size in enumerate(target):
        size = shape[axis] if size == 0 else size  # noqa: PLW2901 - ONNX: the size it has
        options.append([size] if size not in swaps else [swaps[size], n_batch, 1, size])
    for chosen in itertools.product(*options):
        known = math.prod(size for size in chosen if size != -1)
        is_whole = known == math.prod(shape) if -1 not in chosen else not math.prod(shape) % known
        if is_whole and (chosen.count(n_batch) == 1 or -1 in chosen):
            yield list(chosen)
