"""Cells that an exporter wrote out in plain operators, as it does a step: found by their values.

A cell is two products, with x and with a state, and new states that follow from them. Which kind it
is, and in which order its gates lie, is tried: only the right one gives the traced values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import onnx

from edge_gru.engines.cells import CELLS
from edge_gru.engines.reference import step_cell
from quantization.cells import reordered
from quantization.importers.recurrence import Recurrence, attributes_of
from quantization.importers.trace import Array, Trace

_KINDS = ("GRU", "LSTM", "RNN_TANH", "RNN_RELU")
_TOLERANCE = 1e-5


class _Product(NamedTuple):
    """``operand`` (batch, n) times ``weight`` (rows, n), plus ``bias`` (rows,)."""

    operand: str
    weight: Array
    bias: Array


def find_written_out(trace: Trace) -> list[Recurrence]:
    """Find every cell of a step that reads a state handed in."""
    rows = _rows_of(trace)
    products = [p for node in trace.model.graph.node if (p := _product(trace, node)) is not None]
    handed_in = [p for p in products if p.operand in trace.carried - trace.varying]
    others = [p for p in products if p.operand in trace.varying]
    return [
        cell for h in handed_in if (cell := next(_cells(trace, rows, h, others), None)) is not None
    ]


def _rows_of(trace: Trace) -> dict[str, Array]:
    """Traced tensors as ``(batch, n)``, those that have a batch axis."""
    names = (name for node in trace.model.graph.node for name in node.output if name)
    shapes = ((name, trace.values[name].shape) for name in names)
    return {name: trace.flat(name) for name, shape in shapes if shape.count(trace.n_batch) == 1}


def _product(trace: Trace, node: onnx.NodeProto) -> _Product | None:
    """Read a Gemm, or a MatMul; a bias that is added later is found among the constants."""
    if node.op_type not in ("Gemm", "MatMul") or not trace.is_constant(node.input[1]):
        return None
    attributes, weight = attributes_of(node), trace.values[node.input[1]]
    is_plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    if weight.ndim != 2 or attributes.get("transA") or not is_plain:
        return None
    weight = weight if attributes.get("transB") else weight.T
    bias = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and trace.is_constant(node.input[2]):
        bias = bias + trace.values[node.input[2]].reshape(-1)
    return _Product(node.input[0], weight, bias)


def _cells(
    trace: Trace, rows: Mapping[str, Array], h: _Product, others: list[_Product]
) -> Iterator[Recurrence]:
    for kind, x in itertools.product(_KINDS, others):
        n_rows, n_hidden = h.weight.shape
        if len(x.weight) != n_rows or n_rows != len(CELLS[kind].gates) * n_hidden:
            continue
        for starts in _starts(trace, kind, h.operand, n_hidden):
            for tensors in _tensors(trace, kind, x, h):
                states = tuple(trace.flat(name).astype(np.float64) for name in starts)
                x_rows = trace.flat(x.operand).astype(np.float64)
                new = step_cell(kind, x_rows, states, tensors)
                outputs = tuple(_equal(rows, value) for value in new)
                if all(outputs):
                    who = f"the {kind} written out around {h.operand!r}"
                    yield Recurrence(who, kind, tensors, x.operand, starts, outputs)


def _starts(trace: Trace, kind: str, h: str, n_hidden: int) -> Iterator[tuple[str, ...]]:
    if len(CELLS[kind].states) == 1:
        yield (h,)
        return
    for name in sorted(trace.carried - trace.varying - {h}):
        shape = trace.values[name].shape
        if trace.n_batch in shape and np.prod(shape) == trace.n_batch * n_hidden:
            yield (h, name)


def _tensors(trace: Trace, kind: str, x: _Product, h: _Product) -> Iterator[dict[str, Array]]:
    """Tensors of the cell for every order of gates, and every bias that may be added later."""
    n_rows = len(h.bias)
    later = [np.zeros(n_rows, np.float32)]
    later += [
        trace.values[tensor.name].reshape(-1)
        for tensor in trace.model.graph.initializer
        if tuple(tensor.dims) in ((n_rows,), (1, n_rows))
    ]
    gates = CELLS[kind].gates
    for order, bias in itertools.product(itertools.permutations(gates), later):
        found = {"w_ih": x.weight, "w_hh": h.weight, "b_ih": x.bias + bias, "b_hh": h.bias}
        yield {name: reordered(value, order, gates) for name, value in found.items()}


def _equal(rows: Mapping[str, Array], value: Array) -> tuple[str, ...]:
    return tuple(
        name
        for name, found in rows.items()
        if found.shape == value.shape and np.abs(found - value).max() <= _TOLERANCE
    )
