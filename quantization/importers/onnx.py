"""An ONNX file with GRU operators to a step model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_gru.errors import DataError, ModelError
from quantization.importers.lift import check_cells, lift
from quantization.importers.trace import (
    Array,
    Trace,
    distinctive_batch,
    first_line,
    reached_from,
    run_once,
    trace,
)
from quantization.step_model import StepModel

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Imported:
    """A step model, the model it stands for, and what to suspect if they differ."""

    model: StepModel
    original: Any  # quantization.importers.proof.Original
    suspects: tuple[str, ...]


def import_onnx(path: Path, n_channels: int) -> Imported:
    """Read an ONNX file with input ``x`` of shape (B, T, n) or (T, B, n) and GRU operators.

    Raises:
        ModelError: unreadable, or no causal step; names the node and the reason.
        DataError: the model takes another number of channels than ``n_channels``.
    """
    proto = _read(path)
    check_cells(proto.graph)
    x = _sequence_input(proto, path)
    _check_width(x, n_channels)
    known, batch_axis = _trace(without_zero_starts(proto), x.name, n_channels)
    output = proto.graph.output[0].name
    if output not in known.varying:
        raise ModelError(f"{path}: output {output!r} does not depend on {x.name!r}")
    model, suspects = lift(known, output)
    return Imported(model, _OnnxOriginal(proto, known, batch_axis), suspects)


def import_traced(
    proto: onnx.ModelProto, x_rows: Float32, batch_axis: int
) -> tuple[StepModel, tuple[str, ...]]:
    """Lift a graph that was exported at one step and ``len(x_rows)`` rows of its only input.

    Raises:
        ModelError: see ``check_cells`` and ``lift``.
    """
    check_cells(proto.graph)
    name = proto.graph.input[0].name
    feed = {name: np.expand_dims(x_rows, 1 - batch_axis)}
    return lift(trace(proto, name, feed, len(x_rows)), proto.graph.output[0].name)


def without_zero_starts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the zeros that exporters hand to GRUs as initial state, often frozen to one batch size.

    Raises:
        ModelError: the model does not run at the shapes it declares.
    """
    starts = {n.input[5]: n for n in proto.graph.node if n.op_type == "GRU" and len(n.input) > 5}
    handed_in = {value.name for value in proto.graph.input}
    names = [name for name in starts if name and name not in handed_in]
    if not names:
        return proto
    feed = {
        v.name: np.ones([d if isinstance(d, int) else 2 for d in _dims(v)], np.float32)
        for v in _inputs(proto)
    }
    exposed = copy.deepcopy(proto)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    reached = reached_from(proto.graph.node, set(feed))
    values = dict(zip(names, run_once(exposed, feed, names), strict=True))
    bare = copy.deepcopy(proto)
    for node in bare.graph.node:
        if node.op_type == "GRU" and len(node.input) > 5:
            start = node.input[5]
            if start in values and start not in reached and not values[start].any():
                node.input[5] = ""
    _drop_unused(bare.graph)
    return bare


def _drop_unused(graph: onnx.GraphProto) -> None:
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def sample_rows(n_batch: int, n_channels: int) -> Float32:
    """Make inputs to trace with: seeded, and unlike zero, where too many operations agree."""
    return np.random.default_rng(1).standard_normal((n_batch, n_channels)).astype(np.float32)


def _read(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except FileNotFoundError as error:
        raise ModelError(f"no model at {path}; check the path") from error
    except Exception as error:
        raise ModelError(f"{path} is no valid ONNX model: {error}; export it again") from error
    return proto


def _sequence_input(proto: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    inputs = _inputs(proto)
    found = [f"{v.name} {_dims(v)}" for v in inputs]
    sequences = [v for v in inputs if len(_dims(v)) == 3]
    if not sequences or sequences[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ModelError(
            f"{path}: expected a float32 input of shape (batch, time, channels) or "
            f"(time, batch, channels), got {', '.join(found)}"
        )
    return sequences[0]


def _inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller feeds: old files list their weights among them too."""
    constants = {t.name for t in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in constants]


def _check_width(x: onnx.ValueInfoProto, n_channels: int) -> None:
    width = _dims(x)[2]
    if isinstance(width, int) and width != n_channels:
        raise DataError(
            f"expected sequences of {width} channels, as the model takes, got {n_channels}"
        )


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim]


def _trace(proto: onnx.ModelProto, x: str, n_channels: int) -> tuple[Trace, int]:
    """Trace at one step; the batch axis of the input is the one that reaches a GRU as its batch."""
    dims = [d for t in proto.graph.initializer for d in t.dims]
    n_batch = distinctive_batch([*dims, n_channels])
    rows = sample_rows(n_batch, n_channels)
    first: Trace | None = None
    reason: ModelError | None = None
    for batch_axis in (0, 1):
        fixed, feed = _with_shapes(proto, x, np.expand_dims(rows, 1 - batch_axis), n_batch)
        try:
            known = trace(fixed, x, feed, n_batch)
        except ModelError as error:
            reason = reason or error
            continue
        if _batch_reaches_gru(known):
            return known, batch_axis
        first = first or known
    if first is None:
        raise reason or ModelError("the model cannot be traced")
    return first, 0


def _batch_reaches_gru(known: Trace) -> bool:
    for node in known.model.graph.node:
        if node.op_type == "GRU":
            layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
            return bool(known.values[node.input[0]].shape[0 if layout else 1] == known.n_batch)
    return False


def _with_shapes(
    proto: onnx.ModelProto, x: str, value: Float32, n_batch: int
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Fix the shapes of all inputs: x to ``value``, the others, states handed in, to zeros."""
    fixed = copy.deepcopy(proto)
    feed: dict[str, Array] = {x: value}
    for entry in _inputs(fixed):
        if entry.name != x:
            shape = [d if isinstance(d, int) else n_batch for d in _dims(entry)]
            if len(shape) == 3:  # a state: layers, batch, hidden
                shape[1] = n_batch
            feed[entry.name] = np.zeros(shape, np.float32)
        dims = entry.type.tensor_type.shape.dim
        for dim, size in zip(dims, feed[entry.name].shape, strict=True):
            dim.dim_value = size
    return fixed, feed


class _OnnxOriginal:
    """The file as onnxruntime runs it, the same sequence in all rows of its batch."""

    def __init__(self, proto: onnx.ModelProto, known: Trace, batch_axis: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._x = known.x
        self._batch_axis = batch_axis
        declared = next(v for v in proto.graph.input if v.name == known.x)
        n_steps, n_rows = _dims(declared)[1 - batch_axis], _dims(declared)[batch_axis]
        self.window_steps = n_steps if isinstance(n_steps, int) else None
        self._n_rows = n_rows if isinstance(n_rows, int) else 1
        self._others = {
            name: np.zeros(
                [self._n_rows if d == known.n_batch else d for d in value.shape], np.float32
            )
            for name, value in known.values.items()
            if name in {v.name for v in self._session.get_inputs()} and name != known.x
        }

    def run(self, sequence: Float32) -> Float32:
        x = np.repeat(np.expand_dims(sequence, self._batch_axis), self._n_rows, self._batch_axis)
        feed = {**self._others, self._x: x}
        try:
            y = self._session.run(None, feed)[0]
        except Exception as error:
            raise ModelError(
                f"the model does not run on {len(sequence)} steps: {first_line(error)}"
            ) from error
        rows: Float32 = y[0] if self._batch_axis == 0 or y.ndim == 2 else y[:, 0]
        return rows
