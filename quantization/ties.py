"""How far the operands of a step are from the middle between two steps of their grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edge_gru.engines.base import Float32
from edge_gru.engines.products import FLOAT, operand_grid
from edge_gru.manifest import ProductForm
from quantization.operands import values_at
from quantization.sites import Site
from quantization.step_model import Array


def margins(
    sites: Sequence[Site],
    forms: Mapping[str, ProductForm],
    tensors: Mapping[str, Array],
    graph: onnx.ModelProto,
    x: Float32,
    states: dict[str, Float32],
) -> npt.NDArray[np.float64]:
    """Return the least distance to a tie, in steps, of what each of ``(m, n_in)`` steps computes.

    0.5 where a step quantizes nothing that it has computed itself.
    """
    found = np.full(len(x), 0.5)
    computed = [s for s in sites if s.is_computed and forms.get(s.weight, FLOAT).operand == "int8"]
    names = {s.weight: s.operand_computed for s in computed}
    values = values_at(graph, set(names.values()), x, states)
    for site in computed:
        step, gain = operand_grid(tensors, site.weight)
        steps = values[names[site.weight]].astype(np.float64) * (1 if gain is None else gain)
        fraction = np.abs(steps / step) % 1
        found = np.minimum(found, np.abs(fraction - 0.5).min(axis=1))
    return found
