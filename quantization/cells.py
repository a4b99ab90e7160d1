"""The recurrent cells in ONNX, by the names of ``edge_gru.engines.cells``: how a step is written.

The state and the blend are fp32 and never pass a Q/DQ: only products are narrowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_gru.engines.cells import CELLS
from edge_gru.engines.products import ALL_ROWS, FLOAT, operand_grid
from edge_gru.manifest import ProductForm
from quantization.graph_builder import GraphBuilder
from quantization.products import Integers, Rows, integer_product, with_gain, write_product
from quantization.step_model import Array

_COUNTS = {"one": 1, "two": 2}


@dataclass(frozen=True)
class CellGraph:
    """One cell while it is written: what it reads, and what its new states are to be called."""

    b: GraphBuilder
    kind: str
    cell: str
    x: str
    states: tuple[str, ...]
    new: tuple[str, ...]
    forms: Mapping[str, ProductForm]
    is_joint: bool = False
    cpu: bool = False

    @property
    def n_hidden(self) -> int:
        """Number of values of a gate."""
        return len(self.b.weight(f"{self.cell}.b_hh")) // len(CELLS[self.kind].gates)

    @property
    def is_float(self) -> bool:
        """Whether both products are fp32."""
        return all(self._form(name) == FLOAT for name in ("w_ih", "w_hh"))

    def multiply(self, operand: str, weight: str, part: str = "", rows: slice = ALL_ROWS) -> str:
        """Add a product with rows of one of the cell's matrices."""
        chosen = self._rows(weight, part, rows)
        return write_product(self.b, self._form(weight), operand, chosen, cpu=self.cpu)

    def multiply_both(self, h: str, part: str = "", rows: slice = ALL_ROWS) -> str:
        """Add the sum of the products with x and with h, and both biases: one product if joint."""
        b_ih, b_hh = (self.b.weight(f"{self.cell}.{name}")[rows] for name in ("b_ih", "b_hh"))
        bias = self.b.constant("_".join(filter(None, (f"{self.cell}.bias", part))), b_ih + b_hh)
        tag = "_".join(filter(None, ("a", part)))
        if self.is_joint:
            return self.add("Add", [self._joint(h, part, [(rows, rows)]), bias], tag)
        gi = self.add("Add", [self.multiply(self.x, "w_ih", part, rows), bias], f"{tag}_of_x")
        return self.add("Add", [gi, self.multiply(h, "w_hh", part, rows)], tag)

    def multiply_sums_and_parts(self, h: str, n_summed: int) -> str:
        """Add one joint product: the first rows summed, of the others that with x, then with h."""
        first, rest = slice(0, n_summed), slice(n_summed, None)
        b_ih, b_hh = (self.b.weight(f"{self.cell}.{name}") for name in ("b_ih", "b_hh"))
        bias = np.concatenate([b_ih[first] + b_hh[first], b_ih[rest], b_hh[rest]])
        product = self._joint(h, "", [(first, first), (rest, None), (None, rest)])
        return self.add("Add", [product, self.b.constant(f"{self.cell}.bias", bias)], "a_all")

    def _joint(self, h: str, part: str, blocks: list[tuple[slice | None, slice | None]]) -> str:
        """Multiply x and h side by side by rows of both matrices, or of one with zeros beside."""
        w_ih, w_hh = self._rows("w_ih", part), self._rows("w_hh", part)
        q_x, q_h = w_ih.integers(self.b), w_hh.integers(self.b)
        q, scales = [], []
        for of_x, of_h in blocks:
            n_rows = len(q_x[of_x] if of_x is not None else q_h[of_h])
            left = np.zeros((n_rows, q_x.shape[1]), np.int8) if of_x is None else q_x[of_x]
            right = np.zeros((n_rows, q_h.shape[1]), np.int8) if of_h is None else q_h[of_h]
            q.append(np.hstack([left, right]))
            scales.append(
                (w_hh.scales(self.b) if of_x is None else w_ih.scales(self.b))[
                    of_h if of_x is None else of_x
                ]
            )
        name = "_".join(filter(None, (f"{self.cell}.w", part)))
        integers = Integers(np.concatenate(q), np.concatenate(scales), name)
        tag = "_".join(filter(None, (f"{self.cell}.xh", part)))
        both = self.b.add("Concat", [with_gain(self.b, self.x, w_ih), h], tag, axis=1)
        step, _ = operand_grid(self.b.weights, w_hh.weight)
        form = self._form("w_hh")
        return integer_product(self.b, form, both, integers, tag, step, cpu=self.cpu)

    def _form(self, weight: str) -> ProductForm:
        return self.forms.get(f"{self.cell}.{weight}", FLOAT)

    def _rows(self, weight: str, part: str, rows: slice = ALL_ROWS) -> Rows:
        tag = {"w_ih": "gi", "w_hh": "gh"}[weight]
        tag = "_".join(filter(None, (f"{self.cell}.{tag}", part)))
        return Rows(f"{self.cell}.{weight}", tag, rows, part)

    def add(self, op: str, inputs: list[str], tag: str, **attributes: Any) -> str:
        """Add a node of the cell, and name its result."""
        return self.b.add(op, inputs, f"{self.cell}.{tag}", **attributes)

    def split(self, value: str, sizes: str, tags: Sequence[str]) -> list[str]:
        """Split the columns of a value into parts of one or two gates: ``two_one``."""
        counts = np.array([_COUNTS[size] * self.n_hidden for size in sizes.split("_")])
        outputs = [f"{self.cell}.{tag}" for tag in tags]
        constant = self.b.constant(f"{self.cell}.{sizes}", counts)
        self.b.add_many("Split", [value, constant], outputs, axis=1)
        return outputs

    def weight(self, name: str) -> str:
        """Name a tensor of the cell."""
        return self.b.operand(f"{self.cell}.{name}")


