"""A plan for this bundle on this board: out of the cache, or built and kept."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from dataclasses import dataclass

from edge_gru.engines.base import EngineSource
from edge_gru.engines.tensorrt.binding import trt
from edge_gru.engines.tensorrt.board import Board
from edge_gru.engines.tensorrt.build import BuildOptions, Progress, build_plan
from edge_gru.engines.tensorrt.cache import CachedPlan, PlanCache, PlanInfo, PlanKey
from edge_gru.engines.tensorrt.cudart import Cuda, Device, open_cuda
from edge_gru.engines.tensorrt.runtime import load_plan
from edge_gru.engines.tensorrt.settings import WAITS, Settings
from edge_gru.errors import EngineUnavailableError

_MIB = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A plan that TensorRT takes here, loaded."""

    cached: CachedPlan
    engine: trt.ICudaEngine
    was_built: bool


def compile_plan(
    source: EngineSource,
    *,
    n_streams: int = 1,
    precision: str | None = None,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    force: bool = False,
) -> Prepared:
    """Make sure that a plan for so many streams is in the cache; ``was_built`` if it was not.

    ``force`` builds it anew, whatever is there.

    Proves nothing of its numbers: that takes ``open_proven``, which then finds it at once.

    Raises:
        EngineUnavailableError: no TensorRT or GPU, it cannot be built or kept, or was stopped.
        BundleError: the bundle lacks the graph.
    """
    settings = Settings.read(os.environ)
    cuda = open_cuda(WAITS[settings.wait])
    name = source.precision(precision)
    return prepare(
        source, name, n_streams, settings, cuda, progress=progress, cancel=cancel, force=force
    )


def prepare(
    source: EngineSource,
    precision: str,
    n_streams: int,
    settings: Settings,
    cuda: Cuda,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    force: bool = False,
) -> Prepared:
    """Load the plan from the cache, or build it; one that TensorRT does not take is built anew.

    Raises:
        EngineUnavailableError: it cannot be built or kept, or was stopped.
        BundleError: the bundle lacks the graph.
    """
    options = BuildOptions(
        precision,
        *(n_streams,) * 3,
        workspace_bytes=settings.workspace_bytes,
        optimization_level=settings.optimization_level,
        verbosity=settings.detail,
    )
    graph = _graph(source, precision, n_streams)
    board = Board.read()
    key = plan_key(source.manifest.model_hash, graph, options, board, cuda.device())
    cache = PlanCache(settings.cache)
    found = None if force else _load(cache, key, board)
    if found is not None:
        return found
    with cache.lock(cancel):
        found = (
            None if force else _load(cache, key, board)
        )  # another process may have built it meanwhile
        if found is not None:
            return found
        _log.info("building a TensorRT plan in %s for %d streams", precision, n_streams)
        free_bytes, total_bytes = cuda.memory()
        try:
            built = build_plan(graph, options, cache.timings(key), progress, cancel)
        except EngineUnavailableError as error:
            raise EngineUnavailableError(
                f"{error} ({free_bytes // _MIB} of {total_bytes // _MIB} MiB of memory were free)"
            ) from error
        info = PlanInfo(
            key,
            plan_sha256=hashlib.sha256(built.plan).hexdigest(),
            n_bytes=len(built.plan),
            duration_s=built.duration_s,
            power_mode=board.power_mode,
            gpu_max_hz=board.gpu_max_hz,
        )
        engine = load_plan(built.plan)
        cached = cache.store(info, built.plan, built.timing_cache)
    _log.info("built a TensorRT plan in %.0f s: %s", built.duration_s, cached.path)
    return Prepared(cached, engine, was_built=True)


def plan_key(
    bundle_sha256: str, graph: bytes, options: BuildOptions, board: Board, device: Device
) -> PlanKey:
    """Gather all that the plan depends on."""
    return PlanKey(
        bundle_sha256=bundle_sha256,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
        precision=options.precision,
        min_batch=options.min_batch,
        opt_batch=options.opt_batch,
        max_batch=options.max_batch,
        tensorrt=trt.__version__,
        cuda_runtime=device.cuda_runtime,
        cuda_driver=device.cuda_driver,
        compute_capability=device.compute_capability,
        n_multiprocessors=device.n_multiprocessors,
        board=board.name,
        l4t=board.l4t,
        workspace_bytes=options.workspace_bytes,
        optimization_level=options.optimization_level,
        verbosity=options.verbosity,
    )


def _graph(source: EngineSource, precision: str, n_streams: int) -> bytes:
    """Take the step of one stream, or the one with a mask of the streams to advance."""
    form = "step" if n_streams == 1 else "active"
    part = source.manifest.precisions[precision].graphs.get(form)
    if part is None:
        raise EngineUnavailableError(
            f"the bundle has no graph for TensorRT of precision {precision!r}; pack it again"
        )
    return source.part(part)


def _load(cache: PlanCache, key: PlanKey, board: Board) -> Prepared | None:
    cached = cache.find(key)
    if cached is None:
        return None
    try:
        engine = load_plan(cached.plan)
    except EngineUnavailableError as error:
        _log.warning("a TensorRT plan of this board is built again: %s", error)
        cache.remove(key)
        return None
    built_at = (cached.info.power_mode, cached.info.gpu_max_hz)
    if built_at != (board.power_mode, board.gpu_max_hz):
        _log.info(
            "the TensorRT plan was tuned in power mode %s with the GPU at up to %s Hz, this is "
            "mode %s with up to %s Hz: edge-gru compile --force tunes it anew",
            *built_at,
            board.power_mode,
            board.gpu_max_hz,
        )
    return Prepared(cached, engine, was_built=False)
