"""One network under one recipe: made as ``quantize`` makes it, judged on the test stream."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec

from edge_gru.bundle import Bundle
from edge_gru.engines.base import EngineSource
from edge_gru.engines.select import open_engine
from firmware_bridge.sample import Schema
from quantization.benchmark.accuracy.subjects import Subject
from quantization.calibrate import Calibration, check_sequences
from quantization.comparison import run_sequences
from quantization.gate import Evidence, GateSettings, judge
from quantization.importers.source import import_model
from quantization.pack import Description, draft
from quantization.pipeline import quantize
from quantization.recipe import find_recipe
from quantization.split import split
from quantization.twins import FLOAT, Twins, twins_of
from quantization.work import Work

ENGINE = "onnxruntime"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one form of one network costs.

    ``form`` is a recipe of ours, or a tool and its mode. ``size_bytes`` is of the step graph as an
    ONNX file, or of the weights as the tool stores them. ``metric_worsening`` is relative to fp32.
    ``remark`` says what figures alone would not.
    """

    model: str
    form: str
    engine: str
    sqnr_db: float | None
    sqnr_db_least: float | None = None
    metric: str = ""
    metric_fp32: float | None = None
    metric_value: float | None = None
    metric_worsening: float | None = None
    n_stuck: int | None = None
    n_moving: int | None = None
    gate: str = ""
    size_bytes: int | None = None
    size_fp32_bytes: int | None = None
    n_steps: int = 0
    n_changed: int | None = None
    remark: str = ""


class Sizes(NamedTuple):
    """Bytes of a form and of the fp32 step graph beside it."""

    form: int | None
    fp32: int

    @classmethod
    def of(cls, source: EngineSource) -> Sizes:
        """Measure the step graphs of a bundle: of its own precision, and of fp32."""
        own, fp32 = (
            len(source.part(source.manifest.precisions[name].graphs["step"]))
            for name in (source.precision(None), FLOAT)
        )
        return cls(own, fp32)


def work_on(subject: Subject) -> Work:
    """Import a network and split its calibration as ``quantize`` does, for many recipes."""
    data = check_sequences(subject.calibration, None)
    model = import_model(subject.model, data.n_channels).model
    description = Description(
        name=subject.name,
        schema=Schema.unnamed(data.n_channels),
        recipe=find_recipe(FLOAT),
        outputs=tuple(f"y{k}" for k in range(model.n_out)),
    )
    return Work(model, description, data, split(data), GateSettings(resets=subject.resets))


def made_by(work: Work, recipe: str) -> EngineSource:
    """Apply a recipe, as ``quantize`` does."""
    chosen = find_recipe(recipe)
    description = replace(work.description, recipe=chosen)
    return draft(work.model, description, work.data, work.narrow(chosen).quantized).source


def packed(subject: Subject, recipe: str, tolerance: float) -> Bundle:
    """Quantize by the one call; a bundle that fails its gate is made all the same."""
    targets = subject.calibration_targets
    return quantize(
        subject.model,
        subject.calibration,
        recipe=recipe,
        name=subject.name,
        targets=targets,
        metric=None if targets is None else subject.metric,
        tolerance=tolerance,
        resets=subject.resets,
        accept_failure=True,
    )


def judged(subject: Subject, twins: Twins, n_steps: int) -> Evidence:
    """Run the gate on the test sequences, repeated in seeded random order to ``n_steps``."""
    settings = GateSettings(subject.metric, n_steps=n_steps, resets=subject.resets)
    return judge(replace(twins, others={}), test_data(subject), settings)


def test_data(subject: Subject) -> Calibration:
    """Check the sequences that judge, with their targets."""
    return check_sequences(subject.test, None, subject.targets)


def measured(subject: Subject, work: Work, recipe: str, n_steps: int) -> Row:
    """Apply a recipe and judge."""
    source = made_by(work, recipe)
    return row_of(subject, recipe, judged(subject, twins_of(source), n_steps), Sizes.of(source))


def on_engine(twins: Twins, engine: str) -> Twins:
    """Run the twins on another engine; the control stays where it is."""
    opened = partial(_opened, engine, twins.source)
    return replace(twins, fp32=opened(FLOAT), candidate=opened(twins.precision), others={})


def _opened(engine: str, source: EngineSource, precision: str) -> Any:
    return lambda n: open_engine(engine, source, n_streams=n, precision=precision)


def row_of(
    subject: Subject, form: str, evidence: Evidence, sizes: Sizes, engine: str = ENGINE
) -> Row:
    """Take the figures of a judgement."""
    judgement = evidence.judgement
    deviation = evidence.deviations[judgement.precision]
    moving = [db for db in deviation.sqnr_db_by_output if db is not None]
    row = Row(
        model=subject.name,
        form=form,
        engine=engine,
        sqnr_db=deviation.sqnr_db,
        sqnr_db_least=min(moving, default=None),
        n_stuck=judgement.stuck.n_stuck,
        n_moving=judgement.stuck.n_moving,
        gate=judgement.verdict,
        size_bytes=sizes.form,
        size_fp32_bytes=sizes.fp32,
        n_steps=deviation.n_steps,
    )
    task = judgement.task
    if task is None:
        return row
    return msgspec.structs.replace(
        row,
        metric=task.metric,
        metric_fp32=task.fp32,
        metric_value=task.candidate,
        metric_worsening=task.worsening,
    )


def decisions_changed(subject: Subject, twins: Twins) -> int:
    """Count the test sequences whose class at the last step is not that of fp32."""
    sequences = test_data(subject).sequences
    outputs = [run_sequences(opener, sequences) for opener in (twins.fp32, twins.candidate)]
    pairs = zip(*outputs, strict=True)
    return sum(int(y[-1].argmax() != right[-1].argmax()) for right, y in pairs)
