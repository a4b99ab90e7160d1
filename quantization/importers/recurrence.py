"""Recurrent operators of a traced graph, whatever framework wrote them, by the table of cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edge_gru.engines.cells import CELLS
from edge_gru.errors import ModelError
from quantization.cells import ONNX_CELLS, reordered
from quantization.importers.activations import Activation, read_activations
from quantization.importers.trace import Array, Trace
from quantization.importers.unusual_cell import Unusual

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
    and ``outputs`` those that are its new states; a state may be several tensors. ``unusual`` says
    how the cell differs from its kind.
    """

    who: str
    kind: str
    tensors: Mapping[str, Array]
    x: str
    starts: tuple[str, ...]
    outputs: tuple[tuple[str, ...], ...]
    unusual: Unusual | None = None

    @property
    def bounds(self) -> Mapping[str, float | None]:
        """Largest magnitude of each state, by its letter; None where there is none."""
        return CELLS[self.kind].bounds if self.unusual is None else self.unusual.bounds


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
    _refuse_other_directions(node)
    inputs = [*node.input, *[""] * 8][:8]
    _check_inputs(trace, node, inputs)
    peepholes = inputs[_PEEPHOLES]
    peeps = trace.values[peepholes][0] if peepholes else np.zeros(0)
    kind, unusual = _form_of(node, has_peepholes=bool(peeps.any()))
    tensors = tensors_of(kind, (trace.values[name] if name else None for name in inputs[1:4]), 0)
    if unusual is not None and peeps.any():
        tensors |= dict(zip(("p_i", "p_o", "p_f"), np.split(peeps, 3), strict=True))
    n_states = len(CELLS[kind].states)
    outputs = [*node.output, "", "", ""]
    return Recurrence(
        who=who(node),
        kind=kind,
        tensors=tensors,
        x=inputs[0],
        starts=tuple(inputs[_START : _START + n_states]),
        outputs=(tuple(filter(None, outputs[:2])), tuple(filter(None, outputs[2:])))[:n_states],
        unusual=unusual,
    )


def tensors_of(kind: str, given: Iterable[Array | None], direction: int) -> dict[str, Array]:
    """Take W, R and B (None: zero) of one direction apart, with gates in PyTorch's order."""
    w, r, b = (None if value is None else value[direction] for value in given)
    if w is None or r is None:
        raise ModelError("expected a recurrent operator with weights")
    bias = np.zeros(2 * len(w)) if b is None else b
    found = {"w_ih": w, "w_hh": r, **dict(zip(("b_ih", "b_hh"), np.split(bias, 2), strict=True))}
    order, wanted = ONNX_CELLS[kind].gates, CELLS[kind].gates
    return {name: reordered(value, order, wanted) for name, value in found.items()}


def refuse_unknown(node: onnx.NodeProto) -> None:
    """Refuse a cell that no model of one step can have.

    Raises:
        ModelError: it has activations that ONNX does not know, is bidirectional or backwards.
    """
    _activations_of(node)
    _refuse_other_directions(node)


def _refuse_other_directions(node: onnx.NodeProto) -> None:
    direction = attributes_of(node).get("direction", "forward")
    if direction != "forward":
        raise ModelError(
            f"{who(node)} is {direction}: it reads the future, which a stream does "
            "not have; train it with bidirectional=False"
        )


def plain_kind(node: onnx.NodeProto) -> str | None:
    """Name the kind of cell that an operator has, in every direction; None: an unusual one."""
    attributes = attributes_of(node)
    names = [_text(name).lower() for name in attributes.get("activations", [])]
    default = _DEFAULT_ACTIVATIONS[node.op_type].split()
    n = len(default)
    parts = [names[k : k + n] for k in range(0, len(names), n)] or [default]
    if attributes.get("clip") or attributes.get("input_forget") or parts != parts[:1] * len(parts):
        return None
    return _KINDS.get((node.op_type, _resets_late(node), " ".join(parts[0])))


def _form_of(node: onnx.NodeProto, *, has_peepholes: bool) -> tuple[str, Unusual | None]:
    """Name the kind of cell, or the kind with the same wiring and what is unusual."""
    kind = plain_kind(node)
    if kind is not None and not has_peepholes:
        return kind, None
    attributes = attributes_of(node)
    wiring = _KINDS[node.op_type, _resets_late(node), _DEFAULT_ACTIVATIONS[node.op_type]]
    unusual = Unusual(
        wiring,
        _activations_of(node),
        clip=attributes.get("clip") or None,
        is_coupled=bool(attributes.get("input_forget")),
    )
    return wiring, unusual


def _activations_of(node: onnx.NodeProto) -> tuple[Activation, ...]:
    attributes = attributes_of(node)
    names = [_text(name) for name in attributes.get("activations", [])]
    alphas, betas = (attributes.get(f"activation_{k}", []) for k in ("alpha", "beta"))
    default = _DEFAULT_ACTIVATIONS[node.op_type].split()
    return read_activations(names or default, alphas, betas, who(node))


def _resets_late(node: onnx.NodeProto) -> int:
    is_gru = node.op_type == "GRU"
    return int(attributes_of(node).get("linear_before_reset", 0)) if is_gru else 0


def _check_inputs(trace: Trace, node: onnx.NodeProto, inputs: list[str]) -> None:
    lengths = inputs[_SEQUENCE_LENGTHS]
    if lengths and not (trace.is_constant(lengths) and (trace.values[lengths] == 1).all()):
        raise ModelError(f"{who(node)} takes sequence lengths; expected none: a stream has no end")
    for name in filter(None, [*inputs[1:4], inputs[_PEEPHOLES]]):
        if not trace.is_constant(name):
            raise ModelError(f"{who(node)} has weights that are computed from the input")


def who(node: onnx.NodeProto) -> str:
    """Name a node for a person."""
    return f"{node.op_type} ({node.name or node.output[0]})"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
