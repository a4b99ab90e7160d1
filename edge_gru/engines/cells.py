"""The recurrent cells as data: gates, states, bounds, and one step of each in numpy.

A program names a cell by its kind (``op``), reads ``x`` and the states in their order, and finds
its tensors under the prefix ``cell``: ``w_ih`` (G H, n), ``w_hh`` (G H, P), ``b_ih``, ``b_hh``
(G H,), with G gates in PyTorch's order and P values in h; P is H but for a projection, ``w_hr``
(P, H). What a quantized product adds is in ``edge_gru.engines.products``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_gru.engines.operators import Array, Float64, sigmoid
from edge_gru.engines.products import ALL_ROWS

Cell = Mapping[str, Array]
States = tuple[Float64, ...]
Product = Callable[[Float64, str, slice], Float64]
"""``product(operand, matrix, rows)``: (k, n) times some rows of a matrix of the cell -> (k, r)."""
Step = Callable[[Float64, States, Cell, Product], States]


@dataclass(frozen=True)
class CellKind:
    """What everything else must know of a cell.

    ``bounds`` has the largest magnitude that each state can reach from a start within it, None
    where there is none. ``is_operand_computed`` says that a step quantizes a value that it has
    computed itself: engines may then differ by a whole grid step where it falls near a tie.
    ``n_joint_gates`` first gates add the products with x and with h before anything else.
    """

    gates: tuple[str, ...]
    bounds: Mapping[str, float | None]
    step: Step
    n_joint_gates: int
    is_operand_computed: bool = False

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states; the first is h, which the recurrent product reads."""
        return tuple(self.bounds)


def _gru(x: Float64, states: States, cell: Cell, product: Product) -> States:
    """torch.nn.GRU: the reset gate acts on the recurrent product. The blend reads h itself."""
    (h,) = states
    i_r, i_z, i_n = np.split(product(x, "w_ih", ALL_ROWS) + cell["b_ih"], 3, axis=1)
    h_r, h_z, h_n = np.split(product(h, "w_hh", ALL_ROWS) + cell["b_hh"], 3, axis=1)
    r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
    n = np.tanh(i_n + r * h_n)
    return (n + z * (h - n),)


def _gru_reset_first(x: Float64, states: States, cell: Cell, product: Product) -> States:
    """Cho et al. 2014, ONNX's linear_before_reset=0: the reset gate acts on h, before the product.

    ``r * h`` is rounded to float32, so that it lies on the same side of a tie in every engine.
    """
    (h,) = states
    rz_rows, n_rows = slice(0, 2 * h.shape[1]), slice(2 * h.shape[1], None)
    gi = product(x, "w_ih", ALL_ROWS) + cell["b_ih"]
    rz = sigmoid(gi[:, rz_rows] + product(h, "w_hh", rz_rows) + cell["b_hh"][rz_rows])
    r, z = np.split(rz, 2, axis=1)
    reset = (r * h).astype(np.float32).astype(np.float64)
    n = np.tanh(gi[:, n_rows] + product(reset, "w_hh", n_rows) + cell["b_hh"][n_rows])
    return (n + z * (h - n),)


def _lstm(x: Float64, states: States, cell: Cell, product: Product) -> States:
    """torch.nn.LSTM. c is never quantized and never clipped."""
    h, c = states
    gates = product(x, "w_ih", ALL_ROWS) + cell["b_ih"] + product(h, "w_hh", ALL_ROWS)
    i, f, g, o = np.split(gates + cell["b_hh"], 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def _lstm_projected(x: Float64, states: States, cell: Cell, product: Product) -> States:
    """torch.nn.LSTM with proj_size. The projection makes the carried h: float in any precision."""
    h, c = _lstm(x, states, cell, product)
    return h @ cell["w_hr"].T, c


def _rnn(activation: Callable[[Float64], Float64]) -> Step:
    def step(x: Float64, states: States, cell: Cell, product: Product) -> States:
        (h,) = states
        gi = product(x, "w_ih", ALL_ROWS) + cell["b_ih"]
        return (activation(gi + product(h, "w_hh", ALL_ROWS) + cell["b_hh"]),)

    return step


CELLS: dict[str, CellKind] = {
    "GRU": CellKind(("r", "z", "n"), {"h": 1.0}, _gru, n_joint_gates=2),
    "GRU_RESET_FIRST": CellKind(
        ("r", "z", "n"), {"h": 1.0}, _gru_reset_first, n_joint_gates=3, is_operand_computed=True
    ),
    "LSTM": CellKind(("i", "f", "g", "o"), {"h": 1.0, "c": None}, _lstm, n_joint_gates=4),
    "LSTM_PROJECTED": CellKind(
        ("i", "f", "g", "o"), {"h": None, "c": None}, _lstm_projected, n_joint_gates=4
    ),
    "RNN_TANH": CellKind(("n",), {"h": 1.0}, _rnn(np.tanh), n_joint_gates=1),
    "RNN_RELU": CellKind(("n",), {"h": None}, _rnn(lambda a: np.maximum(a, 0.0)), n_joint_gates=1),
}
