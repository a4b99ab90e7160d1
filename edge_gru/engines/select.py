"""Which engines there are, which of them work here, and which is the fastest that is right."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from edge_gru.engines.base import Engine, EngineSource, Float32
from edge_gru.engines.choices import Choice, recall, remember
from edge_gru.engines.golden import GoldenResult, replay
from edge_gru.engines.tensorrt import INSTALL as TENSORRT
from edge_gru.engines.tensors import GOLDEN
from edge_gru.errors import EdgeGruError, EngineUnavailableError, GoldenMismatchError

_log = logging.getLogger(__name__)

_N_ROUNDS = 9
_N_STEPS_A_ROUND = 40


@dataclass(frozen=True)
class EngineRow:
    """Where an engine lives, and how to get it."""

    module: str
    cls: str
    install: str
    serves: bool  # False: a definition to compare with, chosen by "auto" only if nothing else works


ENGINES = {
    "reference": EngineRow(
        "edge_gru.engines.reference", "ReferenceEngine", "reinstall edge-gru", serves=False
    ),
    "native": EngineRow(
        "edge_gru.engines.native",
        "NativeEngine",
        "install a C compiler, then install edge-gru again",
        serves=True,
    ),
    "onnxruntime": EngineRow(
        "edge_gru.engines.onnxruntime",
        "OnnxRuntimeEngine",
        "pip install 'edge-gru[onnxruntime]'",
        serves=True,
    ),
    "tensorrt": EngineRow(
        "edge_gru.engines.tensorrt.engine", "TensorRTEngine", TENSORRT, serves=True
    ),
}


@dataclass(frozen=True)
class Measurement:
    """One row of the engine table: times in microseconds a step, or why the engine is out."""

    engine: str
    precision: str
    p50_us: float | None
    p99_us: float | None
    golden: GoldenResult | None
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether the engine is there and reproduces the golden vectors."""
        return self.golden is not None and self.golden.passed


def open_engine(
    name: str, source: EngineSource, *, n_streams: int = 1, precision: str | None = None
) -> Engine:
    """Open an engine by name; ``auto`` takes the fastest that reproduces the golden vectors.

    What was the fastest is remembered for this bundle and machine, and proven again each time.

    Raises:
        EngineUnavailableError: unknown, not installed, or not able to run this bundle.
        BundleError: a part that the engine reads is missing or broken.
    """
    if name == "auto":
        known = _open_known(source, n_streams, precision)
        if known is not None:
            return known
        name, precision = _choose(source, precision)
    row = find_row(name)
    module = _imported(name)
    engine: Engine = getattr(module, row.cls)(source, n_streams=n_streams, precision=precision)
    return engine


def find_row(name: str) -> EngineRow:
    """Look up an engine by name.

    Raises:
        EngineUnavailableError: there is no such engine.
    """
    row = ENGINES.get(name)
    if row is None:
        raise EngineUnavailableError(
            f"expected an engine of auto, {', '.join(ENGINES)}, got {name!r}"
        )
    return row


def unavailable(name: str) -> str | None:
    """Say why an engine cannot be imported here; None: it can."""
    try:
        _imported(name)
    except EngineUnavailableError as error:
        return str(error)
    return None


def _imported(name: str) -> ModuleType:
    row = ENGINES[name]
    try:
        return importlib.import_module(row.module)
    except ImportError as error:
        raise EngineUnavailableError(
            f"engine {name!r} is not installed here ({error}); {row.install}"
        ) from error


def _open_known(source: EngineSource, n_streams: int, precision: str | None) -> Engine | None:
    """Open what was the fastest here before, if it still is an engine that may serve."""
    source.precision(precision)
    choice = recall(source.manifest.model_hash, precision)
    if choice is None or choice.engine not in ENGINES:
        return None
    try:
        engine, _ = open_proven(
            choice.engine, source, n_streams=n_streams, precision=choice.precision
        )
    except (EngineUnavailableError, GoldenMismatchError) as error:
        _log.info("engine %s was the fastest here and is not any more: %s", choice.engine, error)
        return None
    return engine


