"""From a trained model to a bundle: import, prove, quantize, measure, pack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edge_gru.bundle import Bundle
from edge_gru.engines.table import find_row
from edge_gru.errors import ConfigError, GateError
from edge_gru.manifest import Alert, Normalisation, Recipe
from edge_gru.service.alerts import AlertRule
from firmware_bridge.sample import Schema
from quantization import evaluate, pack
from quantization.calibrate import check_sequences
from quantization.evaluate import run_stream
from quantization.gate import TOLERANCE, GateSettings
from quantization.importers.proof import Original, Proof, prove
from quantization.importers.source import import_model, name_of
from quantization.judgement import refusal
from quantization.ladder import Rung, climb
from quantization.metrics import Metric, Score, find_metric
from quantization.progress import Progress, silent
from quantization.quantized import Quantized
from quantization.recipe import AUTO, find_recipe
from quantization.report.content import build_report, rounded
from quantization.split import split
from quantization.step_model import StepModel
from quantization.work import Attempt, Work

Float32 = npt.NDArray[np.float32]


class TrainedModule(Protocol):
    """A ``torch.nn.Module``, named without importing torch."""

    def forward(self, *inputs: Any) -> Any:
        """Run whole sequences."""


Model: TypeAlias = TrainedModule | str | os.PathLike[str]

_N_WARMUP_STREAMS = 8
_MORE_FAITHFUL = ("rec-hilo", "fp16", "fp32", AUTO)  # what to try where a recipe fails


def quantize(  # noqa: PLR0913 - the one call that users make; all but two have defaults
    model: Model,
    calibration: Sequence[npt.ArrayLike],
    *,
    recipe: str | os.PathLike[str] | Recipe = "rec",
    engine: str = "auto",
    schema: Schema | None = None,
    name: str | None = None,
    outputs: Sequence[str] = (),
    labels: Sequence[str] = (),
    normalisation: Normalisation | None = None,
    alerts: Sequence[Alert] = (),
    targets: Sequence[npt.ArrayLike] | None = None,
    metric: str | Score | Metric | None = None,
    tolerance: float = TOLERANCE,
    resets: bool = False,
    accept_failure: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """Make a bundle of a trained model, proven equal to it and judged on the user's sequences.

    Half of the calibration steps are fitted to, a quarter chooses between roundings, and a quarter
    judges: three disjoint parts, whole sequences where there are enough.

    Args:
        model: a ``torch.nn.Module`` with nn.GRU, nn.LSTM, nn.RNN or cells of these; the path of
            an .onnx file with such operators, or of a .pt2; ``file.py:factory``.
        calibration: sequences of shape ``(n_steps, n_in)``, physical units if ``normalisation`` or
            the model itself normalises, each from a fresh start.
        recipe: what to quantize: a preset of ``quantization.recipe``, a .toml file, or ``auto``,
            the cheapest of the presets that passes the gate. ``rec`` is the products with h in
            INT8, all else float, rounded by GPTQ where that beats nearest.
        engine: whose step ``auto`` measures; by default the fastest here of those that serve.
        schema: channel names, units and rate; ``ch0..`` of unknown unit if omitted.
        name: of the model; the file or class name if omitted.
        outputs: names of the outputs, ``y0..`` if omitted; the ``labels`` of a classifier.
        labels: class names, one per output, if the outputs are scores of classes.
        normalisation: applied before the model, and carried into every graph.
        alerts: default thresholds on outputs.
        targets: the truth of each sequence, one row a step or that of the last step; class indices
            for ``accuracy`` and ``macro_f1``.
        metric: of the task: ``accuracy``, ``macro_f1``, ``rmse``, ``mae``, ``esr``, or a function
            of a list of outputs ``(n_steps, n_out)`` and the list of their targets.
        tolerance: how much worse than fp32 the metric may be, relative; of ``esr``, which is a
            ratio already, by how much.
        resets: the product clears its state where a sequence begins, so the gate does; else the
            sequences are joined with the state carried on.
        accept_failure: pack a model that does not pass the gate; the bundle says so.
        progress: called as the work proceeds.

    Raises:
        ModelError: the model is no causal stream; says why.
        DataError: the calibration does not fit the model, or is not finite.
        ConfigError: unknown recipe or metric, or names that do not fit the outputs.
        EngineUnavailableError: there is no such engine.
        GateError: the quantized model does not pass its gate; says which checks, and what to do.
    """
    chosen = None if recipe == AUTO else find_recipe(recipe)
    if engine != AUTO:
        find_row(engine)
    data = check_sequences(calibration, schema, targets)
    settings = GateSettings(
        find_metric(metric, has_targets=targets is not None), tolerance, resets=resets
    )
    parts = split(data)
    progress("import", 0, 1)
    imported = import_model(model, data.n_channels)
    step_model = imported.model
    step_model.check_finite()
    original: Original = imported.original
    if normalisation is not None:
        step_model = step_model.normalised(normalisation)
        original = _Normalised(original, normalisation)
    progress("import", 1, 1)
    names = _output_names(step_model, outputs, labels)
    for alert in alerts:
        AlertRule(alert, names)  # refuses what the device could not follow
    work = Work(
        step_model,
        pack.Description(
            name=name or name_of(model),
            schema=schema or Schema.unnamed(data.n_channels),
            recipe=chosen or find_recipe("fp32"),
            outputs=names,
            labels=tuple(labels),
            alerts=tuple(alerts),
        ),
        data,
        parts,
        settings,
        progress,
    )
    with work.open(Quantized()) as opened:
        proof = prove(
            original, partial(run_stream, opened), data.sequences, imported.suspects, progress
        )
    if chosen is None:
        tried, attempt = climb(work, engine)
    else:
        tried, attempt = [], work.attempt(chosen)
    return _packed(work, attempt, proof, tried, accept_failure=accept_failure)


def _packed(
    work: Work,
    attempt: Attempt,
    proof: Proof,
    tried: Sequence[Rung],
    *,
    accept_failure: bool,
) -> Bundle:
    """Pack if the gate is passed or the user insists."""
    made, evidence = attempt.made, attempt.evidence
    with made.open("onnxruntime", "fp32", n_streams=_N_WARMUP_STREAMS) as opened:
        n_warmup = evaluate.measure_warmup(opened, work.data, work.progress)
    work.progress("pack", 0, 1)
    report = build_report(made, attempt.twins, evidence, _described(work)) | rounded(
        {
            "proof": proof.as_dict(),
            "rounding": dict(attempt.rounding),
            "finetuning": msgspec.to_builtins(attempt.finetuning),
            "tried": msgspec.to_builtins(tried),
            "warmup": {"n_steps": n_warmup, "tolerance_std": evaluate.WARMUP_TOLERANCE},
            "tensorrt_lint": pack.lint_graphs(made),
        }
    )
    judgement = evidence.judgement
    if judgement.verdict == "fail" and not accept_failure:
        recipe = made.manifest.recipe.name
        others = [name for name in _MORE_FAITHFUL if name != recipe]
        raise GateError(refusal(judgement, recipe, others), report)
    golden = pack.golden_vectors(made, work.data, work.model)
    bundle = pack.finish(made, golden, report, n_warmup, judgement.result)
    work.progress("pack", 1, 1)
    return bundle


def _described(work: Work) -> dict[str, Any]:
    """Say which data did what."""
    parts = work.parts
    described: dict[str, Any] = {
        name: {"n_sequences": len(d.sequences), "n_steps": d.n_steps, "sha256": d.sha256}
        for name, d in (
            ("calibration", work.data), ("fitted to", parts.fit), ("chooses", parts.choose)
        )
    }  # fmt: skip
    whole = "whole sequences" if parts.by == "sequences" else "every sequence cut in time"
    return {**described, "split": f"half of the steps, a quarter and a quarter, {whole}"}


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
