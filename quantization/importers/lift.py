"""A graph traced at one time step to a step model: the recurrence lifted out, the rest flattened.

At one time step every tensor is some rows of values, whatever axes the trainer gave it. So each
node becomes an operation on ``(batch, n)`` arrays, and its result is compared with the traced one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx

from edge_gru.engines.cells import CELLS
from edge_gru.errors import ModelError
from edge_gru.manifest import Program, StateInfo, StepNode
from quantization.importers.emitter import Emitter
from quantization.importers.flatten import RULES, flatten_other
from quantization.importers.recurrence import OPERATORS, Recurrence
from quantization.importers.trace import Array, Trace
from quantization.importers.unusual_cell import write_out
from quantization.importers.walks import emit_walk
from quantization.step_model import StepModel


def lift(
    trace: Trace,
    output: str,
    recurrences: Sequence[Recurrence],
    states: Mapping[str, str] = MappingProxyType({}),
) -> tuple[StepModel, tuple[str, ...]]:
    """Turn a trace into a step model.

    ``states`` maps states handed in that belong to no cell to the tensors that are their next
    values. Returns the model, and remarks on nodes that do nothing at one step but may over many:
    the suspects, should the proof on whole sequences fail.

    Raises:
        ModelError: without recurrence, starting from a state that depends on the input, or with a
            node that cannot be a step; names the node and the reason.
    """
    emitter = Emitter(trace)
    loose = _add_loose_states(emitter, states)
    for item in _needed(trace, {output, *states.values()}, recurrences):
        if isinstance(item, Recurrence):
            _emit_cell(emitter, item)
        elif item.op_type in OPERATORS:
            emit_walk(emitter, item)
        elif not (item.op_type in RULES and RULES[item.op_type](emitter, item)):
            flatten_other(emitter, item)
    for state, source in loose.items():
        emitter.hand_on(source, state)
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


def _add_loose_states(emitter: Emitter, states: Mapping[str, str]) -> dict[str, str]:
    """Add states that plain operations make; returns the tensors that are their next values."""
    found = {}
    for index, (source, new) in enumerate(states.items()):
        name = f"state_{index:02d}_h"
        initial = _initial_state(emitter.trace, f"the state {source!r}", source)
        if initial is not None:
            emitter.constant(f"{name}.initial", initial)
        size = emitter.width(source)
        info = StateInfo(name=name, size=size, bound=None, has_initial=initial is not None)
        emitter.add_state(info, emitter.trace.flat(source))
        emitter.alias(source, name)
        found[name] = new
    return found


def _needed(
    trace: Trace, outputs: set[str], recurrences: Sequence[Recurrence]
) -> list[onnx.NodeProto | Recurrence]:
    """Nodes and cells on the way from x to the outputs, in order.

    What a cell starts from is not on the way. A cell stands where the first of its states is made.
    """
    nodes = trace.model.graph.node
    maker = {name: k for k, node in enumerate(nodes) for name in node.output}
    owner: dict[int, Recurrence] = {}
    first: dict[int, Recurrence] = {}
    for recurrence in recurrences:
        outputs_of_cell = [name for names in recurrence.outputs for name in names]
        if not all(name in maker for name in outputs_of_cell):
            raise ModelError(
                f"{recurrence.who} reads the same at every step, nothing of x; put what it "
                "computes in its place"
            )
        places = [maker[name] for name in outputs_of_cell]
        owner |= dict.fromkeys(places, recurrence)
        first[min(places)] = recurrence
    wanted, found = set(outputs), []
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
    index = len({info.name.rpartition("_")[0] for info in emitter.states})
    cell = f"{recurrence.kind.partition('_')[0].lower()}_{index:02d}"
    states = _add_states(emitter, recurrence, index)
    x = emitter.name_of(recurrence.x)
    if recurrence.unusual is not None:
        write_out(emitter, cell, recurrence.unusual, recurrence.tensors, (x, states))
        _check_written_out(emitter, recurrence, states)
    else:
        for name, value in recurrence.tensors.items():
            emitter.constant(f"{cell}.{name}", value.astype(np.float32))
        new = tuple(f"{name}_out" for name in states)
        emitter.nodes.append(StepNode(recurrence.kind, (x, *states), new, {"cell": cell}))
    for state, outputs in zip(states, recurrence.outputs, strict=True):
        for output in outputs:
            emitter.alias(output, f"{state}_out")


def _add_states(emitter: Emitter, recurrence: Recurrence, index: int) -> tuple[str, ...]:
    """Add the states of a cell, with what they start from; returns their names."""
    names = []
    for (letter, bound), start in zip(recurrence.bounds.items(), recurrence.starts, strict=True):
        name = f"state_{index:02d}_{letter}"
        initial = _initial_state(emitter.trace, recurrence.who, start)
        reached = 0.0
        if initial is not None:
            emitter.constant(f"{name}.initial", initial)
            reached = float(np.abs(initial).max())
        info = StateInfo(
            name=name,
            size=_size(recurrence, name),
            bound=None if bound is None else max(bound, reached),
            has_initial=initial is not None,
        )
        emitter.add_state(info, emitter.trace.flat(start) if start else None)
        names.append(name)
    return tuple(names)


def _check_written_out(emitter: Emitter, recurrence: Recurrence, states: tuple[str, ...]) -> None:
    for state, outputs in zip(states, recurrence.outputs, strict=True):
        if not all(emitter.is_equal(f"{state}_out", output) for output in outputs):
            raise ModelError(
                f"{recurrence.who} does not compute what ONNX defines for its activations; "
                "write its cell in plain operators"
            )


def _size(recurrence: Recurrence, state: str) -> int:
    """Width of a state: h as wide as the recurrent product reads it, others as a gate."""
    if state.endswith("_h"):
        return int(recurrence.tensors["w_hh"].shape[1])
    return len(recurrence.tensors["b_hh"]) // len(CELLS[recurrence.kind].gates)


def _initial_state(trace: Trace, who: str, start: str) -> Array | None:
    """Return the values ``(n,)`` that a state starts from; None: zero, or what the caller hands in.

    Raises:
        ModelError: they are computed from x, or differ from row to row of the batch.
    """
    if start in trace.carried:
        start = trace.starts.get(start, "")
    if start in trace.varying:
        raise ModelError(f"{who} starts from a state computed from x; a stream has no first sample")
    if not start or not np.any(trace.values[start]):
        return None
    rows = trace.flat(start)
    if not (rows == rows[0]).all():
        raise ModelError(f"{who} starts from states that differ from row to row")
    return rows[0].astype(np.float32)