def _choose(source: EngineSource, precision: str | None) -> tuple[str, str]:
    """Measure, and remember; the engine and precision that were proven, not another choice."""
    best = fastest(measure(source, precision=precision))
    choice = Choice(best.engine, best.precision, best.p50_us or 0.0, best.p99_us or 0.0)
    remember(source.manifest.model_hash, precision, choice)
    return best.engine, best.precision


def open_proven(
    name: str, source: EngineSource, *, n_streams: int = 1, precision: str | None = None
) -> tuple[Engine, GoldenResult]:
    """Open an engine and let it serve only if it reproduces the golden vectors.

    Raises:
        GoldenMismatchError: it does not.
        EngineUnavailableError: it cannot be opened.
        BundleError: the golden vectors, or a part that the engine reads, are missing or broken.
    """
    engine = open_engine(name, source, n_streams=n_streams, precision=precision)
    try:
        result = replay(engine, source.part(GOLDEN))
    except EdgeGruError:
        engine.close()
        raise
    if not result.passed:
        engine.close()
        raise GoldenMismatchError(
            f"engine {engine.name} ({engine.precision}) does not reproduce the golden vectors: "
            f"expected a step error of at most {result.step_tolerance:g} and at least "
            f"{result.stream_floor_db:g} dB, got {result.step_error:.3g} and "
            f"{result.stream_sqnr_db:.1f} dB; use another engine"
        )
    return engine, result


def measure(source: EngineSource, *, precision: str | None = None) -> list[Measurement]:
    """Verify and time every engine on this machine, in interleaved rounds on golden inputs.

    Rows come in the order of the engine table.

    Raises:
        BundleError: the golden vectors, or a part that an engine reads, are missing or broken.
        EngineUnavailableError: the bundle has no such precision.
    """
    source.precision(precision)
    found = {name: _open_or_explain(name, source, precision) for name in ENGINES}
    opened = {name: row for name, row in found.items() if not isinstance(row, Measurement)}
    samples = source.tensors(GOLDEN)["stream.x"] if opened else np.empty((0, 0), np.float32)
    times = times_us({name: engine for name, (engine, _) in opened.items()}, samples)
    rows: list[Measurement] = []
    for name, row in found.items():
        if isinstance(row, Measurement):
            rows.append(row)
            continue
        engine, result = row
        p50_us, p99_us = np.percentile(times[name], [50, 99]).tolist()
        rows.append(Measurement(name, engine.precision, p50_us, p99_us, result))
        engine.close()
    return rows


def _open_or_explain(
    name: str, source: EngineSource, precision: str | None
) -> tuple[Engine, GoldenResult] | Measurement:
    try:
        return open_proven(name, source, precision=precision)
    except (EngineUnavailableError, GoldenMismatchError) as error:
        return Measurement(name, precision or "", None, None, None, str(error))


def times_us(engines: Mapping[str, Engine], samples: Float32) -> dict[str, list[float]]:
    """Time single steps in microseconds on ``(n, n_in)`` samples, in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for first in range(0, _N_ROUNDS * _N_STEPS_A_ROUND, _N_STEPS_A_ROUND):
        for name, engine in engines.items():
            for k in range(first, first + _N_STEPS_A_ROUND):
                x = samples[k % len(samples)]
                start = time.perf_counter()
                engine.step(x)
                times[name].append((time.perf_counter() - start) * 1e6)
    return times


def fastest(rows: list[Measurement]) -> Measurement:
    """Choose the usable engine with the smallest median step; a definition only if alone.

    Raises:
        EngineUnavailableError: none is usable; says why for each.
    """
    usable = [row for row in rows if row.usable]
    if not usable:
        reasons = "; ".join(f"{row.engine}: {row.reason}" for row in rows)
        raise EngineUnavailableError(f"no engine can run this bundle here: {reasons}")
    best = min(usable, key=lambda row: (not ENGINES[row.engine].serves, row.p50_us or 0.0))
    _log.info("engine %s (%s): p50 %.1f us a step", best.engine, best.precision, best.p50_us)
    return best
