"""A model on its data, and what one recipe makes of it: narrowed, drafted, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_gru.engines.base import Engine
from edge_gru.engines.select import open_engine
from edge_gru.manifest import Recipe
from quantization import pack
from quantization.calibrate import Calibration
from quantization.gate import Evidence, GateSettings, judge
from quantization.narrow import Narrowed, narrow
from quantization.progress import Progress, silent
from quantization.qat.choice import Finetuning
from quantization.quantized import Quantized
from quantization.split import Parts
from quantization.step_model import StepModel
from quantization.twins import Twins, twins_of


@dataclass(frozen=True)
class Attempt:
    """What a recipe made of a model, and what the gate says of it."""

    made: pack.Draft
    twins: Twins
    evidence: Evidence
    rounding: Mapping[str, str]
    finetuning: Finetuning | None = None


@dataclass(frozen=True)
class Work:
    """A model, what the user says of it, its data in parts, and how it is to be judged."""

    model: StepModel
    description: pack.Description
    data: Calibration
    parts: Parts
    settings: GateSettings
    progress: Progress = silent

    def open(self, quantized: Quantized) -> Engine:
        """Open onnxruntime on the model with given products."""
        source = pack.trial(self.model, self.description, self.data, quantized)
        return open_engine("onnxruntime", source, precision=quantized.precision)

    def narrow(self, recipe: Recipe) -> Narrowed:
        """Apply a recipe."""
        return narrow(self.model, recipe, self.parts, self.open, self.progress)

    def attempt(self, recipe: Recipe, narrowed: Narrowed | None = None) -> Attempt:
        """Apply a recipe, unless that is done, and judge what it makes."""
        narrowed = narrowed or self.narrow(recipe)
        description = replace(self.description, recipe=recipe)
        made = pack.draft(self.model, description, self.data, narrowed.quantized)
        twins = twins_of(made.source)
        evidence = judge(twins, self.parts.judge, self.settings, self.progress)
        return Attempt(made, twins, evidence, narrowed.rounding, narrowed.finetuning)
