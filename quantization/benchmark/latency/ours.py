"""The engines of edge-gru, on the recipes that they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec
import numpy as np

from edge_gru.engines.base import Engine, EngineSource, Float32
from edge_gru.engines.native import NativeEngine
from edge_gru.engines.onnxruntime import OnnxRuntimeEngine
from edge_gru.engines.reference import ReferenceEngine
from edge_gru.native import KERNELS
from firmware_bridge.sample import Schema
from quantization import pack
from quantization.benchmark.latency.runner import Form, Runner
from quantization.benchmark.latency.weights import Weights, samples
from quantization.benchmark.native import N_OUT
from quantization.calibrate import Calibration
from quantization.narrow import narrow
from quantization.quantized import Quantized
from quantization.recipe import find_recipe
from quantization.split import split

NATIVE_INT8 = "native int8"
_N_CALIBRATION_STEPS = 512

Open = Callable[[EngineSource, int], Engine]


class EngineRunner(Runner):
    """Runs an engine; into the caller's array, as a service does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._out = np.zeros(engine.n_out, np.float32)

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        return self._engine.step(sample, self._out)

    def step_batch(self, x: Float32) -> Float32:
        """Advance every stream."""
        return self._engine.step_batch(x)

    def run_sequence(self, x: Float32) -> Float32:
        """Run the only stream."""
        return self._engine.run_sequence(x)

    def steps(self, samples: Sequence[Any]) -> None:
        """Step through samples."""
        step, out = self._engine.step, self._out
        for sample in samples:
            step(sample, out)


@lru_cache(maxsize=8)
def source_of(weights: Weights, recipe_name: str) -> EngineSource:
    """Quantize a network as ``quantize`` does, to the nearest: GPTQ would cost the same a step."""
    model = weights.step_model()
    recipe = find_recipe(recipe_name)
    kinds = ("recurrent", "stacked", "input", "dense")
    nearest = {
        kind: msgspec.structs.replace(getattr(recipe, kind), rounding="nearest") for kind in kinds
    }
    recipe = msgspec.structs.replace(recipe, **nearest)
    calibration = Calibration((samples(_N_CALIBRATION_STEPS, weights.n_in),))
    outputs = tuple(f"y{k}" for k in range(N_OUT))
    description = pack.Description("benchmark", Schema.unnamed(weights.n_in), recipe, outputs)

    def opened(quantized: Quantized) -> Engine:
        source = pack.trial(model, description, calibration, quantized)
        return OnnxRuntimeEngine(source, n_streams=1, precision=quantized.precision)

    made = narrow(model, recipe, split(calibration), opened)
    return pack.trial(model, description, calibration, made.quantized)


def graph_of(weights: Weights, recipe: str, use: str) -> bytes:
    """Write the ONNX step of a recipe for one use, ``step`` or ``cpu``."""
    source = source_of(weights, recipe)
    return source.part(source.manifest.precisions[source.manifest.default_precision].graphs[use])


def reference_of(weights: Weights, n_streams: int) -> Engine:
    """Open what every form is checked against: the definition, in fp32."""
    return ReferenceEngine(source_of(weights, "fp32"), n_streams=n_streams, precision=None)


def _native(kernel: str, source: EngineSource, n_streams: int) -> Engine:
    return NativeEngine(source, n_streams=n_streams, precision=None, kernel=kernel)


def _onnxruntime(source: EngineSource, n_streams: int) -> Engine:
    precision = source.manifest.default_precision
    return OnnxRuntimeEngine(source, n_streams=n_streams, precision=precision)


def _reference(source: EngineSource, n_streams: int) -> Engine:
    return ReferenceEngine(source, n_streams=n_streams, precision=None)


def _form(name: str, recipe: str, opened: Open) -> Form:
    floors_db = {"fp32": Form.FP32_DB, "w4": Form.INT4_DB}

    def made(weights: Weights, n_streams: int, _n_rows: int) -> Runner:
        return EngineRunner(opened(source_of(weights, recipe), n_streams))

    has_batch = opened is not _reference  # it is there to define, and takes seconds
    return Form(name, floors_db.get(recipe, Form.INT8_DB), made, has_batch=has_batch)


def forms() -> Iterator[Form]:
    """List our engines, native ones first."""
    fastest = partial(_native, KERNELS[0])
    for recipe in ("int8", "rec", "rec-hilo", "w4", "fp32"):
        yield _form(f"native {recipe}", recipe, fastest)
    for kernel in KERNELS[1:-1]:  # the last is the portable one
        for recipe in ("int8", "fp32"):
            yield _form(f"native {recipe}, {kernel}", recipe, partial(_native, kernel))
    for recipe in ("fp32", "int8"):
        yield _form(f"engine onnxruntime {recipe}", recipe, _onnxruntime)
    yield _form("engine reference fp32", "fp32", _reference)
