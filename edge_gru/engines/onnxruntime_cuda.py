"""The step graph in ONNX Runtime's CUDA provider, where onnxruntime was built with it."""

from __future__ import annotations

from edge_gru.engines.base import EngineSource
from edge_gru.engines.onnxruntime import BoundStep, OnnxRuntimeEngine, Place, require

_CUDA = Place("CUDAExecutionProvider", "step", {"use_tf32": "0"})  # fp32 means fp32

require(_CUDA.provider)


class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """Runs the ``step`` graph on the GPU, node by node; states cross to it and back in every step.

    Raises:
        EngineUnavailableError: no GPU, or a node that the provider would leave to the CPU.
    """

    name = "onnxruntime-cuda"

    def _open(self, source: EngineSource, precision: str) -> BoundStep:
        return BoundStep(source, precision, _CUDA)
