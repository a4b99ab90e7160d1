"""A recurrence along the parts of one sample, as over its channels: whole inside one step.

It keeps nothing from step to step. In a program it is the operation ``Walk`` on ``(k, n)`` arrays:
inputs x (k, S n), S parts of n values; ``w_ih`` (D, G H, n), ``w_hh`` (D, G H, H), ``b_ih``,
``b_hh`` (D, G H) for D directions, gates as in ``edge_gru.engines.cells``; and what each state
starts from, (D H,) or (k, D H), or nothing: zero. Attributes: ``kind`` of the cell, ``n_parts`` S,
``direction`` forward, reverse or bidirectional. Result: h after every part, (k, S D H).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_gru.engines.cells import CELLS, Cell, States
from edge_gru.engines.operators import Array, Float64

WALK = "Walk"
DIRECTIONS: dict[str, tuple[str, ...]] = {
    "forward": ("forward",),
    "reverse": ("reverse",),
    "bidirectional": ("forward", "reverse"),
}

_TENSORS = ("w_ih", "w_hh", "b_ih", "b_hh")


def walk(attributes: Mapping[str, Any], x: Float64, *operands: Array) -> Float64:
    """Evaluate ``Walk``: see the module."""
    n_rows, n_parts = len(x), int(attributes["n_parts"])
    tensors = dict(zip(_TENSORS, operands[: len(_TENSORS)], strict=True))
    directions = DIRECTIONS[attributes["direction"]]
    n_hidden = tensors["w_hh"].shape[2]
    states = CELLS[attributes["kind"]].states
    starts = operands[len(_TENSORS) :] or (np.zeros(len(directions) * n_hidden),) * len(states)
    spread = [np.broadcast_to(s, (n_rows, len(directions) * n_hidden)) for s in starts]
    by_direction = [s.reshape(n_rows, len(directions), n_hidden) for s in spread]
    parts = x.reshape(n_rows, n_parts, -1)
    result = np.empty((n_rows, n_parts, len(directions), n_hidden))
    for d, direction in enumerate(directions):
        cell = {name: value[d] for name, value in tensors.items()}
        order = range(n_parts) if direction == "forward" else range(n_parts - 1, -1, -1)
        start = tuple(s[:, d] for s in by_direction)
        for part in order:
            start = _step(attributes["kind"], parts[:, part], start, cell)
            result[:, part, d] = start[0]
    return result.reshape(n_rows, -1)


def _step(kind: str, x: Float64, states: States, cell: Cell) -> States:
    return CELLS[kind].step(x, states, cell, lambda a, w, rows: a @ cell[w][rows].T)
