"""How each weight is rounded: GPTQ where a held-out stream says that it pays, nearest elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_gru.engines.cells import CELLS
from edge_gru.engines.products import operand_steps
from edge_gru.manifest import ProductRecipe
from quantization.grids import Grid
from quantization.progress import Progress
from quantization.rounding import Q_MAX, QuantizedRows, round_rows, round_rows_gptq
from quantization.sites import Site
from quantization.step_model import StepModel

Float32 = npt.NDArray[np.float32]
Rows = Mapping[str, QuantizedRows]


@dataclass(frozen=True)
class Part:
    """Some rows of a weight, and the value that they multiply."""

    site: Site
    rows: slice
    operand: str


@dataclass(frozen=True)
class Unit:
    """Weights that are rounded together: blocks of rows, each of parts that share their scales."""

    name: str
    sites: tuple[Site, ...]
    blocks: tuple[tuple[Part, ...], ...]


def single(site: Site, model: StepModel) -> Unit:
    """Round a weight by itself."""
    parts = (Part(site, rows, operand) for rows, operand in site.operand_of_rows(model))
    return Unit(site.weight, (site,), tuple((part,) for part in parts))


def joint(x: Site, h: Site, model: StepModel) -> Unit:
    """Round both matrices of a cell as one, where their products are added up."""
    kind = CELLS[h.node_kind]
    n_hidden = len(model.weights[h.weight]) // len(kind.gates)
    end = kind.n_joint_gates * n_hidden
    blocks: list[tuple[Part, ...]] = []
    for rows, operand in h.operand_of_rows(model):
        both = slice(rows.start, end if rows.stop is None else rows.stop)
        blocks.append((Part(x, both, x.operand), Part(h, both, operand)))
    if kind.n_joint_gates < len(kind.gates):
        rest = slice(end, None)
        blocks += [(Part(x, rest, x.operand),), (Part(h, rest, h.operand),)]
    return Unit(h.cell, (x, h), tuple(blocks))


@dataclass(frozen=True)
class Rounder:
    """What rounding a unit needs: the model, the grids, how, and operands on a real stream."""

    model: StepModel
    grids: Mapping[str, Grid]
    recipes: Mapping[str, ProductRecipe]
    operands: Mapping[str, Float32]

    def nearest(self, unit: Unit) -> dict[str, QuantizedRows]:
        """Round every row to nearest."""
        return self._assembled(
            unit, lambda block: round_rows(self._weight(block), self._q_max(block))
        )

    def gptq(self, unit: Unit) -> dict[str, QuantizedRows]:
        """Round by GPTQ on what the products read."""
        return self._assembled(
            unit,
            lambda block: round_rows_gptq(
                self._weight(block), self._operand(block), self._q_max(block)
            ),
        )

    def _assembled(
        self, unit: Unit, round_block: Callable[[tuple[Part, ...]], QuantizedRows]
    ) -> dict[str, QuantizedRows]:
        """Round each block, and give every weight its rows back."""
        found = {
            site.weight: QuantizedRows(
                np.empty(site.floats(self.model).shape, np.int8),
                np.empty(len(site.floats(self.model)), np.float32),
            )
            for site in unit.sites
        }
        for block in unit.blocks:
            rounded, start = round_block(block), 0
            for part in block:
                into = found[part.site.weight]
                columns = slice(start, start + into.q.shape[1])
                into.q[part.rows] = rounded.q[:, columns]
                into.scale[part.rows] = rounded.scale
                start = columns.stop
        return found

    def _weight(self, block: tuple[Part, ...]) -> Float32:
        return np.hstack([self._floats(part.site)[part.rows] for part in block])

    def _floats(self, site: Site) -> Float32:
        grid = self.grids.get(site.weight)
        weight: Float32 = site.floats(self.model)
        return weight if grid is None or grid.gain is None else weight / grid.gain

    def _operand(self, block: tuple[Part, ...]) -> Float32:
        """What the product makes of its operand."""
        return np.hstack([self._read(part) for part in block]).astype(np.float32)

    def _read(self, part: Part) -> npt.NDArray[np.float64]:
        values, grid = self.operands[part.operand], self.grids.get(part.site.weight)
        if grid is None:
            return values.astype(np.float64)
        form = self.recipes[part.site.weight].form
        return operand_steps(form, values, grid.step, grid.gain) * float(grid.step)

    def _q_max(self, block: tuple[Part, ...]) -> int:
        return Q_MAX[self.recipes[block[0].site.weight].weight]


def choose_rounding(
    units: list[Unit], rounder: Rounder, score: Callable[[Rows], float], progress: Progress
) -> tuple[dict[str, QuantizedRows], dict[str, str]]:
    """Round each unit by GPTQ, and keep that only where it beats nearest on held-out data.

    Args:
        units: what to round, in the order of the step.
        rounder: of the model.
        score: SQNR in dB, on a stream that nothing was fitted to, with given rows.
        progress: called after each unit, of stage ``round``.

    Returns the rows of each weight, and which rounding each has.
    """
    chosen = {weight: rows for unit in units for weight, rows in rounder.nearest(unit).items()}
    names = dict.fromkeys(chosen, "nearest")
    tried = [u for u in units if all(rounder.recipes[s.weight].rounding == "gptq" for s in u.sites)]
    best = score(chosen) if tried else 0.0
    for k, unit in enumerate(tried):
        rows = rounder.gptq(unit)
        found = score({**chosen, **rows})
        if found > best:
            best = found
            chosen |= rows
            names |= dict.fromkeys(rows, "gptq")
        progress("round", k + 1, len(tried))
    return chosen, names
