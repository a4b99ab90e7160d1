"""From a trained model to a bundle: import, prove, quantize, measure, pack."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine
from edge_gru.errors import ConfigError
from edge_gru.manifest import Alert, Normalisation
from edge_gru.service.alerts import AlertRule
from firmware_bridge.sample import Schema
from quantization import evaluate, pack
from quantization.calibrate import Calibration, check_sequences
from quantization.evaluate import run_stream
from quantization.importers.proof import Original, Proof, prove
from quantization.importers.source import import_model, name_of
from quantization.operand_scale import with_operand_scales
from quantization.progress import Progress, silent
from quantization.recipe import find_recipe
from quantization.rounding import QuantizedRows
from quantization.rounding_choice import choose_rounding, round_nearest
from quantization.step_model import StepModel

Float32 = npt.NDArray[np.float32]


class TrainedModule(Protocol):
    """A ``torch.nn.Module``, named without importing torch."""

    def forward(self, *inputs: Any) -> Any:
        """Run whole sequences."""


Model: TypeAlias = TrainedModule | str | os.PathLike[str]

_N_WARMUP_STREAMS = 8


def quantize(
    model: Model,
    calibration: Sequence[npt.ArrayLike],
    *,
    recipe: str = "rec",
    schema: Schema | None = None,
    name: str | None = None,
    outputs: Sequence[str] = (),
    labels: Sequence[str] = (),
    normalisation: Normalisation | None = None,
    alerts: Sequence[Alert] = (),
    progress: Progress = silent,
) -> Bundle:
    """Make a bundle of a trained model, proven equal to it on the calibration sequences.

    Args:
        model: a ``torch.nn.Module`` with nn.GRU, nn.LSTM, nn.RNN or cells of these; the path of
            an .onnx file with such operators, or of a .pt2; ``file.py:factory``.
        calibration: sequences of shape ``(n_steps, n_in)``, physical units if ``normalisation`` or
            the model itself normalises, each from a fresh start.
        recipe: what to quantize; ``rec`` is the recurrent product in INT8, all else float, rounded
            by GPTQ where that beats nearest; ``rec-nearest``, ``fp32``.
        schema: channel names, units and rate; ``ch0..`` of unknown unit if omitted.
        name: of the model; the file or class name if omitted.
        outputs: names of the outputs, ``y0..`` if omitted; the ``labels`` of a classifier.
        labels: class names, one per output, if the outputs are scores of classes.
        normalisation: applied before the model, and carried into every graph.
        alerts: default thresholds on outputs.
        progress: called as the work proceeds.

    Raises:
        ModelError: the model is no causal stream; says why.
        DataError: the calibration does not fit the model, or is not finite.
        ConfigError: unknown recipe, or names that do not fit the outputs.
    """
    find_recipe(recipe)
    data = check_sequences(calibration, schema)
    progress("import", 0, 1)
    imported = import_model(model, data.n_channels)
    step_model = imported.model
    original: Original = imported.original
    if normalisation is not None:
        step_model = step_model.normalised(normalisation)
        original = _Normalised(original, normalisation)
    progress("import", 1, 1)
    names = _output_names(step_model, outputs, labels)
    for alert in alerts:
        AlertRule(alert, names)  # refuses what the device could not follow
    description = pack.Description(
        name=name or name_of(model),
        schema=schema or Schema.unnamed(data.n_channels),
        recipe=recipe,
        outputs=names,
        labels=tuple(labels),
        alerts=tuple(alerts),
    )
    made = pack.draft(step_model, description, data, round_nearest(step_model.recurrent_weights))
    with made.open("onnxruntime", "fp32") as engine:
        proof = prove(
            original, partial(run_stream, engine), data.sequences, imported.suspects, progress
        )
        scaled = with_operand_scales(step_model, engine, data.sequences)
    if scaled is not step_model:
        step_model = scaled
        made = pack.draft(step_model, description, data, round_nearest(scaled.recurrent_weights))
    made, rounding = _rounded(made, step_model, description, data, progress)
    return _measured(made, proof, rounding, data, progress)


def _rounded(
    made: pack.Draft,
    model: StepModel,
    description: pack.Description,
    data: Calibration,
    progress: Progress,
) -> tuple[pack.Draft, dict[str, str]]:
    """Replace nearest rounding by GPTQ where the recipe asks for it and it pays."""
    rounding = made.manifest.recipe.rounding
    if rounding != "gptq":
        return made, dict.fromkeys(model.cells, rounding)

    def open_int8(rows: Mapping[str, QuantizedRows]) -> Engine:
        return pack.draft(model, description, data, rows).open("onnxruntime", "int8")

    with made.open("onnxruntime", "fp32") as engine:
        rows, chosen = choose_rounding(
            model.recurrent_weights, model.operands, engine, open_int8, data, progress
        )
    return pack.draft(model, description, data, rows), chosen


def _measured(
    made: pack.Draft,
    proof: Proof,
    rounding: Mapping[str, str],
    data: Calibration,
    progress: Progress,
) -> Bundle:
    deviations = {
        precision: asdict(found) for precision, found in _deviations(made, data, progress).items()
    }
    with made.open("onnxruntime", "fp32", n_streams=_N_WARMUP_STREAMS) as engine:
        n_warmup = evaluate.measure_warmup(engine, data, progress)
    progress("pack", 0, 1)
    report = {
        "proof": proof.as_dict(),
        "rounding": dict(rounding),
        "deviation_from_fp32": deviations,
        "warmup": {"n_steps": n_warmup, "tolerance_std": evaluate.WARMUP_TOLERANCE},
        "calibration": {
            "n_sequences": len(data.sequences),
            "n_steps": data.n_steps,
            "sha256": data.sha256,
        },
        "tensors": pack.explain(made),
        "tensorrt_lint": pack.lint_graphs(made),
        "versions": {"onnx": onnx.__version__, "numpy": np.__version__},
    }
    bundle = pack.finish(made, pack.golden_vectors(made, data), report, n_warmup)
    progress("pack", 1, 1)
    return bundle


def _deviations(
    made: pack.Draft, data: Calibration, progress: Progress
) -> dict[str, evaluate.Deviation]:
    outputs: dict[str, list[Float32]] = {}
    total = len(made.manifest.precisions) * len(data.sequences)
    done = 0
    for precision in made.manifest.precisions:
        outputs[precision] = []
        with made.open("onnxruntime", precision) as engine:
            for sequence in data.sequences:
                outputs[precision].append(run_stream(engine, sequence))
                done += 1
                progress("measure", done, total)
    return {
        precision: evaluate.deviation(outputs["fp32"], got)
        for precision, got in outputs.items()
        if precision != "fp32"
    }


def _output_names(
    model: StepModel, outputs: Sequence[str], labels: Sequence[str]
) -> tuple[str, ...]:
    for what, names in (("outputs", outputs), ("labels", labels)):
        if names and (len(names) != model.n_out or len(set(names)) != len(names)):
            raise ConfigError(
                f"expected {model.n_out} distinct {what}, as the model has outputs, "
                f"got {', '.join(names)}"
            )
    return tuple(outputs or labels or (f"y{k}" for k in range(model.n_out)))


class _Normalised:
    """A model as its trainer fed it: on normalised inputs."""

    def __init__(self, original: Original, normalisation: Normalisation) -> None:
        self._original = original
        self._mean = np.array(normalisation.mean, np.float32)
        self._scale = np.array(normalisation.scale, np.float32)

    @property
    def window_steps(self) -> int | None:
        return self._original.window_steps

    def run(self, sequence: Float32) -> Float32:
        return self._original.run((sequence - self._mean) / self._scale)
