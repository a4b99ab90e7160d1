"""Cells that an exporter wrote out in plain operators, as it does a step: found by their values.

A cell is two products, with x and with a state, and new states that follow from them. Which kind it
is, and in which order its gates lie, is tried: only the right one gives the traced values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx

from edge_gru.engines.cells import CELLS
from edge_gru.engines.reference import step_cell
from quantization.cells import reordered
from quantization.importers.recurrence import Recurrence, attributes_of
from quantization.importers.trace import Array, Trace

_RESET_FIRST = "GRU_RESET_FIRST"
_KINDS = ("GRU", "LSTM", "RNN_TANH", "RNN_RELU", _RESET_FIRST)
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
    candidates = ((h, _wired(trace, h, others)) for h in handed_in)
    found = (next(_cells(trace, rows, h.operand, wired), None) for h, wired in candidates)
    return [cell for cell in found if cell is not None]


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


def _wired(
    trace: Trace, h: _Product, others: Sequence[_Product]
) -> Iterator[tuple[str, _Product, _Product]]:
    """List the kinds of cell that products may be of: kind, product with x, all those with h."""
    n_hidden = h.weight.shape[1]
    recurrent = [(kind, h) for kind in _KINDS if kind != _RESET_FIRST]
    for n in others:
        if n.operand in trace.carried and n.weight.shape == (n_hidden, n_hidden):
            weights, biases = np.concatenate([h.weight, n.weight]), np.append(h.bias, n.bias)
            recurrent.append((_RESET_FIRST, _Product(h.operand, weights, biases)))
    for (kind, both), x in itertools.product(recurrent, others):
        if len(x.weight) == len(both.weight) == len(CELLS[kind].gates) * n_hidden:
            yield kind, x, both


def _cells(
    trace: Trace,
    rows: Mapping[str, Array],
    h: str,
    wired: Iterator[tuple[str, _Product, _Product]],
) -> Iterator[Recurrence]:
    for kind, x, recurrent in wired:
        for starts in _starts(trace, kind, h, recurrent.weight.shape[1]):
            for tensors in _tensors(trace, kind, x, recurrent):
                states = tuple(trace.flat(name).astype(np.float64) for name in starts)
                x_rows = trace.flat(x.operand).astype(np.float64)
                new = step_cell(kind, x_rows, states, tensors)
                outputs = tuple(_equal(rows, value) for value in new)
                if all(outputs):
                    who = f"the {kind} written out around {h!r}"
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
    later = {
        value.tobytes(): value.reshape(-1)
        for name, value in trace.values.items()
        if value.shape in ((n_rows,), (1, n_rows))
        and value.dtype == np.float32
        and trace.is_constant(name)
    }
    biases = [np.zeros(n_rows, np.float32), *later.values()]
    gates = CELLS[kind].gates
    for order, b_x, b_h in itertools.product(_orders(kind), biases, biases):
        found = {"w_ih": x.weight, "w_hh": h.weight, "b_ih": x.bias + b_x, "b_hh": h.bias + b_h}
        yield {name: reordered(value, order, gates) for name, value in found.items()}


def _orders(kind: str) -> Iterator[tuple[str, ...]]:
    """Orders that the gates may lie in; the product with the reset h is put last."""
    orders = itertools.permutations(CELLS[kind].gates)
    return (order for order in orders if kind != _RESET_FIRST or order[-1] == "n")


def _equal(rows: Mapping[str, Array], value: Array) -> tuple[str, ...]:
    return tuple(
        name
        for name, found in rows.items()
        if found.shape == value.shape and np.abs(found - value).max() <= _TOLERANCE
    )
