"""An ONNX file with recurrent operators to a step model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_gru.errors import ModelError
from quantization.importers.lift import lift
from quantization.importers.onnx_loops import open_loops
from quantization.importers.onnx_rewrite import (
    dims_of,
    feeds_of,
    in_newer_opset,
    with_free_starts,
    with_shapes_for,
    with_time_first,
    without_lengths,
)
from quantization.importers.onnx_states import Ports, find_ports
from quantization.importers.recurrence import (
    OPERATORS,
    Recurrence,
    find_recurrences,
    refuse_unknown,
)
from quantization.importers.trace import (
    Array,
    Trace,
    distinctive_batch,
    first_line,
    reached_from,
    trace,
)
from quantization.importers.written_out import find_written_out
from quantization.step_model import StepModel

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Imported:
    """A step model, the model it stands for, and what to suspect if they differ."""

    model: StepModel
    original: Any  # quantization.importers.proof.Original
    suspects: tuple[str, ...]


def import_onnx(path: Path, n_channels: int) -> Imported:
    """Read an ONNX file with recurrent operators.

    Its input is a sequence (B, T, n) or (T, B, n), or one step (B, n) beside its states.

    Raises:
        ModelError: unreadable, or no causal step; names the node and the reason.
        DataError: the model takes another number of channels than ``n_channels``.
    """
    return import_proto(read_proto(path), n_channels, path)


def import_proto(proto: onnx.ModelProto, n_channels: int, source: object) -> Imported:
    """Import a model that was read already; ``source`` is what messages call it.

    Raises:
        ModelError, DataError: see ``import_onnx``.
    """
    proto = with_time_first(proto)
    ports = find_ports(proto, n_channels, source)
    if ports.lost is not None:
        raise ModelError(f"{source}: {ports.lost}")
    opened = open_loops(proto)
    known, batch_axis = _trace(
        with_free_starts(without_lengths(in_newer_opset(opened.proto))), ports, n_channels
    )
    if ports.y not in known.varying:
        raise ModelError(f"{source}: output {ports.y!r} does not depend on {ports.x.name!r}")
    states = {**opened.states, **(ports.states if ports.is_step else {})}
    cells = find_recurrences(known)
    if states and not cells:
        cells = find_written_out(known)
    loose = _outside(known, states, cells)
    model, suspects = lift(known.with_states(loose, opened.starts), ports.y, cells, loose)
    return Imported(model, OnnxOriginal(proto, ports, batch_axis), (*suspects, *opened.remarks))


def _outside(
    known: Trace, states: Mapping[str, str | None], cells: Sequence[Recurrence]
) -> dict[str, str]:
    """Pairs of states that go into no cell: plain operations make the next value."""
    starts = {start for cell in cells for start in cell.starts}
    return {
        name: new
        for name, new in states.items()
        if new is not None and starts.isdisjoint(reached_from(known.model.graph.node, {name}))
    }


def sample_rows(n_batch: int, n_channels: int) -> Float32:
    """Make inputs to trace with: seeded, and unlike zero, where too many operations agree."""
    return np.random.default_rng(1).standard_normal((n_batch, n_channels)).astype(np.float32)


def read_proto(path: Path) -> onnx.ModelProto:
    """Read and check a file.

    Raises:
        ModelError: missing, or no valid ONNX.
    """
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except FileNotFoundError as error:
        raise ModelError(f"no model at {path}; check the path") from error
    except Exception as error:
        raise ModelError(f"{path} is no valid ONNX model: {error}; export it again") from error
    return proto


def _trace(proto: onnx.ModelProto, ports: Ports, n_channels: int) -> tuple[Trace, int]:
    """Trace at one step; the batch axis of x is the one that reaches a cell as its batch."""
    dims = [d for t in proto.graph.initializer for d in t.dims]
    n_batch = distinctive_batch([*dims, n_channels])
    rows = sample_rows(n_batch, n_channels)
    first: tuple[Trace, int] | None = None
    reason: ModelError | None = None
    for batch_axis in (0, 1):
        x = rows if len(dims_of(ports.x)) == 2 else np.expand_dims(rows, 1 - batch_axis)
        try:
            known = _trace_at(proto, ports, x, n_batch, batch_axis)
        except ModelError as error:
            reason = reason or error
            continue
        if _batch_reaches_cell(known):
            return known, batch_axis
        first = first or (known, batch_axis)
    if first is None:
        for node in proto.graph.node:
            if node.op_type in OPERATORS:
                refuse_unknown(
                    node
                )  # what is wrong with a cell says more than what failed after it
        raise reason or ModelError("the model cannot be traced")
    return first


def _trace_at(
    proto: onnx.ModelProto, ports: Ports, x: Float32, n_batch: int, batch_axis: int
) -> Trace:
    """Trace as the file is, or with the shapes freed that it was exported for."""
    fixed, feed = _with_shapes(proto, ports, x, n_batch, batch_axis)
    try:
        return trace(fixed, ports.x.name, feed, n_batch)
    except ModelError:
        declared = [d if isinstance(d, int) else 0 for d in dims_of(ports.x)]
        if len(declared) == 2:
            declared.insert(1, 1)
        frozen = (declared[batch_axis], declared[1 - batch_axis])
        try:
            freed = with_shapes_for(fixed, feed, n_batch, frozen)
            return trace(freed, ports.x.name, feed, n_batch)
        except ModelError:
            pass
        raise


def _batch_reaches_cell(known: Trace) -> bool:
    """Whether a cell walks along one step of all rows: (1, batch, n).

    Without any, whether every value that depends on x has the rows.
    """
    shapes = [
        known.values[n.input[0]].shape for n in known.model.graph.node if n.op_type in OPERATORS
    ]
    if not shapes:
        return all(known.n_batch in known.values[name].shape for name in known.varying)
    return any(shape[:2] == (1, known.n_batch) for shape in shapes)


def _with_shapes(
    proto: onnx.ModelProto, ports: Ports, x: Float32, n_batch: int, batch_axis: int
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Fix the shapes of all inputs: x to its value, the states handed in to seeded ones."""
    fixed = copy.deepcopy(proto)
    rng = np.random.default_rng(2)
    feed: dict[str, Array] = {ports.x.name: x}
    batch_name = dims_of(ports.x)[batch_axis if x.ndim == 3 else 0]
    for entry in feeds_of(fixed.graph):
        if entry.name != ports.x.name:
            shape = _state_shape(dims_of(entry), batch_name, n_batch)
            feed[entry.name] = rng.uniform(-0.9, 0.9, shape).astype(np.float32)
        dims = entry.type.tensor_type.shape.dim
        for dim, size in zip(dims, feed[entry.name].shape, strict=True):
            dim.dim_value = size
    return fixed, feed


