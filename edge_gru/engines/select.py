"""The engine that is asked for, or the fastest here that is right; what was chosen is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.choices import Choice, recall, remember
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.measure import Measurement, fastest, measure
from edge_gru.engines.table import ENGINES, Build, open_named, prove, unavailable
from edge_gru.errors import EngineUnavailableError, GoldenMismatchError

_log = logging.getLogger(__name__)

AUTO = "auto"


def open_engine(
    name: str, source: EngineSource, *, n_streams: int = 1, precision: str | None = None
) -> Engine:
    """Open an engine by name; ``auto`` takes the fastest that reproduces the golden vectors.

    What was the fastest is remembered for this bundle and machine, and proven again each time. An
    engine that needs a build is taken by ``auto`` only once it was measured as the fastest.

    Raises:
        EngineUnavailableError: unknown, not installed, or not able to run this bundle.
        BundleError: a part that the engine reads is missing or broken.
    """
    if name == AUTO:
        engine, _ = _open_fastest(source, n_streams, precision)
        return engine
    return open_named(name, source, n_streams=n_streams, precision=precision)


def open_proven(
    name: str,
    source: EngineSource,
    *,
    n_streams: int = 1,
    precision: str | None = None,
    build: Build | None = None,
) -> tuple[Engine, GoldenResult]:
    """Open an engine and let it serve only if it reproduces the golden vectors.

    Raises:
        GoldenMismatchError: it does not.
        EngineUnavailableError: it cannot be opened.
        BundleError: the golden vectors, or a part that the engine reads, are missing or broken.
    """
    if name == AUTO:
        return _open_fastest(source, n_streams, precision)
    engine = open_named(name, source, n_streams=n_streams, precision=precision, build=build)
    return engine, prove(engine, source)


def _open_fastest(
    source: EngineSource, n_streams: int, precision: str | None
) -> tuple[Engine, GoldenResult]:
    source.precision(precision)
    choice = recall(source.manifest.model_hash, precision)
    if choice is not None:
        known = open_known(choice.engine, choice.precision, source, n_streams)
        if known is not None:
            return known
    return open_measured(source, n_streams, precision)


def open_known(
    engine: str,
    precision: str,
    source: EngineSource,
    n_streams: int = 1,
    build: Build | None = None,
) -> tuple[Engine, GoldenResult] | None:
    """Open what was the fastest here before, if it still is an engine that may serve."""
    if engine not in ENGINES:
        return None
    try:
        return open_proven(engine, source, n_streams=n_streams, precision=precision, build=build)
    except (EngineUnavailableError, GoldenMismatchError) as error:
        _log.info("engine %s was the fastest here and is not any more: %s", engine, error)
        return None


def open_measured(
    source: EngineSource, n_streams: int = 1, precision: str | None = None
) -> tuple[Engine, GoldenResult]:
    """Measure the engines that are there without a build, keep the table, open the fastest.

    Raises:
        EngineUnavailableError: none is usable.
        BundleError: a part that an engine reads is missing or broken.
    """
    choice = choose(source, precision, engines=ready_engines())
    return open_proven(choice.engine, source, n_streams=n_streams, precision=choice.precision)


def choose(
    source: EngineSource,
    precision: str | None = None,
    *,
    engines: list[str] | None = None,
    build: Build | None = None,
) -> Choice:
    """Measure, choose the fastest, and keep the table for this bundle and machine.

    Raises:
        EngineUnavailableError: none is usable, or ``build`` was stopped.
        BundleError: a part that an engine reads is missing or broken.
    """
    precisions = () if precision is None else (precision,)
    rows = measure(source, precisions=precisions, engines=engines, build=build)
    return keep(source, precision, rows)


def keep(source: EngineSource, precision: str | None, rows: Sequence[Measurement]) -> Choice:
    """Choose the fastest of a table, and keep both for this bundle and machine.

    Raises:
        EngineUnavailableError: none is usable; nothing is kept.
    """
    best = fastest(rows, source.precision(precision))
    measured = {row.engine for row in rows}
    left_out = [n for n, row in ENGINES.items() if row.needs_build and n not in measured]
    is_whole = all(unavailable(name) is not None for name in left_out)
    choice = Choice(best.engine, best.precision, tuple(rows), is_whole, time.time())
    remember(source.manifest.model_hash, precision, choice)
    return choice


def ready_engines() -> list[str]:
    """Name the engines that need no build."""
    return [name for name, row in ENGINES.items() if not row.needs_build]
