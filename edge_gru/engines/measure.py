"""Every engine in every precision that may be the fastest: proven, timed, compared."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edge_gru.engines.base import Engine, EngineSource, Float32
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.table import ENGINES, Build, open_named, prove, unavailable
from edge_gru.engines.tensors import GOLDEN
from edge_gru.errors import EngineUnavailableError, GoldenMismatchError

_log = logging.getLogger(__name__)

_N_ROUNDS = 9
_N_STEPS_A_ROUND = 40
# The model was judged in its own precision: another must be clearly faster to replace it.
_OTHERS_MUST_WIN_BY = 1.1

K = TypeVar("K")


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

    @property
    def title(self) -> str:
        """Name engine and precision for people."""
        return f"{self.engine} {self.precision}".rstrip()


def measure(
    source: EngineSource,
    *,
    precisions: Collection[str] = (),
    engines: Collection[str] | None = None,
    n_streams: int = 1,
    build: Build | None = None,
) -> list[Measurement]:
    """Verify and time engines on this machine, in interleaved rounds on golden inputs.

    Rows come in the order of the engine table: one for each of ``precisions``, or for each that may
    be the fastest; all engines unless some are named. Times are of one sample of every stream. What
    needs a build is built, which may take minutes.

    Raises:
        BundleError: the golden vectors, or a part that an engine reads, are missing or broken.
        EngineUnavailableError: the bundle has no such precision, or ``build`` was stopped.
    """
    for precision in precisions:
        source.precision(precision)
    build = build or Build()
    wanted = ENGINES if engines is None else [name for name in ENGINES if name in engines]
    rows: list[Measurement] = []
    opened: dict[int, Engine] = {}
    try:
        for name in wanted:
            for found, engine in _candidates(name, source, precisions, n_streams, build):
                if engine is not None:
                    opened[len(rows)] = engine
                rows.append(found)
        return _timed(rows, opened, source, build)
    finally:
        for engine in opened.values():
            engine.close()


def _candidates(
    name: str, source: EngineSource, precisions: Collection[str], n_streams: int, build: Build
) -> Iterator[tuple[Measurement, Engine | None]]:
    """Open an engine in each precision, or say why it cannot be."""
    reason = unavailable(name)
    if reason is not None:
        yield Measurement(name, "", None, None, None, reason), None
        return
    for chosen in precisions or candidates(name, source):
        build.check()
        try:
            engine = open_named(name, source, n_streams=n_streams, precision=chosen, build=build)
            golden = prove(engine, source)
        except (EngineUnavailableError, GoldenMismatchError) as error:
            yield Measurement(name, chosen, None, None, None, str(error)), None
        else:
            yield Measurement(name, chosen, None, None, golden), engine


def candidates(name: str, source: EngineSource) -> list[str]:
    """Name the precisions in which an engine may be the fastest: the bundle's own, and others."""
    own = [source.precision(None), *ENGINES[name].alternatives]
    return [p for p in dict.fromkeys(own) if p in source.manifest.precisions]


def _timed(
    rows: list[Measurement], opened: dict[int, Engine], source: EngineSource, build: Build
) -> list[Measurement]:
    samples = source.tensors(GOLDEN)["stream.x"] if opened else np.empty((0, 0), np.float32)
    times = times_us(opened, samples, build)
    timed = []
    for k, row in enumerate(rows):
        if k not in times:
            timed.append(row)
            continue
        p50_us, p99_us = np.percentile(times[k], [50, 99]).tolist()
        timed.append(Measurement(row.engine, row.precision, p50_us, p99_us, row.golden))
    return timed


def times_us(
    engines: Mapping[K, Engine], samples: Float32, build: Build | None = None
) -> dict[K, list[float]]:
    """Time single steps in microseconds on ``(n, n_in)`` samples, in interleaved rounds.

    With several streams, a step is one sample of each.

    Raises:
        EngineUnavailableError: ``build`` was stopped.
    """
    times: dict[K, list[float]] = {name: [] for name in engines}
    for first in range(0, _N_ROUNDS * _N_STEPS_A_ROUND, _N_STEPS_A_ROUND):
        for name, engine in engines.items():
            if build is not None:
                build.check()
            for k in range(first, first + _N_STEPS_A_ROUND):
                times[name].append(_time_us(engine, samples[k % len(samples)]))
    return times


def _time_us(engine: Engine, x: Float32) -> float:
    if engine.n_streams == 1:
        start = time.perf_counter()
        engine.step(x)
        return (time.perf_counter() - start) * 1e6
    batch = np.tile(x, (engine.n_streams, 1))
    start = time.perf_counter()
    engine.step_batch(batch)
    return (time.perf_counter() - start) * 1e6


def fastest(rows: Collection[Measurement], own: str | None = None) -> Measurement:
    """Choose the usable engine with the smallest median step; a definition only if alone.

    A precision other than the bundle's ``own`` must be faster by a tenth.

    Raises:
        EngineUnavailableError: none is usable; says why for each.
    """
    usable = [row for row in rows if row.usable]
    if not usable:
        reasons = "; ".join(f"{row.engine}: {row.reason}" for row in rows)
        raise EngineUnavailableError(f"no engine can run this bundle here: {reasons}")

    def cost(row: Measurement) -> tuple[bool, float]:
        handicap = 1.0 if own in (None, row.precision) else _OTHERS_MUST_WIN_BY
        return not ENGINES[row.engine].serves, (row.p50_us or 0.0) * handicap

    best = min(usable, key=cost)
    _log.info("engine %s (%s): p50 %.1f us a step", best.engine, best.precision, best.p50_us)
    return best
