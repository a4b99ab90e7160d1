"""The step graph in ONNX Runtime's TensorRT provider, with its plans in the folder of ours."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import astuple

from edge_gru.engines.base import EngineSource
from edge_gru.engines.onnxruntime import BoundStep, OnnxRuntimeEngine, Place, graph_for, require
from edge_gru.engines.onnxruntime_plans import ProviderPlans
from edge_gru.engines.tensorrt.board import Board
from edge_gru.engines.tensorrt.cudart import open_cuda
from edge_gru.engines.tensorrt.settings import WAITS, Settings
from edge_gru.errors import EngineUnavailableError

_PROVIDER = "TensorrtExecutionProvider"
_MIN_ROWS = 2  # what an engine is tried with when it is opened

_VERSION = require(_PROVIDER)
_log = logging.getLogger(__name__)


class OnnxRuntimeTensorRTEngine(OnnxRuntimeEngine):
    """Runs a plan of the ``step`` graph; states cross to the GPU and back in every step.

    The types of the graph are those of the plan: without its switches for FP16 and INT8 the
    provider builds strongly typed networks. The plan is built in a process of its own, since
    onnxruntime may hold up every thread of the one that builds; ``cancel`` stops that.

    Raises:
        EngineUnavailableError: no GPU, a plan that cannot be built or kept, or a node that the
            provider would leave to the CPU.
        BundleError: a part is missing.
    """

    name = "onnxruntime-tensorrt"

    def __init__(
        self,
        source: EngineSource,
        *,
        n_streams: int,
        precision: str | None,
        progress: Callable[[str, float], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._settings = Settings.read(os.environ)
        self._plans = ProviderPlans(self._settings.cache, progress, cancel or threading.Event())
        super().__init__(source, n_streams=n_streams, precision=precision)

    def _open(self, source: EngineSource, precision: str) -> BoundStep:
        place = Place(_PROVIDER, "step", self._options(source))
        graph = graph_for(source, precision, place)
        board = Board.read()
        device = open_cuda(WAITS[self._settings.wait]).device()
        facts = (source.manifest.model_hash, _VERSION, board.name, board.l4t, *astuple(device))
        planned = self._plans.prepare(graph, place, facts)
        try:
            return BoundStep(source, precision, planned.place)
        except EngineUnavailableError as error:
            if planned.was_built:
                raise
            _log.warning("a plan of onnxruntime's TensorRT is built again: %s", error)
        planned = self._plans.prepare(graph, place, facts, force=True)
        return BoundStep(source, precision, planned.place)

    def _options(self, source: EngineSource) -> dict[str, str]:
        """Name what the provider takes: with all shapes given it builds when it is opened."""
        manifest = source.manifest
        widths = {"x": manifest.n_in, **manifest.state_sizes}
        rows = {"min": 1, "opt": self.n_streams, "max": max(_MIN_ROWS, self.n_streams)}
        profile = {
            f"trt_profile_{kind}_shapes": ",".join(f"{name}:{n}x{k}" for name, k in widths.items())
            for kind, n in rows.items()
        }
        return {
            "trt_max_workspace_size": str(self._settings.workspace_bytes),
            "trt_builder_optimization_level": str(self._settings.optimization_level),
            **profile,
        }
