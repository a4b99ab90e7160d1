"""Loops over time in an ONNX file, opened: one turn of the body is the step.

tf2onnx writes a Keras layer as a ``Loop`` where ONNX's own operators do not fit it in its eyes:
``GRU(reset_after=False)``, ``SimpleRNN``, other activations.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_gru.errors import ModelError
from quantization.importers.recurrence import attributes_of
from quantization.importers.trace import Array

_AXES_ARE_INPUTS = 13  # the opset from which Unsqueeze has them so
_N_CONTROL = 2  # inputs of a Loop before the values it carries: trip count, condition


@dataclass(frozen=True)
class Opened:
    """A graph without its loops.

    ``states`` maps each new graph input, a value that the loop carries, to the tensor that is its
    next value; ``starts`` to the one that it has before the first turn. ``remarks`` say what was
    assumed.
    """

    proto: onnx.ModelProto
    states: dict[str, str] = field(default_factory=dict)
    starts: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def open_loops(proto: onnx.ModelProto) -> Opened:
    """Put one turn in place of every ``Loop`` of the graph.

    Raises:
        ModelError: a loop carries a value of unknown shape.
    """
    loops = [node for node in proto.graph.node if node.op_type == "Loop"]
    if not loops:
        return Opened(proto)
    opened = copy.deepcopy(proto)
    del opened.graph.value_info[:]
    nodes = list(opened.graph.node)
    del opened.graph.node[:]
    states: dict[str, str] = {}
    starts: dict[str, str] = {}
    for node in nodes:
        if node.op_type != "Loop":
            opened.graph.node.append(node)
            continue
        turn = _Turn(opened, node)
        turn.add()
        states |= turn.states
        starts |= turn.starts
    remarks = (f"Loop ({node.name}) was taken to turn once for each step of time" for node in loops)
    return Opened(opened, states, starts, tuple(remarks))


class _Turn:
    """One turn of a loop, as nodes of the graph around it."""

    def __init__(self, proto: onnx.ModelProto, loop: onnx.NodeProto) -> None:
        self.states: dict[str, str] = {}
        self.starts: dict[str, str] = {}
        self._graph = proto.graph
        self._opset = max(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        self._loop = loop
        self._body: onnx.GraphProto = attributes_of(loop)["body"]
        self._prefix = f"{loop.name or next(filter(None, loop.output))}/turn/"
        self._names: dict[str, str] = {}

    def add(self) -> None:
        """Add the nodes of the body, and what the loop yields."""
        number, condition = (value.name for value in self._body.input[:_N_CONTROL])
        self._names[number] = self._constant(number, np.array(0))
        self._names[condition] = self._constant(condition, np.array(1, dtype=bool))
        carried = list(
            zip(self._body.input[_N_CONTROL:], self._loop.input[_N_CONTROL:], strict=True)
        )
        after = [output.name for output in self._body.output[1:]]
        for (value, before), new in zip(carried, after, strict=False):
            is_state = new != value.name and _is_float(value)
            self._names[value.name] = self._state(value, before) if is_state else before
        for tensor in self._body.initializer:
            self._names[tensor.name] = self._constant(tensor.name, numpy_helper.to_array(tensor))
        for node in self._body.node:
            self._names |= {name: self._prefix + name for name in node.output if name}
        for node in self._body.node:
            self._graph.node.append(self._renamed(node))
        for (value, _), new in zip(carried, after, strict=False):
            state = self._names[value.name]
            if state in self.starts:
                self.states[state] = self._names.get(new, new)
        self._yield(after, len(carried))

    def _state(self, value: onnx.ValueInfoProto, before: str) -> str:
        """Make a carried value an input of the graph."""
        if not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"Loop ({self._loop.name}) carries {value.name!r} of unknown shape; expected a "
                "file with shapes: onnx.shape_inference.infer_shapes adds them"
            )
        entry = copy.deepcopy(value)
        entry.name = self._prefix + value.name
        self._graph.input.append(entry)
        self.starts[entry.name] = before
        return entry.name

    def _constant(self, name: str, value: Array) -> str:
        tensor = numpy_helper.from_array(value, self._prefix + name)
        self._graph.initializer.append(tensor)
        return tensor.name

    def _renamed(self, node: onnx.NodeProto) -> onnx.NodeProto:
        inner = copy.deepcopy(node)
        inner.name = self._prefix + node.name
        inner.input[:] = [self._names.get(name, name) for name in node.input]
        inner.output[:] = [self._names[name] if name else "" for name in node.output]
        return inner

    def _yield(self, after: list[str], n_carried: int) -> None:
        """Name the results as the loop does: last values, then those of every turn, stacked."""
        for k, (inner, outer) in enumerate(zip(after, self._loop.output, strict=False)):
            source = self._names.get(inner, inner)
            if outer and k < n_carried:
                self._graph.node.append(helper.make_node("Identity", [source], [outer]))
            elif outer:
                self._graph.node.append(self._stacked(source, outer))

    def _stacked(self, source: str, outer: str) -> onnx.NodeProto:
        if self._opset < _AXES_ARE_INPUTS:
            return helper.make_node("Unsqueeze", [source], [outer], axes=[0])
        axes = self._constant(f"{outer}.axes", np.array([0]))
        return helper.make_node("Unsqueeze", [source, axes], [outer])


def _is_float(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.elem_type == onnx.TensorProto.FLOAT and len(kind.shape.dim) != 1
