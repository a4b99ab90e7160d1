"""What to quantize and how: presets by name."""

from __future__ import annotations

from edge_gru.errors import ConfigError
from edge_gru.manifest import Recipe

RECIPES = {
    "rec": Recipe("rec", rounding="gptq"),
    "rec-nearest": Recipe("rec-nearest", rounding="nearest"),
    "fp32": Recipe("fp32", rounding="none"),
}
_PRECISIONS = {"rec": "int8", "rec-nearest": "int8", "fp32": "fp32"}


def find_recipe(name: str) -> Recipe:
    """Look up a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise ConfigError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}")
    return recipe


def precision_of(recipe: Recipe) -> str:
    """The precision that a recipe is for."""
    return _PRECISIONS[recipe.name]
