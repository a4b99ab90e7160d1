"""Where a step multiplies by a weight, what each product reads, and what bounds that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_gru.engines.cells import CELLS
from edge_gru.engines.products import dense_weight
from edge_gru.manifest import StepNode
from quantization.step_model import Array, StepModel

Kind = Literal["recurrent", "stacked", "input", "dense"]


@dataclass(frozen=True)
class Site:
    """A product with a weight.

    Attributes:
        weight: name of the weight.
        kind: ``recurrent`` with a state handed in, ``stacked`` with the h of a cell below,
            ``input`` with another x, ``dense`` outside the cells.
        operand: name of the value that it reads.
        bound: the largest magnitude of the operand, None where there is none.
        is_transposed: the weight lies as (n, rows).
        cell: prefix of the cell that it belongs to; empty outside the cells.
        node_kind: of that cell.
    """

    weight: str
    kind: Kind
    operand: str
    bound: float | None
    is_transposed: bool = False
    cell: str = ""
    node_kind: str = ""

    @property
    def is_computed(self) -> bool:
        """Whether a step computes the operand itself, so that engines differ in its last bits."""
        if self.kind == "recurrent":
            return self.node_kind in CELLS and CELLS[self.node_kind].is_operand_computed
        return self.operand != "x"

    @property
    def operand_computed(self) -> str:
        """Name of the operand that a step computes itself."""
        return f"{self.cell}.r_h" if self.kind == "recurrent" else self.operand

    def floats(self, model: StepModel) -> Array:
        """Return the weight as (rows, n)."""
        value = model.weights[self.weight]
        return value.T if self.is_transposed else value

    def operand_of_rows(self, model: StepModel) -> list[tuple[slice, str]]:
        """List which rows read which value: a GRU that resets first reads ``r * h`` in its last."""
        if self.kind != "recurrent" or self.node_kind != "GRU_RESET_FIRST":
            return [(slice(None), self.operand)]
        n_rows = len(model.weights[self.weight]) * 2 // 3
        return [(slice(0, n_rows), self.operand), (slice(n_rows, None), f"{self.cell}.r_h")]


def find_sites(model: StepModel) -> list[Site]:
    """List every product with a weight, in the order of the step."""
    bounds = {state.name: state.bound for state in model.states}
    below = {f"{name}_out": bound for name, bound in bounds.items()}
    sites = []
    for node in model.program.nodes:
        if node.op in CELLS:
            sites += _of_cell(node, bounds, below)
        elif (dense := dense_weight(node, model.weights)) is not None:
            weight, is_transposed = dense
            operand = node.inputs[0]
            bound = {**bounds, **below}.get(operand)
            kind: Kind = "recurrent" if operand in bounds else "dense"
            sites.append(Site(weight, kind, operand, bound, is_transposed))
    return sites


def _of_cell(
    node: StepNode, bounds: dict[str, float | None], below: dict[str, float | None]
) -> list[Site]:
    x, h = node.inputs[:2]
    cell = str(node.attributes["cell"])
    kind: Kind = "stacked" if below.get(x) is not None else "input"
    return [
        Site(f"{cell}.w_ih", kind, x, below.get(x), cell=cell, node_kind=node.op),
        Site(f"{cell}.w_hh", "recurrent", h, bounds[h], cell=cell, node_kind=node.op),
    ]


def spread(values: Array) -> np.float32:
    """Return the largest magnitude, or 1 where there is nothing but zeros."""
    return np.float32(np.abs(values).max() or 1.0)
