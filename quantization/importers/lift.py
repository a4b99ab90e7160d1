"""A graph traced at one time step to a step model: the recurrence lifted out, the rest flattened.

At one time step every tensor is some rows of values, whatever axes the trainer gave it. So each
node becomes an operation on ``(batch, n)`` arrays, and its result is compared with the traced one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edge_gru.engines.cells import CELLS
from edge_gru.errors import ModelError
from edge_gru.manifest import Program, StateInfo, StepNode
from quantization.importers.emitter import Emitter
from quantization.importers.flatten import RULES, flatten_other
from quantization.importers.recurrence import OPERATORS, Recurrence, who
from quantization.importers.trace import Array, Trace
from quantization.step_model import StepModel


def lift(
    trace: Trace, output: str, recurrences: Sequence[Recurrence]
) -> tuple[StepModel, tuple[str, ...]]:
    """Turn a trace into a step model.

    Returns the model, and remarks on nodes that do nothing at one step but may over many: the
    suspects, should the proof on whole sequences fail.

    Raises:
        ModelError: without recurrence, starting from a state that depends on the input, or with a
            node that cannot be a step; names the node and the reason.
    """
    emitter = Emitter(trace)
    for item in _needed(trace, output, recurrences):
        if isinstance(item, Recurrence):
            _emit_cell(emitter, item)
        elif item.op_type in OPERATORS:
            raise ModelError(
                f"{who(item)} walks along an axis that is not time (the channels of one sample); "
                "expected recurrent layers over time alone"
            )
        elif not (item.op_type in RULES and RULES[item.op_type](emitter, item)):
            flatten_other(emitter, item)
    if not emitter.states:
        raise ModelError(
            "expected a model with recurrent layers (torch nn.GRU, nn.LSTM, nn.RNN and their "
            "cells, ONNX GRU, LSTM, RNN), got one without memory"
        )
    model = StepModel(
        program=Program(tuple(emitter.nodes), emitter.name_of(output), emitter.opset),
        weights=emitter.weights,
        states=tuple(emitter.states),
        n_in=emitter.width(trace.x),
        n_out=emitter.width(output),
    )
    return model, tuple(emitter.suspects)


def _needed(
    trace: Trace, output: str, recurrences: Sequence[Recurrence]
) -> list[onnx.NodeProto | Recurrence]:
    """Nodes and cells on the way from x to the output, in order.

    What a cell starts from is not on the way. A cell stands where the first of its states is made.
    """
    nodes = trace.model.graph.node
    maker = {name: k for k, node in enumerate(nodes) for name in node.output}
    owner: dict[int, Recurrence] = {}
    first: dict[int, Recurrence] = {}
    for recurrence in recurrences:
        places = [maker[name] for names in recurrence.outputs for name in names]
        owner |= dict.fromkeys(places, recurrence)
        first[min(places)] = recurrence
    wanted, found = {output}, []
    needed: list[onnx.NodeProto | Recurrence] = []
    for k in range(len(nodes) - 1, -1, -1):
        node, cell = nodes[k], owner.get(k)
        is_wanted = not (wanted.isdisjoint(node.output) or trace.varying.isdisjoint(node.output))
        if cell is None:
            if is_wanted:
                needed.append(node)
                wanted.update(node.input)
            continue
        if is_wanted:
            found.append(cell)
        if k in first and first[k] in found:
            needed.append(first[k])
            wanted.add(first[k].x)
    return needed[::-1]


def _emit_cell(emitter: Emitter, recurrence: Recurrence) -> None:
    kind = CELLS[recurrence.kind]
    index = sum(node.op in CELLS for node in emitter.nodes)
    cell = f"{recurrence.kind.partition('_')[0].lower()}_{index:02d}"
    for name, value in recurrence.tensors.items():
        emitter.constant(f"{cell}.{name}", value.astype(np.float32))
    states = tuple(f"state_{index:02d}_{state}" for state in kind.states)
    for name, start, outputs, bound in zip(
        states, recurrence.starts, recurrence.outputs, kind.bounds.values(), strict=True
    ):
        initial = _initial_state(emitter.trace, recurrence, start)
        reached = 0.0
        if initial is not None:
            emitter.constant(f"{name}.initial", initial)
            reached = float(np.abs(initial).max())
        emitter.states.append(
            StateInfo(
                name=name,
                size=_size(recurrence, name),
                bound=None if bound is None else max(bound, reached),
                has_initial=initial is not None,
            )
        )
        for output in outputs:
            emitter.alias(output, f"{name}_out")
    inputs = (emitter.name_of(recurrence.x), *states)
    new = tuple(f"{name}_out" for name in states)
    emitter.nodes.append(StepNode(recurrence.kind, inputs, new, {"cell": cell}))


def _size(recurrence: Recurrence, state: str) -> int:
    """Width of a state: h as wide as the recurrent product reads it, others as a gate."""
    if state.endswith("_h"):
        return int(recurrence.tensors["w_hh"].shape[1])
    return len(recurrence.tensors["b_hh"]) // len(CELLS[recurrence.kind].gates)


def _initial_state(trace: Trace, recurrence: Recurrence, start: str) -> Array | None:
    """Return the values ``(n,)`` that a state starts from; None: zero, or what the caller hands in.

    Raises:
        ModelError: they are computed from x, or differ from row to row of the batch.
    """
    if start in trace.varying:
        raise ModelError(
            f"{recurrence.who} starts from a state computed from x; a stream has no first sample"
        )
    if not start or start in trace.carried or not np.any(trace.values[start]):
        return None
    rows = trace.flat(start)
    if not (rows == rows[0]).all():
        raise ModelError(f"{recurrence.who} starts from states that differ from row to row")
    return rows[0].astype(np.float32)
