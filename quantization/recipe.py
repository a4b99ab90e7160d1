"""What to quantize and how: presets by name, and recipes of the user's own in TOML."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_gru.errors import ConfigError
from edge_gru.manifest import ProductRecipe, Recipe
from quantization.sites import Site

AUTO = "auto"

_INT8 = ProductRecipe("int8", "int8", "gptq")
_NEAREST = ProductRecipe("int8", "int8", "nearest")
_HILO = ProductRecipe("int8-hilo", "int8", "gptq")
_HILO_X = ProductRecipe("int8-hilo", "int8", "gptq", head_room=4.0)
_X = ProductRecipe("int8", "int8", "gptq", head_room=1.0)
_INT4 = ProductRecipe("int8", "int4", "gptq")
_INT4_X = ProductRecipe("int8-hilo", "int4", "gptq", head_room=4.0)
_HALF = ProductRecipe("fp16", "fp16")

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("rec", recurrent=_INT8, stacked=_INT8),
        Recipe("rec-nearest", recurrent=_NEAREST, stacked=_NEAREST),
        Recipe("rec-hilo", recurrent=_HILO, stacked=_HILO),
        Recipe("int8-hilo", recurrent=_INT8, stacked=_INT8, input=_HILO_X),
        Recipe("int8", recurrent=_INT8, stacked=_INT8, input=_X, is_joint=True),
        Recipe("w4", recurrent=_INT4, stacked=_INT4),
        Recipe("w4-both", recurrent=_INT4, stacked=_INT4, input=_INT4_X),
        Recipe("w4-qat", recurrent=_INT4, stacked=_INT4, input=_INT4_X, n_finetune_steps=500),
        Recipe("fp16", recurrent=_HALF, stacked=_HALF, input=_HALF),
        Recipe("fp32"),
    )
}


def find_recipe(name: str | os.PathLike[str] | Recipe) -> Recipe:
    """Look up a preset, or read a recipe from a .toml file.

    Raises:
        ConfigError: no preset of that name, or a file that is no recipe.
    """
    if isinstance(name, Recipe):
        return checked(name)
    if str(name).endswith(".toml"):
        return read_recipe(Path(name))
    recipe = RECIPES.get(str(name))
    if recipe is None:
        raise ConfigError(
            f"expected a recipe of {', '.join(RECIPES)}, {AUTO} or a .toml file, got {str(name)!r}"
        )
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read a recipe: the fields of ``Recipe``, or ``base``, a preset, and what differs from it.

    Raises:
        ConfigError: not readable, not TOML, or no recipe; names the field.
    """
    try:
        fields: dict[str, Any] = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigError(f"expected a recipe in {path}, got {error}") from error
    if not fields:
        raise ConfigError(f"expected a recipe in {path}, got an empty file; begin with a base")
    base = fields.pop("base", None)
    if base is not None and base not in list(RECIPES):
        raise ConfigError(f"{path}: expected a base of {', '.join(RECIPES)}, got {base!r}")
    start = {} if base is None else msgspec.to_builtins(RECIPES[base])
    try:
        recipe = msgspec.convert(_merged(start, {"name": path.stem, **fields}), Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} is no recipe: {error}") from error
    return checked(recipe)


def _merged(base: Any, over: Any) -> Any:
    """Put fields over those of a preset, also in its tables."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{name: _merged(base.get(name), value) for name, value in over.items()}}


def checked(recipe: Recipe) -> Recipe:
    """Refuse a recipe that asks for a product that there is not.

    Raises:
        ConfigError: says which product, and why.
    """
    kinds = {kind: getattr(recipe, kind) for kind in ("recurrent", "stacked", "input", "dense")}
    for where, product in {**kinds, **recipe.tensors}.items():
        if product.fault:
            raise ConfigError(f"recipe {recipe.name}, {where}: {product.fault}")
    products = (*kinds.values(), *recipe.tensors.values())
    if recipe.n_finetune_steps and not any(p.has_integer_weight for p in products):
        raise ConfigError(
            f"recipe {recipe.name}: n_finetune_steps learns weights in int8 or int4, "
            "and it has none; leave it out"
        )
    return recipe


def check_patterns(recipe: Recipe, sites: Sequence[Site]) -> None:
    """Refuse a recipe with an override of no weight.

    Raises:
        ConfigError: names the pattern, and the weights that there are.
    """
    weights = [site.weight for site in sites]
    for pattern in recipe.tensors:
        if not any(fnmatch.fnmatchcase(weight, pattern) for weight in weights):
            raise ConfigError(
                f"recipe {recipe.name}: expected a pattern of {', '.join(weights)}, got {pattern!r}"
            )


def recipe_of(recipe: Recipe, site: Site) -> ProductRecipe:
    """Say how one product is to be narrowed."""
    chosen: ProductRecipe = getattr(recipe, site.kind)
    for pattern, product in recipe.tensors.items():
        if fnmatch.fnmatchcase(site.weight, pattern):
            chosen = product
    return chosen
