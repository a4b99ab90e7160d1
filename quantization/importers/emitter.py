"""What a step model grows in while a graph is lifted; each operation is checked as it is added."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from edge_gru.engines.operations import OPERATIONS
from edge_gru.engines.reference import widened
from edge_gru.errors import ModelError
from edge_gru.manifest import StateInfo, StepNode
from quantization.importers.trace import Array, Trace

CLOSED_SET_OPSET = 17
_TOLERANCE = 1e-4


class Emitter:
    """Nodes, weights and states of a step model, and which traced tensor is which value of it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.nodes: list[StepNode] = []
        self.weights: dict[str, Array] = {}
        self.states: list[StateInfo] = []
        self.suspects: list[str] = []
        self.opset = CLOSED_SET_OPSET
        self._names = {trace.x: "x"}
        self._values: dict[str, Array] = {"x": widened(trace.flat(trace.x))}

    def name_of(self, source: str) -> str:
        """Name the value that stands for a traced tensor.

        Raises:
            ModelError: it depends on a state that was handed in, but on no cell.
        """
        name = self._names.get(source)
        if name is None:
            raise ModelError(
                f"tensor {source!r} depends on the state handed in, past the cells; "
                "expected the state to go into recurrent layers alone"
            )
        return name

    def alias(self, source: str, name: str) -> None:
        """Say that a traced tensor is the value ``name``."""
        self._names[source] = name
        self._values.setdefault(name, widened(self.trace.flat(source)))

    def width(self, source: str) -> int:
        """Number of values in a row of a traced tensor."""
        return int(self.trace.flat(source).shape[1])

    def constant(self, name: str, value: Array) -> str:
        """Add a constant; float values are kept in float32."""
        self.weights[name] = value.astype(np.float32) if value.dtype.kind == "f" else value
        return name

    def rows_like(self, name: str, source: str, output: str) -> str:
        """Add a constant operand of ``output`` as one row ``(n,)``, or as one value for all.

        Raises:
            ModelError: it differs from row to row of the batch.
        """
        axis = self.trace.batch_axis(output)
        value = self.trace.values[source]
        if value.size == 1:
            return self.constant(name, value.reshape(1))
        spread = np.broadcast_to(value, self.trace.values[output].shape)
        rows = np.moveaxis(spread, axis, 0).reshape(self.trace.n_batch, -1)
        if not np.array_equal(rows, np.broadcast_to(rows[0], rows.shape), equal_nan=True):
            raise ModelError(f"constant {source!r} differs from row to row of a batch")
        return self.constant(name, rows[0])

    def emit(self, op: str, inputs: list[str], source: str, **attributes: Any) -> bool:
        """Add the operation that yields a traced tensor; refuse one that yields something else."""
        expected = widened(self.trace.flat(source))
        operands = [self._operand(name) for name in inputs]
        with np.errstate(all="ignore"):
            got = OPERATIONS[op](attributes, *operands)
        if got.shape != expected.shape or not _close(got, expected):
            return False
        name = f"v.{source}"
        self.nodes.append(StepNode(op, tuple(inputs), (name,), attributes))
        self.alias(source, name)
        return True

    def emit_between(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operation whose result has no traced tensor; the one after it is checked."""
        with np.errstate(all="ignore"):
            operands = [self._operand(operand) for operand in inputs]
            self._values[name] = OPERATIONS[op](attributes, *operands)
        self.nodes.append(StepNode(op, tuple(inputs), (name,), attributes))
        return name

    def add_state(self, info: StateInfo, start: Array | None) -> None:
        """Add a state, and the traced rows ``(n_batch, n)`` that it starts from; None: zero."""
        self.states.append(info)
        zero = np.zeros((self.trace.n_batch, info.size))
        self._values[info.name] = zero if start is None else widened(start)

    def hand_on(self, source: str, state: str) -> None:
        """Say that the next value of a state is what was traced for ``source``."""
        name, new = self.name_of(source), f"{state}_out"
        made = {output for node in self.nodes for output in node.outputs}
        if name not in made or name in {f"{info.name}_out" for info in self.states}:
            self.nodes.append(StepNode("Concat", (name,), (new,), {"axis": 1}))
            return
        self.nodes = [_with_name(node, name, new) for node in self.nodes]
        self._names = {k: new if v == name else v for k, v in self._names.items()}
        self._values[new] = self._values[name]

    def is_equal(self, name: str, source: str) -> bool:
        """Whether a value is what was traced for ``source``."""
        return _close(self._values[name], widened(self.trace.flat(source)))

    def emit_foreign(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add an operation outside the closed set, in the version of the traced graph."""
        self.nodes.append(StepNode(op, tuple(inputs), (output,), attributes))
        self.opset = self.trace.opset
        return output

    def suspect(self, node: onnx.NodeProto, remark: str) -> None:
        """Note what may be wrong should the proof fail."""
        self.suspects.append(f"{node.op_type} ({node.name or node.output[0]}) {remark}")

    def _operand(self, name: str) -> Array | None:
        if not name:
            return None
        if name in self.weights:
            return widened(self.weights[name])
        return self._values[name]


def _with_name(node: StepNode, old: str, new: str) -> StepNode:
    inputs, outputs = (
        tuple(new if name == old else name for name in side) for side in (node.inputs, node.outputs)
    )
    return StepNode(node.op, inputs, outputs, node.attributes)


def _close(got: Array, expected: Array) -> bool:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return bool(np.allclose(got, expected, rtol=0, atol=_TOLERANCE * scale, equal_nan=True))
