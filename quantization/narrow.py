"""A recipe applied to a model: which products become what, on which grids, rounded how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine
from edge_gru.engines.golden import sqnr_db
from edge_gru.engines.tensors import packed
from edge_gru.manifest import ProductRecipe, Recipe
from quantization import step_graph
from quantization.evaluate import run_stream
from quantization.grids import Grid, find_grids, joint_grid
from quantization.operands import limited, operands_seen
from quantization.progress import Progress, silent
from quantization.qat import finetuner_of
from quantization.qat.choice import Finetuning, choose_finetuned
from quantization.qat.twin import TwinStream
from quantization.quantized import Quantized
from quantization.recipe import check_patterns, recipe_of
from quantization.rounding import QuantizedRows
from quantization.rounding_choice import Rounder, Unit, choose_rounding, joint, single
from quantization.sites import Site, find_sites
from quantization.split import Parts
from quantization.step_model import Array, StepModel

Float32 = npt.NDArray[np.float32]
Open = Callable[[Quantized], Engine]
"""Opens an engine on a model with given products."""

_N_FIT_STEPS = 16_384
_N_CHECK_STEPS = 8_192


@dataclass(frozen=True)
class Narrowed:
    """What a recipe made of a model, and which rounding each integer weight has.

    ``finetuning`` is None where the recipe asks for none.
    """

    quantized: Quantized
    rounding: Mapping[str, str]
    finetuning: Finetuning | None = None


def narrow(
    model: StepModel, recipe: Recipe, parts: Parts, open_engine: Open, progress: Progress = silent
) -> Narrowed:
    """Apply a recipe.

    Grids, GPTQ and finetuning are fitted to ``parts.fit``; ``parts.choose`` is what GPTQ and then
    finetuning must do better on.

    Raises:
        ConfigError: the recipe finetunes, and torch is not here or cannot follow the model.
    """
    sites = find_sites(model)
    check_patterns(recipe, sites)
    recipes = {site.weight: recipe_of(recipe, site) for site in sites}
    forms = {weight: r.form for weight, r in recipes.items() if r.weight != "fp32"}
    integer = [site for site in sites if recipes[site.weight].has_integer_weight]
    if not integer:
        return Narrowed(Quantized(forms), {})
    finetune = finetuner_of(model, recipe) if recipe.n_finetune_steps else None
    fit = limited(parts.fit.sequences, _N_FIT_STEPS)
    with open_engine(Quantized()) as engine:
        names = {operand for site in integer for _, operand in site.operand_of_rows(model)}
        names |= TwinStream.names(model) if finetune else set()
        graph = step_graph.build(model, Quantized())
        operands = operands_seen(engine, graph, names, fit)
        held_out = limited(parts.choose.sequences, _N_CHECK_STEPS)
        expected = np.concatenate([run_stream(engine, sequence) for sequence in held_out])
    cells = _joint_cells(integer, recipes) if recipe.is_joint else {}
    grids = find_grids(model, integer, recipe, operands)
    for x, h in cells.values():
        room = recipes[x.weight].head_room
        step = grids[h.weight].step
        grids[x.weight] = joint_grid(x, model, operands[x.operand], room, step)

    def quantized(rows: Mapping[str, QuantizedRows]) -> Quantized:
        return Quantized(forms, _tensors(rows, grids), tuple(cells))

    def score(rows: Mapping[str, QuantizedRows]) -> float:
        with open_engine(quantized(rows)) as engine:
            return sqnr_db(expected, np.concatenate([run_stream(engine, s) for s in held_out]))

    rounder = Rounder(model, grids, recipes, operands)
    rows, chosen = choose_rounding(_units(integer, cells, model), rounder, score, progress)
    if finetune is None:
        return Narrowed(quantized(rows), chosen)
    learnt = finetune(quantized(rows), TwinStream.of(model, operands, fit), progress)
    best, names_of, finetuning = choose_finetuned(
        rows, chosen, learnt, score, recipe.n_finetune_steps
    )
    return Narrowed(quantized(best), names_of, finetuning)


def _joint_cells(
    sites: list[Site], recipes: Mapping[str, ProductRecipe]
) -> dict[str, tuple[Site, Site]]:
    """Pair the products of each cell that both are of the same integers."""
    by_cell: dict[str, list[Site]] = {}
    for site in sites:
        if site.cell and recipes[site.weight].operand == "int8":
            by_cell.setdefault(site.cell, []).append(site)
    pairs = {cell: (found[0], found[1]) for cell, found in by_cell.items() if len(found) == 2}
    return {
        cell: (x, h)
        for cell, (x, h) in pairs.items()
        if recipes[x.weight].form == recipes[h.weight].form
    }


def _units(
    sites: list[Site], cells: Mapping[str, tuple[Site, Site]], model: StepModel
) -> list[Unit]:
    alone = [single(site, model) for site in sites if site.cell not in cells]
    return [*(joint(x, h, model) for x, h in cells.values()), *alone]


def _tensors(rows: Mapping[str, QuantizedRows], grids: Mapping[str, Grid]) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for weight, quantized in rows.items():
        tensors[f"{weight}_q"] = quantized.q
        tensors[f"{weight}_scale"] = quantized.scale
    for weight, grid in grids.items():
        tensors |= grid.tensors(weight)
    return tensors


def as_stored(quantized: Quantized) -> dict[str, Array]:
    """Return the tensors as a bundle holds them: 4-bit weights in half the bytes."""
    tensors = dict(quantized.tensors)
    for weight, form in quantized.products.items():
        if form.weight == "int4":
            tensors = packed(tensors, weight)
    return tensors