def _gru(g: CellGraph) -> None:
    (h,), (new,) = g.states, g.new
    if g.is_joint:
        every = g.multiply_sums_and_parts(h, 2 * g.n_hidden)
        a_rz, gi_n, gh_n = g.split(every, "two_one_one", ("a_rz", "gi_n", "gh_n"))
    else:
        gi = g.add("Add", [g.multiply(g.x, "w_ih"), g.weight("b_ih")], "gi")
        gh = g.add("Add", [g.multiply(h, "w_hh"), g.weight("b_hh")], "gh")
        gi_rz, gi_n = g.split(gi, "two_one", ("gi_rz", "gi_n"))
        gh_rz, gh_n = g.split(gh, "two_one", ("gh_rz", "gh_n"))
        a_rz = g.add("Add", [gi_rz, gh_rz], "a_rz")
    r, z = g.split(g.add("Sigmoid", [a_rz], "rz"), "one_one", ("r", "z"))
    _blend(g, h, z, g.add("Add", [gi_n, g.add("Mul", [r, gh_n], "r_gh_n")], "a_n"), new)


def _gru_reset_first(g: CellGraph) -> None:
    (h,), (new,) = g.states, g.new
    n_rz = 2 * g.n_hidden
    a_rz = g.multiply_both(h, "rz", slice(0, n_rz))
    r, z = g.split(g.add("Sigmoid", [a_rz], "rz"), "one_one", ("r", "z"))
    a_n = g.multiply_both(g.add("Mul", [r, h], "r_h"), "n", slice(n_rz, None))
    _blend(g, h, z, a_n, new)


def _blend(g: CellGraph, h: str, z: str, a_n: str, new: str) -> None:
    """Add ``n + z (h - n)``: of h itself, not of its quantized copy."""
    n = g.add("Tanh", [a_n], "n")
    change = g.add("Mul", [z, g.add("Sub", [h, n], "h_less_n")], "z_h_less_n")
    g.b.add("Add", [n, change], new)


def _lstm(g: CellGraph) -> None:
    g.b.add("Mul", _lstm_factors(g), g.new[0])


