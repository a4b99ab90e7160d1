"""An onnxruntime that was built for GPUs: what it is given is checked, and runs on the CPU.

A session is a real one with the provider's rules before it. ``faults`` has what a real provider
would forgive today, or answer to by running elsewhere without a word.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_inference_collection as collection

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
# Of those that onnxruntime 1.20 and later know.
KNOWN = {
    CUDA: {"device_id", "use_tf32", "gpu_mem_limit", "arena_extend_strategy"},
    TENSORRT: {
        "device_id", "trt_max_workspace_size", "trt_builder_optimization_level",
        "trt_engine_cache_enable", "trt_engine_cache_path", "trt_profile_min_shapes",
        "trt_profile_opt_shapes", "trt_profile_max_shapes", "trt_fp16_enable", "trt_int8_enable",
        "trt_timing_cache_enable", "trt_timing_cache_path",
    },
}  # fmt: skip
REFUSED = {"GRU", "LSTM", "RNN", "MatMulInteger", "DynamicQuantizeLinear", "QLinearMatMul"}
_MODULES = ("edge_gru.engines.onnxruntime_cuda", "edge_gru.engines.onnxruntime_tensorrt")
_RealSession = onnxruntime.InferenceSession


class Providers:
    """What the providers were told; tests set how they fail."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.opened: list[tuple[str, Mapping[str, str], bytes]] = []
        self.n_builds = 0
        self.error: Exception | None = None  # raised by the next sessions
        self.runs_on_cpu = False
        self.keeps_no_plan = False
        self.libraries = "TensorRT 10.9"

    def build_in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spare the suites over all engines a process for every plan."""
        plans = __import__("edge_gru.engines.onnxruntime_plans", fromlist=["build_apart"])
        engines = __import__("edge_gru.engines.onnxruntime", fromlist=["open_session"])

        def build(graph: bytes, place: Any, cancel: Any) -> None:
            with engines.explained("any", place):
                engines.open_session(graph, place)

        monkeypatch.setattr(plans, "build_apart", build)

    def take(self, name: str, options: Mapping[str, str], graph: bytes) -> dict[str, Any]:
        """Check what a provider is given; returns the rows that its plan takes, by input."""
        self.opened.append((name, options, graph))
        if self.error is not None:
            raise self.error
        if unknown := set(options) - KNOWN[name]:
            raise RuntimeError(f"unknown provider option {unknown}")
        proto = onnx.load_model_from_string(graph)
        if bad := {node.op_type for node in proto.graph.node} & REFUSED:
            raise RuntimeError(f"{bad} in a graph for {name}")
        if any(c.data_type == onnx.TensorProto.UINT8 for c in proto.graph.initializer):
            raise RuntimeError(f"uint8 in a graph for {name}")
        if name == CUDA:
            return {}
        rows = _profile(options, proto)
        self._load_or_build(options, graph)
        return rows

    def _load_or_build(self, options: Mapping[str, str], graph: bytes) -> None:
        folder = Path(options["trt_engine_cache_path"])
        if options["trt_engine_cache_enable"] != "1" or folder.stat().st_mode & 0o077:
            self.faults.append("no folder that is ours alone for the plan")
        path = (
            folder
            / f"TensorrtExecutionProvider_{hashlib.sha256(graph).hexdigest()[:8]}_sm87.engine"
        )
        plan = f"{self.libraries} {hashlib.sha256(graph).hexdigest()}".encode()
        if path.exists():
            if path.read_bytes() != plan:
                raise RuntimeError(f"TensorRT EP could not deserialize engine from cache: {path}")
            return
        self.n_builds += 1
        if not self.keeps_no_plan:
            path.with_suffix(".profile").write_text(str(sorted(options.items())))
            path.write_bytes(plan)


def _profile(options: Mapping[str, str], proto: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    found = []
    for kind in ("min", "opt", "max"):
        shapes = {}
        for part in options[f"trt_profile_{kind}_shapes"].split(","):
            name, _, shape = part.rpartition(":")
            shapes[name] = [int(n) for n in shape.split("x")]
        found.append(shapes)
    expected = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in proto.graph.input}
    for shapes in found:
        if {name: shape[1] for name, shape in shapes.items()} != expected:
            raise RuntimeError(f"a profile for {shapes}, not for {expected}")
    low, best, high = found
    if not all(low[name][0] <= best[name][0] <= high[name][0] for name in expected):
        raise RuntimeError("a profile out of order")
    return {name: (low[name][0], high[name][0]) for name in expected}


def session_class(providers: Providers) -> type[onnxruntime.InferenceSession]:
    class InferenceSession(_RealSession):
        def __init__(
            self,
            path_or_bytes: Any,
            sess_options: Any = None,
            providers: Any = None,
            provider_options: Any = None,
            **kwargs: Any,
        ) -> None:
            names, options = collection.check_and_normalize_provider_args(
                providers, provider_options, onnxruntime.get_available_providers()
            )
            self._place = names[0]
            self._rows: dict[str, tuple[int, int]] = {}
            if self._place == CPU:
                super().__init__(path_or_bytes, sess_options, providers, provider_options, **kwargs)
                return
            if kwargs != {"enable_fallback": 0} or names != [self._place]:
                double.faults.append(f"{names} with {kwargs} may run elsewhere without a word")
            key = "session.disable_cpu_ep_fallback"
            if sess_options.get_session_config_entry(key) != "1":
                double.faults.append("nodes may be left to the CPU")
            self._rows = double.take(self._place, options[0], path_or_bytes)
            plain = onnxruntime.SessionOptions()
            plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            plain.intra_op_num_threads = sess_options.intra_op_num_threads
            plain.log_severity_level = sess_options.log_severity_level
            super().__init__(path_or_bytes, plain, [CPU], enable_fallback=0)

        def get_providers(self) -> list[str]:
            if self._place == CPU or double.runs_on_cpu:
                return [CPU]
            return [self._place, CPU]

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            for name, (low, high) in self._rows.items():
                if not low <= len(input_feed[name]) <= high:
                    double.faults.append(f"{len(input_feed[name])} rows of {name}: a new build")
            return super().run(output_names, input_feed, run_options)

    double = providers
    return InferenceSession


@contextmanager
def fake_providers() -> Iterator[Providers]:
    """Take the place of the sessions of onnxruntime."""
    found = Providers()
    real = onnxruntime.get_available_providers
    kept = {name: sys.modules.pop(name, None) for name in _MODULES}
    onnxruntime.get_available_providers = lambda: [TENSORRT, CUDA, CPU]
    onnxruntime.InferenceSession = session_class(found)
    try:
        yield found
    finally:
        onnxruntime.get_available_providers = real
        onnxruntime.InferenceSession = _RealSession
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
