"""Finetuning of integer weights against the float model; all of torch is behind one door.

It pays for weights of 4 bits in both matrices. Two GRU(64), one seed each, 4 streams of 5,000
steps that nothing was fitted to, recipe ``w4-both`` before and ``w4-qat`` after 500 steps:
remaining life from spiky sensors 34.4 and 40.9 dB, a memory of 300 steps 46.5 and 47.9 dB
(``w4``, whose first w_ih is float, has 47.2 and 49.1). At 8 bits it looks like noise:
``int8-hilo`` after 250 steps with weights three times as fast, on the data that decides, 53.8
and 54.8 dB, 63.8 and 61.3 dB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from edge_gru.errors import ConfigError
from edge_gru.manifest import Recipe
from quantization.progress import Progress
from quantization.qat.choice import Rows
from quantization.qat.twin import TwinStream
from quantization.quantized import Quantized
from quantization.step_model import StepModel

Finetune: TypeAlias = Callable[[Quantized, TwinStream, Progress], Sequence[Rows]]
"""``finetune(quantized, twin, progress)`` -> all integer weights by name, as they were on the way
and at the end: which of these is best, only data that it did not see can tell."""


def finetuner_of(model: StepModel, recipe: Recipe) -> Finetune:
    """Make ready to finetune what a recipe makes of a model.

    Raises:
        ConfigError: torch is not here, or the step has an operation that cannot be followed.
    """
    try:
        from quantization.qat.distil import Distiller  # noqa: PLC0415 - torch is an extra
    except ImportError as error:
        raise ConfigError(
            f"recipe {recipe.name} finetunes, which takes torch ({error}): "
            "pip install 'edge-gru[torch]', or take a recipe without n_finetune_steps"
        ) from error
    return Distiller(model, recipe.n_finetune_steps).finetune
