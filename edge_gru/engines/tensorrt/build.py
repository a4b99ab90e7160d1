"""Step graph to plan: a strongly typed build, with progress, that can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from edge_gru.engines.tensorrt.binding import LOG, trt
from edge_gru.engines.tensorrt.settings import DETAILS
from edge_gru.errors import EngineUnavailableError

Progress: TypeAlias = Callable[[str, float], None]
"""Called with the stage of a build, and how much of that stage is done, 0 to 1."""

_Report: TypeAlias = "tuple[str, float] | None"  # None: the build has ended
T = TypeVar("T")


@dataclass(frozen=True)
class BuildOptions:
    """What a plan depends on beside its graph.

    ``precision`` names the numbers of the graph, which has their types in it: nothing is left for
    the builder to choose. A plan runs any batch from ``min_batch`` to ``max_batch`` and is tuned
    for ``opt_batch``.
    """

    precision: str
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 1
    workspace_bytes: int = 64 << 20
    optimization_level: int = 3
    verbosity: str = "none"  # of ``settings.DETAILS``


@dataclass(frozen=True)
class BuiltPlan:
    """A plan, the timings that make the next build faster, and what TensorRT warned of."""

    plan: bytes
    timing_cache: bytes
    duration_s: float
    log: tuple[str, ...]


def build_plan(
    graph: bytes,
    options: BuildOptions,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> BuiltPlan:
    """Build a plan for this GPU; minutes, on a small board.

    The builder works in a thread of its own, so that Ctrl-C, and whatever ``progress`` raises, stop
    it at its next step; so does ``cancel``, from any thread. A timing cache of another version is
    as good as none.

    Raises:
        EngineUnavailableError: TensorRT cannot parse or build the graph, or was stopped.
    """
    stop = cancel or threading.Event()
    reports: SimpleQueue[_Report] = SimpleQueue()
    start_s = time.monotonic()
    with ThreadPoolExecutor(1, "tensorrt-build") as pool:
        try:
            work = pool.submit(_build, graph, options, timing_cache, _Monitor(reports, stop))
            work.add_done_callback(lambda _: reports.put(None))
            while (report := reports.get()) is not None:
                if progress is not None:
                    progress(*report)
        except BaseException:
            stop.set()
            raise
    if stop.is_set():
        raise EngineUnavailableError("the build of a TensorRT plan was stopped; start it again")
    plan, timings = work.result()
    return BuiltPlan(plan, timings, time.monotonic() - start_s, LOG.messages())


class _Monitor(trt.IProgressMonitor):
    """Reports the outermost phases; called by several threads of the builder's at once."""

    def __init__(self, reports: SimpleQueue[_Report], stop: threading.Event) -> None:
        trt.IProgressMonitor.__init__(self)
        self._reports = reports
        self._stop = stop
        self._n_steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if not parent_phase:
            self._n_steps[phase_name] = max(1, num_steps)
            self._reports.put((phase_name, 0.0))

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Tell whether to go on."""
        if n_steps := self._n_steps.get(phase_name):
            self._reports.put((phase_name, min(1.0, (step + 1) / n_steps)))
        return not self._stop.is_set()

    def phase_finish(self, phase_name: str) -> None:
        if self._n_steps.pop(phase_name, 0):
            self._reports.put((phase_name, 1.0))


def _build(
    graph: bytes, options: BuildOptions, timing_cache: bytes, monitor: _Monitor
) -> tuple[bytes, bytes]:
    LOG.clear()
    try:
        builder = trt.Builder(LOG)
    except TypeError as error:  # how the binding says that the library has none
        raise EngineUnavailableError(
            f"TensorRT makes no builder here ({LOG.reason()}); are driver and GPU there?"
        ) from error
    network = _made(
        builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)),
        "network",
    )
    parser = trt.OnnxParser(network, LOG)  # owns the weights, so it lives as long as the build
    if not parser.parse(graph):
        raise EngineUnavailableError(
            f"TensorRT cannot parse the {options.precision} graph of this bundle "
            f"({_parse_errors(parser)}); run another engine, or pack the model again"
        )
    config = _configure(builder, network, options)
    config.progress_monitor = monitor
    _use_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineUnavailableError(
            f"TensorRT cannot build the {options.precision} graph of this bundle "
            f"({LOG.reason()}); run another engine"
        )
    timings = config.get_timing_cache()
    saved = None if timings is None else timings.serialize()
    return bytes(plan), b"" if saved is None else bytes(saved)


def _parse_errors(parser: trt.OnnxParser) -> str:
    found = [parser.get_error(k) for k in range(parser.num_errors)]
    lines = []
    for error in found:
        node = f"{error.node_operator()} {error.node_name()}".strip()  # none, of bytes at large
        lines.append(f"{node}: {error.desc()}" if node else error.desc())
    return "; ".join(lines) or LOG.reason()


def _configure(
    builder: trt.Builder, network: trt.INetworkDefinition, options: BuildOptions
) -> trt.IBuilderConfig:
    config = _made(builder.create_builder_config(), "configuration")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, DETAILS[options.verbosity])
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and not what fp32 means here
    profile = _made(builder.create_optimization_profile(), "profile")
    batches = options.min_batch, options.opt_batch, options.max_batch
    for k in range(network.num_inputs):
        tensor = network.get_input(k)
        widths = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((n, *widths) for n in batches))
    if config.add_optimization_profile(profile) < 0:
        raise EngineUnavailableError(
            f"TensorRT refuses batches of {batches} ({LOG.reason()}); run another engine"
        )
    return config


def _use_timings(config: trt.IBuilderConfig, timing_cache: bytes) -> None:
    """Start from these timings, or from none where they are not of this version."""
    for timings in (timing_cache, b""):
        cache = config.create_timing_cache(timings)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _made(thing: T | None, what: str) -> T:
    if thing is None:
        raise EngineUnavailableError(
            f"TensorRT makes no {what} ({LOG.reason()}); run another engine"
        )
    return thing
