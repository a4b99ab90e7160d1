"""The step in plain torch operations, for exporters that know no recurrent operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quantization.benchmark.latency.weights import Weights


class Step(nn.Module):  # type: ignore[misc]  # torch is not followed
    """``(x, *states) -> (y, *new states)``: two linear layers a cell, gates, and the head."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._cell = {"GRU": _gru, "LSTM": _lstm, "RNN_TANH": _rnn}[weights.cell]
        self._n_parts = len(weights.state_names) // weights.n_layers
        layers = [weights.layer(k) for k in range(weights.n_layers)]
        self.of_x = nn.ModuleList(_linear(w["w_ih"], w["b_ih"]) for w in layers)
        self.of_h = nn.ModuleList(_linear(w["w_hh"], w["b_hh"]) for w in layers)
        self.head = _linear(weights.arrays["head"].T, weights.arrays["head_bias"])

    def forward(self, x: Any, *states: Any) -> Any:
        """Run one step."""
        new: list[Any] = []
        for of_x, of_h in zip(self.of_x, self.of_h, strict=True):
            before = states[len(new) : len(new) + self._n_parts]
            after = self._cell(of_x(x), of_h(before[0]), before)
            new += after
            x = after[0]
        return (self.head(x), *new)

    def example(self, n_rows: int) -> tuple[Any, ...]:
        """Make inputs of zeros."""
        n_in = self.of_x[0].in_features
        n_hidden = self.head.in_features
        n_states = len(self.of_x) * self._n_parts
        states = [torch.zeros(n_rows, n_hidden) for _ in range(n_states)]
        return (torch.zeros(n_rows, n_in), *states)


def _linear(weight: Any, bias: Any) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data = torch.from_numpy(weight.copy())
    layer.bias.data = torch.from_numpy(bias.copy())
    return layer


def _gru(gi: Any, gh: Any, states: Any) -> list[Any]:
    (h,) = states
    n = h.shape[1]
    rz = torch.sigmoid(gi[:, : 2 * n] + gh[:, : 2 * n])
    new = torch.tanh(gi[:, 2 * n :] + rz[:, :n] * gh[:, 2 * n :])
    return [new + rz[:, n:] * (h - new)]


def _lstm(gi: Any, gh: Any, states: Any) -> list[Any]:
    h, c = states
    n = h.shape[1]
    gates = gi + gh
    i_f = torch.sigmoid(gates[:, : 2 * n])
    kept = i_f[:, n:] * c
    new_c = kept + i_f[:, :n] * torch.tanh(gates[:, 2 * n : 3 * n])
    return [torch.sigmoid(gates[:, 3 * n :]) * torch.tanh(new_c), new_c]


def _rnn(gi: Any, gh: Any, _states: Any) -> list[Any]:
    return [torch.tanh(gi + gh)]
