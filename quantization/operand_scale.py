"""The grid of the recurrent operand where nothing bounds it: the largest h seen, with head-room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine
from edge_gru.engines.cells import H_SCALE, H_STEPS
from quantization.step_model import StepModel

Float32 = npt.NDArray[np.float32]

HEAD_ROOM = 2.0  # a long stream exceeds any calibration


def with_operand_scales(model: StepModel, fp32: Engine, sequences: Sequence[Float32]) -> StepModel:
    """Return the model with a scale for every h that its cell does not keep within a bound.

    ``fp32`` is an engine on this model; it runs all ``sequences`` ``(n_steps, n_in)``.
    """
    bounds = {info.name: info.bound for info in model.states}
    unbounded = {cell: state for cell, state in model.cells.items() if bounds[state] is None}
    if not unbounded:
        return model
    largest = dict.fromkeys(unbounded, 0.0)
    for sequence in sequences:
        fp32.reset(0)
        for x in sequence:
            fp32.step(x)
            values = fp32.save_state(0).values
            for cell, state in unbounded.items():
                largest[cell] = max(largest[cell], float(np.abs(values[state]).max()))
    scales = {
        f"{cell}.h_scale": np.array(HEAD_ROOM * found / H_STEPS or H_SCALE, np.float32)
        for cell, found in largest.items()
    }
    return replace(model, weights={**model.weights, **scales})
