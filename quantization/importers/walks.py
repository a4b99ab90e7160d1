"""Recurrent operators that walk along the parts of one sample: kept whole in the step."""

from __future__ import annotations

import math

import numpy as np
import onnx

from edge_gru.engines.cells import CELLS
from edge_gru.engines.walk import DIRECTIONS, WALK
from edge_gru.errors import ModelError
from quantization.importers.emitter import Emitter
from quantization.importers.recurrence import attributes_of, plain_kind, tensors_of, who

_LENGTHS, _START, _PEEPHOLES = 4, 5, 7  # positions among the inputs


def emit_walk(emitter: Emitter, node: onnx.NodeProto) -> None:
    """Add the operation ``Walk``, and the last states where something reads them.

    Raises:
        ModelError: a cell or an output that the operation does not have; says which.
    """
    trace, kind = emitter.trace, plain_kind(node)
    inputs = [*node.input, *[""] * 8][:8]
    y, last, *others = [*node.output, "", "", ""][:3]
    _check(emitter, node, kind, inputs)
    read = {name for other in trace.model.graph.node for name in other.input}
    if read & set(filter(None, others)):
        raise ModelError(f"{who(node)} walks along channels, and its last c is read: keep to its h")
    n_parts = len(trace.values[inputs[0]])
    direction = attributes_of(node).get("direction", "forward")
    n_directions = len(DIRECTIONS[direction])
    name = y or last
    given = [trace.values[source] if source else None for source in inputs[1:4]]
    sides = [tensors_of(str(kind), given, d) for d in range(n_directions)]
    operands = [emitter.name_of(inputs[0])]
    operands += [
        emitter.constant(f"{name}.{key}", np.stack([side[key] for side in sides]))
        for key in ("w_ih", "w_hh", "b_ih", "b_hh")
    ]
    n_hidden = len(sides[0]["b_hh"]) // len(CELLS[str(kind)].gates)
    sources = inputs[_START : _START + len(CELLS[str(kind)].states)]
    operands += _starts(emitter, node, sources, n_directions * n_hidden)
    every = emitter.emit_between(
        WALK, operands, f"v.{name}.every", kind=kind, n_parts=n_parts, direction=direction
    )
    if y:
        _settle(emitter, node, y, every)
    if last:
        shape = (n_parts, n_directions, n_hidden)
        numbers = np.arange(math.prod(shape)).reshape(shape)
        ends = [-1 if side == "forward" else 0 for side in DIRECTIONS[direction]]
        taken = np.concatenate([numbers[end, d] for d, end in enumerate(ends)])
        indices = emitter.constant(f"{last}.indices", taken)
        value = emitter.emit_between("Gather", [every, indices], f"v.{last}", axis=1)
        _settle(emitter, node, last, value)


def _settle(emitter: Emitter, node: onnx.NodeProto, source: str, name: str) -> None:
    if not emitter.is_equal(name, source):
        raise ModelError(f"{who(node)} does not compute what ONNX defines; export it again")
    emitter.alias(source, name)


def _check(emitter: Emitter, node: onnx.NodeProto, kind: str | None, inputs: list[str]) -> None:
    trace = emitter.trace
    shape = trace.values[inputs[0]].shape
    peeps, lengths = inputs[_PEEPHOLES], inputs[_LENGTHS]
    if kind is None or (peeps and trace.values[peeps].any()):
        raise ModelError(
            f"{who(node)} walks along the channels of one sample with other activations, a clip, "
            "peepholes or coupled gates; expected those of torch there"
        )
    if trace.batch_axis(inputs[0]) != 1:
        raise ModelError(f"{who(node)} walks along the rows of a batch: it mixes streams")
    if lengths and not (trace.is_constant(lengths) and (trace.values[lengths] == shape[0]).all()):
        raise ModelError(f"{who(node)} takes sequence lengths; expected all channels to be there")
    for name in filter(None, inputs[1:4]):
        if not trace.is_constant(name):
            raise ModelError(f"{who(node)} has weights that are computed from the input")


def _starts(emitter: Emitter, node: onnx.NodeProto, sources: list[str], width: int) -> list[str]:
    """Name what each state starts from; none if all are zero."""
    trace = emitter.trace
    if not any(source and trace.values[source].any() for source in sources):
        return []
    names = []
    for k, source in enumerate(sources):
        if source and not trace.is_constant(source):
            names.append(emitter.name_of(source))
            continue
        rows = trace.flat(source) if source else np.zeros((1, width))
        if not (rows == rows[0]).all():
            raise ModelError(f"{who(node)} starts from states that differ from row to row")
        names.append(emitter.constant(f"{node.output[0] or node.output[1]}.start_{k}", rows[0]))
    return names
