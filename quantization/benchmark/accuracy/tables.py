"""The tables: which networks, which forms, under which conditions, and what they have to reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from edge_gru.engines.base import EngineSource
from edge_gru.engines.select import open_engine
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import GateResult
from quantization.benchmark.accuracy import bars, subjects
from quantization.benchmark.accuracy.bars import AMPLIFIER_ESR, OURS
from quantization.benchmark.accuracy.measure import (
    Row,
    Sizes,
    decisions_changed,
    judged,
    made_by,
    measured,
    on_engine,
    packed,
    row_of,
    work_on,
)
from quantization.benchmark.accuracy.peers import Peer, peers_of, with_peer
from quantization.benchmark.accuracy.subjects import Subject
from quantization.checks import N_JUDGED_STEPS
from quantization.twins import Twins, twins_of

RECIPES = ("rec", "rec-nearest", "rec-hilo", "int8-hilo", "int8", "w4", "fp16")
EXAMPLES = ("cmapss_fd001", "basicmotions", "phone_motion")
AMPLIFIERS = ("ht1-ht11", "ht1-ht13")
ENGINES = ("reference", "onnxruntime", "native")

_QUICK_STEPS = 20_000

Build: TypeAlias = Callable[[], Subject]


@dataclass(frozen=True)
class Extent:
    """How much is run: of the seeds, and of every stream."""

    seeds: tuple[int, ...] = (0, 1)
    n_steps: int = N_JUDGED_STEPS


FULL = Extent()
QUICK = Extent((0,), _QUICK_STEPS)


@dataclass(frozen=True)
class TableSpec:
    """A table: its rows, made one by one, and the bars that a row misses, as sentences."""

    title: str
    conditions: str
    rows: Callable[[Extent], Iterator[Row]]
    missed: Callable[[Sequence[Row]], Iterator[str]]


def _task_builders(extent: Extent) -> list[Build]:
    makers = (
        subjects.japanese_vowels_network,
        subjects.run_to_failure_network,
        subjects.long_memory_network,
    )
    return [partial(make, seed=seed) for make in makers for seed in extent.seeds]


def _task_rows(extent: Extent) -> Iterator[Row]:
    for build in _task_builders(extent):
        subject = build()
        work = work_on(subject)
        for recipe in RECIPES:
            yield measured(subject, work, recipe, extent.n_steps)


def _real_rows(extent: Extent) -> Iterator[Row]:
    for name in EXAMPLES:
        subject = subjects.example_network(name)
        work = work_on(subject)
        for recipe in RECIPES:
            source = made_by(work, recipe)
            twins = twins_of(source)
            row = row_of(subject, recipe, judged(subject, twins, extent.n_steps), Sizes.of(source))
            if name == "basicmotions":
                row = msgspec.structs.replace(row, n_changed=decisions_changed(subject, twins))
            yield row


def _large_rows(extent: Extent) -> Iterator[Row]:
    for cell, n_layers in (("GRU", 1), ("LSTM", 3)):
        subject = subjects.large_network(cell, n_layers)
        work = work_on(subject)
        for recipe in ("rec", "rec-nearest", "rec-hilo", "fp16"):
            row = measured(subject, work, recipe, extent.n_steps)
            yield msgspec.structs.replace(row, remark=subject.remark)


def _amplifier_rows(extent: Extent) -> Iterator[Row]:
    for name in AMPLIFIERS:
        played = subjects.amplifier_network(name)
        bundles = {
            recipe: packed(played[0], recipe, AMPLIFIER_ESR)
            for recipe in ("rec", "rec-hilo", "int8-hilo", "fp16", "auto")
        }
        for subject in played:
            for recipe, bundle in bundles.items():
                chosen = bundle.manifest.recipe.name
                form = recipe if recipe == chosen else f"{recipe}: {chosen}"
                evidence = judged(subject, twins_of(bundle.source), extent.n_steps)
                row = row_of(subject, form, evidence, Sizes.of(bundle.source))
                yield _as_packed(row, bundle.manifest.gate)


def _as_packed(row: Row, gate: GateResult | None) -> Row:
    """Show what the gate of the bundle said, in the place of that of the stream."""
    if gate is None:
        return row
    return msgspec.structs.replace(row, gate=gate.verdict, remark="; ".join(gate.reasons))


def _cell_rows(extent: Extent) -> Iterator[Row]:
    builders: tuple[Build, ...] = (
        partial(subjects.long_memory_network, "GRU"),
        partial(subjects.long_memory_network, "LSTM"),
        partial(subjects.run_to_failure_network, "LSTM"),
        partial(subjects.run_to_failure_network, "RNN"),
    )
    for build in builders:
        subject = build()
        work = work_on(subject)
        for recipe in ("rec", "rec-hilo"):
            source = made_by(work, recipe)
            yield from _rows_of_engines(subject, recipe, source, extent)


def _engine_rows(extent: Extent) -> Iterator[Row]:
    for name in EXAMPLES:
        subject = subjects.example_network(name)
        work = work_on(subject)
        for recipe in ("rec", "rec-hilo", "int8", "int8-hilo", "w4"):
            yield from _rows_of_engines(subject, recipe, made_by(work, recipe), extent)


def _rows_of_engines(
    subject: Subject, recipe: str, source: EngineSource, extent: Extent
) -> Iterator[Row]:
    for engine in filter(partial(_runs, source), ENGINES):
        twins = on_engine(twins_of(source), engine)
        evidence = judged(subject, twins, extent.n_steps)
        yield row_of(subject, recipe, evidence, Sizes.of(source), engine)


def _runs(source: EngineSource, engine: str) -> bool:
    """Whether an engine is here: one of C may not have been built."""
    try:
        open_engine(engine, source).close()
    except EngineUnavailableError:
        return False
    return True


def _peer_rows(extent: Extent) -> Iterator[Row]:
    builders = _task_builders(Extent((0,), extent.n_steps))
    builders += [partial(subjects.example_network, name) for name in EXAMPLES]
    for build in builders:
        subject = build()
        source = made_by(work_on(subject), OURS)
        twins = twins_of(source)
        sizes = Sizes.of(source)
        yield row_of(subject, OURS, judged(subject, twins, extent.n_steps), sizes)
        for peer in peers_of(twins, subject.model, subject.calibration):
            yield _peer_row(subject, twins, peer, sizes._replace(form=peer.size_bytes), extent)


def _peer_row(subject: Subject, twins: Twins, peer: Peer, sizes: Sizes, extent: Extent) -> Row:
    if peer.opener is None:
        return Row(
            model=subject.name,
            form=peer.name,
            engine="",
            sqnr_db=None,
            size_bytes=sizes.form,
            size_fp32_bytes=sizes.fp32,
            remark=peer.remark,
        )
    evidence = judged(subject, with_peer(twins, peer.opener), extent.n_steps)
    row = row_of(subject, peer.name, evidence, sizes, peer.engine)
    return msgspec.structs.replace(row, remark=peer.remark)


_STREAM = (
    "Free-running beside fp32 on the same samples, test sequences joined in seeded random order "
    "and repeated; SQNR over all outputs, their mean removed; metric on every test sequence; size "
    "of the step graph."
)

TABLES: Mapping[str, TableSpec] = MappingProxyType(
    {
        "tasks": TableSpec(
            "Three tasks, GRU(64) and a linear layer",
            f"{_STREAM} The state is never cleared. Bars: rec 55 dB, on LM 60; its metric at most "
            "0.1 % worse, nothing stuck; w4 38 dB (its weights are 4 bit in the bundle, and lie in "
            "the ONNX graph as int8).",
            _task_rows,
            bars.of_tasks,
        ),
        "real": TableSpec(
            "The trained examples on their test recordings",
            f"{_STREAM} Bars: rec 50 dB, metric at most 0.1 % worse, nothing stuck; on "
            "BasicMotions no decision changes.",
            _real_rows,
            bars.of_examples,
        ),
        "large": TableSpec(
            "256 units a layer, the h of the last layer as outputs",
            f"{_STREAM} The state is cleared where a recording begins. Bars: rec 32 dB, "
            "rec-hilo 42.",
            _large_rows,
            bars.of_large,
        ),
        "amp": TableSpec(
            "Guitar amplifiers with third-party weights, sample by sample",
            f"{_STREAM} Calibrated on plucked strings; the gate is what the bundle says of them "
            "(ESR at most 0.01); judged on others, and on a recorded click with its silence. ESR "
            "against the module in fp32. Bars: the gate refuses rec and says why; auto ends at ESR "
            "<= 0.01. Aim: rec-hilo <= 0.02.",
            _amplifier_rows,
            bars.of_amplifiers,
        ),
        "cells": TableSpec(
            "LSTM and RNN, 64 units and a linear layer; the c of an LSTM stays fp32",
            f"{_STREAM} The state is never cleared. Bar: the gate is passed on both engines.",
            _cell_rows,
            bars.of_cells,
        ),
        "engines": TableSpec(
            "The trained examples on every engine",
            f"{_STREAM} Bar: at most 0.5 dB below the reference.",
            _engine_rows,
            bars.of_engines,
        ),
        "peers": TableSpec(
            "Other tools on the same networks and streams",
            f"{_STREAM} All are calibrated on the same sequences, those on a graph with the float "
            "states too. Bars: rec ahead in SQNR in every row; its metric at most 0.1 % worse than "
            "fp32, or no worse than the tool's.",
            _peer_rows,
            bars.of_peers,
        ),
    }
)
