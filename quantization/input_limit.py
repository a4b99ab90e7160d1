"""Which physical inputs the grid of x still holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_gru.engines.products import FLOAT, operand_grid, reach
from edge_gru.manifest import InputRange
from quantization.quantized import Quantized
from quantization.sites import Site
from quantization.step_model import StepModel


def input_limit(model: StepModel, sites: Sequence[Site], quantized: Quantized) -> InputRange | None:
    """Return the values of each channel beyond which a product reads the end of its grid.

    None where x is float, or where more than the normalisation stands before the grid.
    """
    first = [
        site
        for site in sites
        if site.operand in ("x", "x_normalised")
        and quantized.products.get(site.weight, FLOAT).has_integer_operand
    ]
    if not first:
        return None
    limits = []
    for site in first:
        step, gain = operand_grid(quantized.tensors, site.weight)
        limits.append(np.full(model.n_in, reach(step)) / (1.0 if gain is None else gain))
    limit = np.min(limits, axis=0)
    mean, scale = np.zeros(model.n_in), np.ones(model.n_in)
    if model.normalisation is not None:
        mean, scale = np.array(model.normalisation.mean), np.array(model.normalisation.scale)
    if all(site.operand == "x" for site in first):
        mean, scale = np.zeros(model.n_in), np.ones(model.n_in)
    return InputRange(
        tuple((mean - limit * scale).tolist()), tuple((mean + limit * scale).tolist())
    )
