"""The cells of ``edge_gru.engines.cells`` in torch, by the same names, so that gradients pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from edge_gru.engines.products import ALL_ROWS

Tensor: TypeAlias = torch.Tensor
States: TypeAlias = tuple[Tensor, ...]
Cell: TypeAlias = Mapping[str, Tensor]
Product: TypeAlias = Callable[[Tensor, str, slice], Tensor]
Step: TypeAlias = Callable[[Tensor, States, Cell, Product], States]


def _gru(x: Tensor, states: States, cell: Cell, product: Product) -> States:
    (h,) = states
    i_r, i_z, i_n = (product(x, "w_ih", ALL_ROWS) + cell["b_ih"]).chunk(3, dim=1)
    h_r, h_z, h_n = (product(h, "w_hh", ALL_ROWS) + cell["b_hh"]).chunk(3, dim=1)
    r, z = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    n = torch.tanh(i_n + r * h_n)
    return (n + z * (h - n),)


def _gru_reset_first(x: Tensor, states: States, cell: Cell, product: Product) -> States:
    (h,) = states
    rz_rows, n_rows = slice(0, 2 * h.shape[1]), slice(2 * h.shape[1], None)
    gi = product(x, "w_ih", ALL_ROWS) + cell["b_ih"]
    rz = torch.sigmoid(gi[:, rz_rows] + product(h, "w_hh", rz_rows) + cell["b_hh"][rz_rows])
    r, z = rz.chunk(2, dim=1)
    reset = (r * h).to(torch.float32).to(h.dtype)
    n = torch.tanh(gi[:, n_rows] + product(reset, "w_hh", n_rows) + cell["b_hh"][n_rows])
    return (n + z * (h - n),)


def _lstm(x: Tensor, states: States, cell: Cell, product: Product) -> States:
    h, c = states
    gates = product(x, "w_ih", ALL_ROWS) + cell["b_ih"] + product(h, "w_hh", ALL_ROWS)
    i, f, g, o = (gates + cell["b_hh"]).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _lstm_projected(x: Tensor, states: States, cell: Cell, product: Product) -> States:
    h, c = _lstm(x, states, cell, product)
    return h @ cell["w_hr"].T, c


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(x: Tensor, states: States, cell: Cell, product: Product) -> States:
        (h,) = states
        gi = product(x, "w_ih", ALL_ROWS) + cell["b_ih"]
        return (activation(gi + product(h, "w_hh", ALL_ROWS) + cell["b_hh"]),)

    return step


CELLS: dict[str, Step] = {
    "GRU": _gru,
    "GRU_RESET_FIRST": _gru_reset_first,
    "LSTM": _lstm,
    "LSTM_PROJECTED": _lstm_projected,
    "RNN_TANH": _rnn(torch.tanh),
    "RNN_RELU": _rnn(torch.relu),
}
