"""A random network of one size that every engine and peer runs: cells with a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_gru.engines.base import Float32
from edge_gru.engines.cells import CELLS
from edge_gru.manifest import Program, StateInfo, StepNode
from quantization.benchmark.native import N_OUT
from quantization.step_model import StepModel

OPSET = 17
_SPREAD = 0.8  # of the rows of a matrix: neither dead nor saturated


@dataclass(frozen=True, eq=False)
class Weights:
    """One network, in PyTorch's order of gates.

    ``arrays`` has ``cell_K.w_ih`` (G H, n), ``cell_K.w_hh`` (G H, H), ``cell_K.b_ih`` and
    ``cell_K.b_hh`` (G H,) of every layer K, ``head`` (H, n_out) and ``head_bias`` (n_out,).
    """

    cell: str  # GRU, LSTM, RNN_TANH
    n_in: int
    n_hidden: int
    n_layers: int
    arrays: Mapping[str, Float32]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states, layer by layer."""
        names = CELLS[self.cell].states
        return tuple(f"state_{k:02d}_{name}" for k in range(self.n_layers) for name in names)

    def layer(self, k: int) -> dict[str, Float32]:
        """Return ``w_ih``, ``w_hh``, ``b_ih`` and ``b_hh`` of a layer."""
        names = ("w_ih", "w_hh", "b_ih", "b_hh")
        return {name: self.arrays[f"cell_{k}.{name}"] for name in names}

    def step_model(self) -> StepModel:
        """Return the network as importers make it."""
        bounds = CELLS[self.cell].bounds
        nodes, states, below = [], [], "x"
        for k in range(self.n_layers):
            names = [f"state_{k:02d}_{name}" for name in bounds]
            states += [
                StateInfo(name, self.n_hidden, bound)
                for name, bound in zip(names, bounds.values(), strict=True)
            ]
            new = tuple(f"{name}_out" for name in names)
            nodes.append(StepNode(self.cell, (below, *names), new, {"cell": f"cell_{k}"}))
            below = new[0]
        nodes.append(StepNode("MatMul", (below, "head"), ("product",)))
        nodes.append(StepNode("Add", ("product", "head_bias"), ("outputs",)))
        program = Program(tuple(nodes), "outputs", OPSET)
        return StepModel(program, self.arrays, tuple(states), self.n_in, N_OUT)


def random_weights(cell: str, n_in: int, n_hidden: int, n_layers: int) -> Weights:
    """Make a network, the same every time."""
    rng = np.random.default_rng(0)
    n_rows = len(CELLS[cell].gates) * n_hidden
    arrays: dict[str, Float32] = {}

    def normal(name: str, shape: tuple[int, ...], spread: float) -> None:
        arrays[name] = (rng.normal(size=shape) * spread).astype(np.float32)

    for k in range(n_layers):
        width = n_hidden if k else n_in
        normal(f"cell_{k}.w_ih", (n_rows, width), _SPREAD / np.sqrt(width))
        normal(f"cell_{k}.w_hh", (n_rows, n_hidden), _SPREAD / np.sqrt(n_hidden))
        normal(f"cell_{k}.b_ih", (n_rows,), 0.1)
        normal(f"cell_{k}.b_hh", (n_rows,), 0.1)
    normal("head", (n_hidden, N_OUT), 1 / np.sqrt(n_hidden))
    normal("head_bias", (N_OUT,), 0.1)
    return Weights(cell, n_in, n_hidden, n_layers, arrays)


def samples(n_steps: int, n_in: int) -> Float32:
    """Make a stream like that of sensors, ``(n_steps, n_in)``: slow waves and noise."""
    rng = np.random.default_rng(1)
    rate, phase = rng.uniform(0.005, 0.15, n_in), rng.uniform(0, 2 * np.pi, n_in)
    waves = np.sin(np.arange(n_steps)[:, None] * rate + phase)
    return (waves + 0.3 * rng.normal(size=(n_steps, n_in))).astype(np.float32)
