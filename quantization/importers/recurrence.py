"""Recurrent operators of a traced graph, whatever framework wrote them, by the table of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edge_gru.engines.cells import CELLS
from edge_gru.errors import ModelError
from quantization.cells import ONNX_CELLS, reordered
from quantization.importers.trace import Array, Trace

OPERATORS = ("GRU", "LSTM", "RNN")

_SEQUENCE_LENGTHS, _START, _PEEPHOLES = 4, 5, 7  # positions among the inputs
_DEFAULT_ACTIVATIONS = {"GRU": "sigmoid tanh", "LSTM": "sigmoid tanh tanh", "RNN": "tanh"}
_KINDS = {
    ("GRU", 1, "sigmoid tanh"): "GRU",
    ("GRU", 0, "sigmoid tanh"): "GRU_RESET_FIRST",
    ("LSTM", 0, "sigmoid tanh tanh"): "LSTM",
    ("RNN", 0, "tanh"): "RNN_TANH",
    ("RNN", 0, "relu"): "RNN_RELU",
}


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One cell of a trace: its kind, its tensors as a bundle has them, and what it is wired to.

    ``x`` is the traced tensor that it reads, ``starts`` those that its states start from ("": zero)
    and ``outputs`` those that are its new states; a state may be several tensors.
    """

    who: str
    kind: str
    tensors: Mapping[str, Array]
    x: str
    starts: tuple[str, ...]
    outputs: tuple[tuple[str, ...], ...]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node as plain values."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


def find_recurrences(trace: Trace) -> list[Recurrence]:
    """Read every recurrent operator that walks along an axis of one step: the axis of time.

    Raises:
        ModelError: one of them is no causal cell that an engine has; says which and why.
    """
    return [
        _read(trace, node)
        for node in trace.model.graph.node
        if node.op_type in OPERATORS and trace.values[node.input[0]].shape[0] == 1
    ]


def _read(trace: Trace, node: onnx.NodeProto) -> Recurrence:
    kind = kind_of(node)
    inputs = [*node.input, *[""] * 8][:8]
    _check_inputs(trace, node, inputs)
    names = ("w_ih", "w_hh")
    tensors = {n: trace.values[s][0] for n, s in zip(names, inputs[1:3], strict=True)}
    n_rows = len(tensors["w_hh"])
    bias = trace.values[inputs[3]][0] if inputs[3] else np.zeros(2 * n_rows)
    tensors |= dict(zip(("b_ih", "b_hh"), np.split(bias, 2), strict=True))
    order = ONNX_CELLS[kind].gates
    states = CELLS[kind].states
    outputs = [*node.output, "", "", ""]
    return Recurrence(
        who=who(node),
        kind=kind,
        tensors={n: reordered(v, order, CELLS[kind].gates) for n, v in tensors.items()},
        x=inputs[0],
        starts=tuple(inputs[_START : _START + len(states)]),
        outputs=(tuple(filter(None, outputs[:2])), tuple(filter(None, outputs[2:])))[: len(states)],
    )


def kind_of(node: onnx.NodeProto) -> str:
    """Name the kind of cell that an operator is.

    Raises:
        ModelError: bidirectional or backwards, with a clip, other activations or coupled gates.
    """
    attributes = attributes_of(node)
    if attributes.get("direction", "forward") != "forward":
        raise ModelError(
            f"{who(node)} is {attributes['direction']}: it reads the future, which a stream does "
            "not have; train it with bidirectional=False"
        )
    if attributes.get("input_forget"):
        raise ModelError(
            f"{who(node)} has input_forget=1: it couples two gates, which no engine does; "
            "train it with gates of their own"
        )
    given = [_text(name).lower() for name in attributes.get("activations", [])]
    activations = " ".join(given) or _DEFAULT_ACTIVATIONS[node.op_type]
    resets_late = int(attributes.get("linear_before_reset", 0)) if node.op_type == "GRU" else 0
    kind = _KINDS.get((node.op_type, resets_late, activations))
    if kind is None or attributes.get("clip"):
        expected = ", or ".join(
            a for op, late, a in _KINDS if (op, late) == (node.op_type, resets_late)
        )
        raise ModelError(
            f"expected {who(node)} with {expected} and without clip, got "
            f"{'a clip' if attributes.get('clip') else given}: engines have no such cell"
        )
    return kind


def _check_inputs(trace: Trace, node: onnx.NodeProto, inputs: list[str]) -> None:
    lengths, peepholes = inputs[_SEQUENCE_LENGTHS], inputs[_PEEPHOLES]
    if lengths and not (trace.is_constant(lengths) and (trace.values[lengths] == 1).all()):
        raise ModelError(f"{who(node)} takes sequence lengths; expected none: a stream has no end")
    if peepholes and np.any(trace.values[peepholes]):
        raise ModelError(
            f"{who(node)} has peepholes: its gates read c, which no engine does; train it without"
        )
    for name in filter(None, inputs[1:4]):
        if not trace.is_constant(name):
            raise ModelError(f"{who(node)} has weights that are computed from the input")


def who(node: onnx.NodeProto) -> str:
    """Name a node for a person."""
    return f"{node.op_type} ({node.name or node.output[0]})"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
