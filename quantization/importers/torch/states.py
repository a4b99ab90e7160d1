"""States for a module whose ``forward`` asks for them: zeros in the shapes that it may mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn

Zeros: TypeAlias = Callable[[int], tuple[Any, ...]]
"""Called with the number of rows; returns what ``forward`` takes after x."""


def candidate_states(module: nn.Module, n_arguments: int) -> list[Zeros]:
    """List what ``n_arguments`` after x may be, the likeliest first.

    The state of the only recurrent layer, h and c apart, a list of the states of all, one argument
    for each, or None where the module makes its own.
    """
    if n_arguments < 1:
        return [lambda _: ()]
    layers = [m for m in module.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]

    def one(n_rows: int) -> tuple[Any, ...]:
        return (_state(layers[0], n_rows),)

    def parts(n_rows: int) -> tuple[Any, ...]:
        state = _state(layers[0], n_rows)
        return state if isinstance(state, tuple) else (state,)

    def each(n_rows: int) -> tuple[Any, ...]:
        return tuple(_state(layer, n_rows) for layer in layers)

    def listed(n_rows: int) -> tuple[Any, ...]:
        return ([_state(layer, n_rows) for layer in layers],)

    def stacked(n_rows: int) -> tuple[Any, ...]:
        return (torch.stack([_state(layer, n_rows) for layer in layers]),)

    found: list[Zeros] = [lambda _: (None,) * n_arguments]
    if layers:
        found = [one, parts, each, listed, stacked, *found]
    return [zeros for zeros in found if _count(zeros) == n_arguments]


def _count(zeros: Zeros) -> int:
    try:
        return len(zeros(1))
    except (RuntimeError, TypeError):  # states that do not stack
        return -1


def _state(layer: nn.Module, n_rows: int) -> Any:
    if isinstance(layer, nn.RNNCellBase):
        h = torch.zeros(n_rows, layer.hidden_size)
        return (h, torch.zeros_like(h)) if isinstance(layer, nn.LSTMCell) else h
    n_layers = layer.num_layers * (2 if layer.bidirectional else 1)
    c = torch.zeros(n_layers, n_rows, layer.hidden_size)
    h = torch.zeros(n_layers, n_rows, layer.proj_size or layer.hidden_size)
    return (h, c) if isinstance(layer, nn.LSTM) else h