def _state_shape(dims: list[int | str], batch_name: int | str, n_batch: int) -> list[int]:
    """Shape of a state for so many rows: (batch, H), or (layers, batch, H) unless it says else."""
    free = [k for k, d in enumerate(dims) if d == batch_name and not isinstance(d, int)]
    free = free or [k for k, d in enumerate(dims) if not isinstance(d, int)]
    axis = free[0] if len(free) == 1 else max(len(dims) - 2, 0)
    sizes = [d if isinstance(d, int) else n_batch for d in dims]
    sizes[axis] = n_batch
    return sizes


class OnnxOriginal:
    """The file as onnxruntime runs it, the same sequence in all rows of its batch.

    Raises:
        ModelError: onnxruntime refuses the file.
    """

    def __init__(self, proto: onnx.ModelProto, ports: Ports, batch_axis: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"onnxruntime refuses the model: {first_line(error)}") from error
        dims = dims_of(ports.x)
        self._ports = ports
        self._rank = len(dims)
        self._batch_axis = batch_axis if self._rank == 3 else 0
        n_steps = dims[1 - batch_axis] if self._rank == 3 and not ports.is_step else None
        self.window_steps = n_steps if isinstance(n_steps, int) else None
        n_rows = dims[self._batch_axis]
        self._n_rows = n_rows if isinstance(n_rows, int) else 1
        shapes = {v.name: dims_of(v) for v in feeds_of(proto.graph)}
        self.start: dict[str, Float32] = {
            name: np.zeros(_state_shape(shapes[name], n_rows, self._n_rows), np.float32)
            for name in ports.states
        }

    def run(self, sequence: Float32) -> Float32:
        """Run a whole sequence; see ``quantization.importers.proof.Original``."""
        if self._ports.is_step:
            return self.run_parts([row[None] for row in sequence], self._ports.states)
        return self._rows(self._run(sequence, self.start)[self._ports.y])

    def run_parts(
        self,
        parts: Sequence[Float32],
        pairs: Mapping[str, str | None],
        *,
        are_layers_reversed: bool = False,
    ) -> Float32:
        """Run sequences one after the other; each state comes from the output paired with it."""
        order = -1 if are_layers_reversed else 1
        states, rows = self.start, []
        for part in parts:
            results = self._run(part, states)
            states = {name: results[str(output)][::order] for name, output in pairs.items()}
            y = results[self._ports.y]
            rows.append(y.reshape(-1, y.shape[-1])[:1] if len(part) == 1 else self._rows(y))
        return np.concatenate(rows)

    def _run(self, sequence: Float32, states: dict[str, Float32]) -> dict[str, Float32]:
        x = np.repeat(np.expand_dims(sequence, self._batch_axis), self._n_rows, self._batch_axis)
        if self._rank == 2:
            x = np.repeat(sequence, self._n_rows, 0)
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(names, {**states, self._ports.x.name: x})
        except Exception as error:
            raise ModelError(
                f"the model does not run on {len(sequence)} steps: {first_line(error)}"
            ) from error
        return dict(zip(names, values, strict=True))

    def _rows(self, y: Float32) -> Float32:
        return y[0] if self._batch_axis == 0 or y.ndim == 2 else y[:, 0]
