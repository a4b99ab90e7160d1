"""How much of what the products read lies beyond the grids that they read it on."""

from __future__ import annotations

import numpy as np

from edge_gru.engines.products import operand_grid, reach
from quantization.comparison import Samples
from quantization.operands import values_at
from quantization.sites import Site, find_sites
from quantization.step_model import StepModel
from quantization.twins import Twins, float_graph


def saturation(twins: Twins, samples: Samples) -> dict[str, float]:
    """Return the share of values beyond the grid, by the name of the product.

    Of the products whose operand nothing bounds: what is in [-1, 1] by its nature cannot leave.
    """
    manifest = twins.manifest
    tensors = twins.source.weights()
    forms = manifest.precisions[twins.precision].products
    model = StepModel(manifest.program, tensors, manifest.states, manifest.n_in, manifest.n_out)
    sites = [
        site
        for site in find_sites(model)
        if site.weight in forms and forms[site.weight].has_integer_operand and site.bound is None
    ]
    if not sites:
        return {}
    names = {site.operand for site in sites}
    values = values_at(float_graph(twins.source), names, samples.x, samples.fp32)

    def share(site: Site) -> float:
        step, gain = operand_grid(tensors, site.weight)
        read = np.abs(values[site.operand] * (1 if gain is None else gain))
        return float(np.mean(read > reach(step)))

    return {f"{site.operand} into {site.weight}": share(site) for site in sites}
