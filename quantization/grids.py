"""The grid that every integer product reads its operand on: its step, and gains that equalise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge_gru.engines.products import INT8_MAX, UNIT_SCALE, Float32, operand_steps
from edge_gru.manifest import ProductForm, Recipe
from quantization.recipe import recipe_of
from quantization.rounding import Q_MAX, round_rows
from quantization.sites import Site, spread
from quantization.step_model import Array, StepModel

_TINY = np.float32(1e-6)
_BALANCES = (0.5, 1.0)  # between filling the operand's grid and that of the weight's rows


@dataclass(frozen=True)
class Grid:
    """A step, and what each value of the operand is multiplied by before; None: nothing."""

    step: np.float32
    gain: Float32 | None = None

    def tensors(self, weight: str) -> dict[str, Array]:
        """Name what differs from 1/127 and no gain, as a bundle holds it."""
        named = {}
        if self.step != UNIT_SCALE:
            named[f"{weight}_operand_scale"] = np.array(self.step, np.float32)
        if self.gain is not None:
            named[f"{weight}_operand_gain"] = self.gain
        return named


def find_grids(
    model: StepModel, sites: list[Site], recipe: Recipe, operands: Mapping[str, Float32]
) -> dict[str, Grid]:
    """Choose the grid of every product whose operand is of integers, by the name of its weight.

    What is bounded has the fixed grid ``bound / 127``. Anything else is calibrated on ``operands``
    ``(n_steps, n)`` by name, with head-room, and equalised where that makes its product better. In
    a joint cell, x is brought onto the grid of h.
    """
    grids = {}
    for site in sites:
        product = recipe_of(recipe, site)
        if not product.has_integer_operand:
            continue
        if site.bound is not None:
            grids[site.weight] = Grid(np.float32(site.bound) * UNIT_SCALE)
        elif site.kind == "recurrent":
            seen = product.head_room * spread(operands[site.operand])
            grids[site.weight] = Grid(np.float32(seen / INT8_MAX))
        else:
            candidates = _calibrated(site, model, operands[site.operand], product.head_room)
            grids[site.weight] = _best(
                candidates, site.floats(model), operands[site.operand], product.form
            )
    return grids


def joint_grid(
    site: Site, model: StepModel, operand: Float32, head_room: float, step: np.float32
) -> Grid:
    """Bring the x of a cell onto the grid of its h by gains."""
    reach = step * INT8_MAX
    if site.bound is not None:
        largest = np.full(site.floats(model).shape[1], site.bound, np.float32)
    else:
        largest = np.maximum(np.abs(operand).max(axis=0), _TINY) * np.float32(head_room)
    gain = (reach / largest).astype(np.float32)
    return Grid(step, None if (gain == 1).all() else gain)


def _calibrated(site: Site, model: StepModel, operand: Float32, head_room: float) -> Iterator[Grid]:
    """Propose grids: as it is, and equalised to some degree.

    Dividing feature i by ``m_i**a / w_i**(1 - a)``, m its largest value and w the largest weight
    in its column (Xiao et al., SmoothQuant, arXiv 2211.10438).
    """
    yield Grid(np.float32(head_room * spread(operand) / INT8_MAX))
    m = np.maximum(np.abs(operand).max(axis=0), _TINY)
    w = np.maximum(np.abs(site.floats(model)).max(axis=0), _TINY)
    for balance in _BALANCES:
        gain = (w ** (1 - balance) / m**balance).astype(np.float32)
        yield Grid(np.float32(head_room * spread(operand * gain) / INT8_MAX), gain)


def _best(candidates: Iterator[Grid], weight: Float32, operand: Float32, form: ProductForm) -> Grid:
    """Take the grid that leaves the least error in the product, its weight rounded to nearest."""
    exact = operand.astype(np.float64) @ weight.T.astype(np.float64)

    def error(grid: Grid) -> float:
        divided = weight if grid.gain is None else weight / grid.gain
        rows = round_rows(divided, Q_MAX[form.weight]).values.astype(np.float64)
        read = operand_steps(form, operand, grid.step, grid.gain) * float(grid.step)
        return float(np.square(read @ rows.T - exact).sum())

    return min(candidates, key=error)