def _lstm_projected(g: CellGraph) -> None:
    h = g.add("Mul", _lstm_factors(g), "h_wide")
    weight = g.b.constant(f"{g.cell}.w_hr_t", g.b.weight(f"{g.cell}.w_hr").T)
    g.b.add("MatMul", [h, weight], g.new[0])


def _lstm_factors(g: CellGraph) -> list[str]:
    """Add c, and name the two factors of h."""
    h, c = g.states
    gates = g.multiply_both(h)
    a_if, a_g, a_o = g.split(gates, "two_one_one", ("a_if", "a_g", "a_o"))
    i, f = g.split(g.add("Sigmoid", [a_if], "if"), "one_one", ("i", "f"))
    kept = g.add("Mul", [f, c], "f_c")
    added = g.add("Mul", [i, g.add("Tanh", [a_g], "g")], "i_g")
    new_c = g.b.add("Add", [kept, added], g.new[1])
    return [g.add("Sigmoid", [a_o], "o"), g.add("Tanh", [new_c], "tanh_c")]


def _rnn(activation: str) -> Callable[[CellGraph], None]:
    def write(g: CellGraph) -> None:
        g.b.add(activation, [g.multiply_both(g.states[0])], g.new[0])

    return write


@dataclass(frozen=True)
class OnnxCell:
    """How a kind of cell is written out, and ONNX's own operator for it, if it has one."""

    write: Callable[[CellGraph], None]
    gates: tuple[str, ...]  # in the order of the ONNX operator
    operator: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


_GRU, _LSTM = ("z", "r", "n"), ("i", "o", "f", "g")

ONNX_CELLS: dict[str, OnnxCell] = {
    "GRU": OnnxCell(_gru, _GRU, "GRU", {"linear_before_reset": 1}),
    "GRU_RESET_FIRST": OnnxCell(_gru_reset_first, _GRU, "GRU", {"linear_before_reset": 0}),
    "LSTM": OnnxCell(_lstm, _LSTM, "LSTM"),
    "LSTM_PROJECTED": OnnxCell(_lstm_projected, _LSTM),
    "RNN_TANH": OnnxCell(_rnn("Tanh"), ("n",), "RNN", {"activations": ["Tanh"]}),
    "RNN_RELU": OnnxCell(_rnn("Relu"), ("n",), "RNN", {"activations": ["Relu"]}),
}


def reordered(value: Array, have: Sequence[str], want: Sequence[str]) -> Array:
    """Put the gates of a matrix or bias ``(G H, ...)`` into another order."""
    parts = dict(zip(have, np.split(value, len(have)), strict=True))
    return np.concatenate([parts[gate] for gate in want])


def write_operator(g: CellGraph) -> None:
    """Add ONNX's own operator with one time step: 15 % less than a written-out cell."""
    b, cell, form = g.b, g.cell, ONNX_CELLS[g.kind]

    def of(name: str) -> Array:
        return reordered(b.weight(f"{cell}.{name}"), CELLS[g.kind].gates, form.gates)

    axis = b.constant("axis_0", np.array([0]))
    x_3d = b.add("Unsqueeze", [g.x, axis], f"{cell}.x_3d")
    tensors = [
        b.constant(f"{cell}.w", of("w_ih")[None]),
        b.constant(f"{cell}.r", of("w_hh")[None]),
        b.constant(f"{cell}.b", np.concatenate([of("b_ih"), of("b_hh")])[None]),
    ]
    names = CELLS[g.kind].states
    states = [
        b.add("Unsqueeze", [state, axis], f"{cell}.{name}_3d")
        for state, name in zip(g.states, names, strict=True)
    ]
    new = [f"{cell}.{name}_new_3d" for name in names]
    inputs = [x_3d, *tensors, "", *states]
    b.add_many(str(form.operator), inputs, ["", *new], hidden_size=g.n_hidden, **form.attributes)
    for value, name in zip(new, g.new, strict=True):
        b.add("Squeeze", [value, axis], name)
