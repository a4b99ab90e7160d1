"""Which engines there are, where each lives, and how one is opened and proven by its name."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.golden import GoldenResult, replay
from edge_gru.engines.tensorrt import INSTALL as TENSORRT
from edge_gru.engines.tensors import GOLDEN
from edge_gru.errors import EdgeGruError, EngineUnavailableError, GoldenMismatchError


@dataclass(frozen=True)
class EngineRow:
    """Where an engine lives, and how to get it.

    Opening one that ``needs_build`` may take minutes; its class takes ``progress`` and ``cancel``.
    ``alternatives`` are the precisions in which it may be faster than in the bundle's own.
    """

    module: str
    cls: str
    install: str
    serves: bool  # False: a definition to compare with, chosen by "auto" only if nothing else works
    needs_build: bool = False
    alternatives: tuple[str, ...] = ()


ENGINES = {
    "reference": EngineRow(
        "edge_gru.engines.reference", "ReferenceEngine", "reinstall edge-gru", serves=False
    ),
    "native": EngineRow(
        "edge_gru.engines.native",
        "NativeEngine",
        "install a C compiler, then install edge-gru again",
        serves=True,
        alternatives=("fp32",),
    ),
    "onnxruntime": EngineRow(
        "edge_gru.engines.onnxruntime",
        "OnnxRuntimeEngine",
        "pip install 'edge-gru[onnxruntime]'",
        serves=True,
        alternatives=("fp32",),
    ),
    "tensorrt": EngineRow(
        "edge_gru.engines.tensorrt.engine",
        "TensorRTEngine",
        TENSORRT,
        serves=True,
        needs_build=True,
        alternatives=("fp16", "fp32"),
    ),
}


@dataclass(frozen=True)
class Build:
    """How an engine that needs a build is watched, and stopped.

    ``progress`` is called with the stage and how much of it is done, 0 to 1; setting ``cancel``
    makes what waits for the engine raise ``EngineUnavailableError``.
    """

    progress: Callable[[str, float], None] | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Go on, unless it was stopped.

        Raises:
            EngineUnavailableError: it was.
        """
        if self.cancel.is_set():
            raise EngineUnavailableError("the search for a faster engine was stopped")


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


def open_named(
    name: str,
    source: EngineSource,
    *,
    n_streams: int = 1,
    precision: str | None = None,
    build: Build | None = None,
) -> Engine:
    """Open an engine by its own name.

    Raises:
        EngineUnavailableError: unknown, not installed, stopped, or not able to run this bundle.
        BundleError: a part that the engine reads is missing or broken.
    """
    row = find_row(name)
    watched: dict[str, Any] = {}
    if row.needs_build and build is not None:
        watched = {"progress": build.progress, "cancel": build.cancel}
    cls = getattr(_imported(name), row.cls)
    engine: Engine = cls(source, n_streams=n_streams, precision=precision, **watched)
    return engine


def _imported(name: str) -> ModuleType:
    row = find_row(name)
    try:
        return importlib.import_module(row.module)
    except ImportError as error:
        raise EngineUnavailableError(
            f"engine {name!r} is not installed here ({error}); {row.install}"
        ) from error


def prove(engine: Engine, source: EngineSource) -> GoldenResult:
    """Let an engine serve only if it reproduces the golden vectors; else it is closed.

    Raises:
        GoldenMismatchError: it does not.
        BundleError: the golden vectors are missing or broken.
    """
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
    return result
