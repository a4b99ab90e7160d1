"""What the float model does along the stream that finetuning learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantization.step_model import StepModel

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TwinStream:
    """Steps of the float model, sequence after sequence.

    ``x`` (n_steps, n_in), ``y`` (n_steps, n_out); ``before`` and ``after`` each step (n_steps,
    size) by state name. ``begins`` (n_steps,) tells where a sequence begins.
    """

    x: Float32
    y: Float32
    before: Mapping[str, Float32]
    after: Mapping[str, Float32]
    begins: npt.NDArray[np.bool_]

    @staticmethod
    def names(model: StepModel) -> set[str]:
        """Name the values of a step that a stream is made of."""
        states = [state.name for state in model.states]
        return {"x", model.program.output, *states, *(f"{name}_out" for name in states)}

    @classmethod
    def of(
        cls, model: StepModel, values: Mapping[str, Float32], sequences: Sequence[Float32]
    ) -> TwinStream:
        """Take the values of ``names`` along sequences."""
        states = [state.name for state in model.states]
        begins = np.zeros(len(values["x"]), np.bool_)
        begins[np.cumsum([0, *map(len, sequences[:-1])])] = True
        return cls(
            values["x"],
            values[model.program.output],
            {name: values[name] for name in states},
            {name: values[f"{name}_out"] for name in states},
            begins,
        )
