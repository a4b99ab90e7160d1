"""A model's graph, run once at one time step: the value of every tensor, and what it depends on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edge_gru.errors import ModelError

Array = npt.NDArray[Any]

_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_OF_SHAPES = ("Shape", "Size")
_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)


def distinctive_batch(dims: Iterable[int]) -> int:
    """Choose a batch size that no dimension of a model is a multiple of.

    Traced with it, the batch axis of every tensor is the one of this size.
    """
    taken = {d for d in dims if d > 1}
    for prime in _PRIMES:
        if all(d % prime for d in taken):
            return prime
    return next(p for p in range(101, 10_000, 2) if all(p % k for k in range(3, 100, 2)))


@dataclass(frozen=True)
class Trace:
    """Every tensor of a graph for one input of one time step and ``n_batch`` rows.

    ``varying`` names the tensors that depend on the graph input ``x``; ``carried`` those that
    depend on another graph input, a state handed in. ``starts`` has what such an input is before
    the first step, zero where it has nothing.
    """

    model: onnx.ModelProto
    x: str
    values: Mapping[str, Array]
    n_batch: int
    varying: frozenset[str]
    carried: frozenset[str]
    starts: Mapping[str, str] = field(default_factory=dict)

    def with_states(self, states: Iterable[str], starts: Mapping[str, str]) -> Trace:
        """Return the trace with values that vary as x does: what depends on these states.

        ``starts`` names the tensors that states handed in start from, where they have any.
        """
        varying = self.varying | reached_from(self.model.graph.node, set(states))
        return replace(self, varying=varying if states else self.varying, starts=starts)

    @property
    def opset(self) -> int:
        """Version of the ONNX operators in the graph."""
        return next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is the same whatever the model is fed."""
        return name not in self.varying and name not in self.carried

    def batch_axis(self, name: str) -> int:
        """Return the axis of the rows.

        Raises:
            ModelError: rows and other values are mixed in one axis.
        """
        axes = [i for i, d in enumerate(self.values[name].shape) if d == self.n_batch]
        if len(axes) != 1:
            raise ModelError(
                f"expected a batch axis in tensor {name!r}, got shape {self.values[name].shape} at "
                f"batch {self.n_batch}: the model mixes rows, or is frozen to one batch size"
            )
        return axes[0]

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one row of a tensor."""
        shape = self.values[name].shape
        axis = self.batch_axis(name)
        return shape[:axis] + shape[axis + 1 :]

    def flat(self, name: str) -> Array:
        """A tensor as ``(n_batch, n)``."""
        return np.moveaxis(self.values[name], self.batch_axis(name), 0).reshape(self.n_batch, -1)


def trace(model: onnx.ModelProto, x: str, feed: Mapping[str, Array], n_batch: int) -> Trace:
    """Run a model with fixed shapes and keep every tensor.

    Raises:
        ModelError: it contains a loop or a branch, or does not run at these shapes.
    """
    graph = model.graph
    _refuse_subgraphs(graph.node)
    exposed = copy.deepcopy(model)
    del exposed.graph.value_info[:]
    names = [name for node in graph.node for name in node.output if name]
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    values |= feed
    values |= dict(zip(names, run_once(exposed, feed, names), strict=True))
    carried_inputs = set(feed) - {x}
    return Trace(
        model=model,
        x=x,
        values=values,
        n_batch=n_batch,
        varying=reached_from(graph.node, {x}),
        carried=reached_from(graph.node, carried_inputs),
    )


def run_once(model: onnx.ModelProto, feed: Mapping[str, Array], names: list[str]) -> list[Array]:
    """Run a model in onnxruntime as it is written, without optimizations.

    Raises:
        ModelError: onnxruntime refuses it; its reason is passed on.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results: list[Array] = session.run(names, dict(feed))
    except Exception as error:
        raise ModelError(
            "the model does not run for one time step and a batch of any size; export it with "
            f"dynamic batch and time axes ({first_line(error)})"
        ) from error
    return results


def first_line(error: Exception) -> str:
    """Shorten a runtime's report to what a person reads."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def map_indices(
    node: onnx.NodeProto, known: Trace, source: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Find which elements a node takes: run it on the numbers of the elements of ``source``.

    Returns, for each output of a node that only moves values, ``(n_out,)`` indices into a row.

    Raises:
        ModelError: a row of an output holds values of other rows.
    """
    values = known.values[source]
    numbers = np.arange(values.size, dtype=np.int64).reshape(values.shape)
    names = [name for name in node.output if name]
    others = [name for name in node.input if name and name != source]
    graph = helper.make_graph(
        [node],
        "move",
        [helper.make_tensor_value_info(source, onnx.TensorProto.INT64, numbers.shape)],
        [onnx.ValueInfoProto(name=name) for name in names],
        [numpy_helper.from_array(known.values[name], name) for name in others],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", known.opset)])
    model.ir_version = known.model.ir_version
    before = np.moveaxis(numbers, known.batch_axis(source), 0).reshape(known.n_batch, -1)
    order = np.argsort(before[0])
    indices = {}
    for name, moved in zip(names, run_once(model, {source: numbers}, names), strict=True):
        rows = np.moveaxis(moved, known.batch_axis(name), 0).reshape(known.n_batch, -1)
        found = np.searchsorted(before[0], rows[0], sorter=order)
        positions = order[np.minimum(found, len(order) - 1)]
        if not np.array_equal(before[:, positions], rows):
            raise ModelError(f"{node.op_type} ({node.name}) mixes the rows of a batch")
        indices[name] = positions
    return indices


def _refuse_subgraphs(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if any(a.type in _GRAPHS for a in node.attribute):
            raise ModelError(
                f"the model has a {node.op_type} ({node.name}), a loop or branch over its own "
                "graph; expected ordinary layers around recurrent ones"
            )


def reached_from(nodes: Iterable[onnx.NodeProto], start: set[str]) -> frozenset[str]:
    """Names whose values depend on those of ``start``, nodes being in topological order."""
    reached = set(start)
    for node in nodes:
        if node.op_type not in _OF_SHAPES and reached.intersection(node.input):
            reached.update(name for name in node.output if name)
    return frozenset(reached)
