"""Golden vectors: what the trained model answered, and whether an engine answers the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from edge_gru.engines.base import Engine, Float32
from edge_gru.state import State


@dataclass(frozen=True)
class GoldenResult:
    """How far an engine is from the golden vectors of its precision.

    ``step_error`` is the largest difference of outputs and new states over single steps from given
    states, relative to ``max(1, max|y|)``; ``stream_sqnr_db`` compares a free-running stream (inf:
    equal).
    """

    engine: str
    precision: str
    n_steps: int
    step_error: float
    step_tolerance: float
    stream_sqnr_db: float
    stream_floor_db: float

    @property
    def passed(self) -> bool:
        """Whether the engine may serve."""
        return (
            self.step_error <= self.step_tolerance and self.stream_sqnr_db >= self.stream_floor_db
        )


def sqnr_db(reference: Float32, got: Float32) -> float:
    """Compute the signal to quantization noise ratio over all outputs together.

    ``10 log10(sum (y - mean y)^2 / sum (y_q - y)^2)``, the mean taken per output; inf if equal.
    """
    reference64, got64 = reference.astype(np.float64), got.astype(np.float64)
    noise = float(((got64 - reference64) ** 2).sum())
    signal = float(((reference64 - reference64.mean(axis=0)) ** 2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def replay(engine: Engine, golden: bytes) -> GoldenResult:
    """Run the golden vectors on stream 0 of an engine; the stream is reset before and after."""
    vectors = safetensors.numpy.load(golden)
    precision = engine.precision
    try:
        step_error = _single_steps(engine, vectors)
        stream = _free_running(engine, vectors["stream.x"])
    finally:
        engine.reset(0)
    expected = vectors[f"stream.{precision}.y"]
    limits = engine.manifest.precisions[precision]
    return GoldenResult(
        engine=engine.name,
        precision=precision,
        n_steps=len(vectors["step.x"]) + len(stream),
        step_error=step_error,
        step_tolerance=limits.step_tolerance,
        stream_sqnr_db=sqnr_db(expected, stream),
        stream_floor_db=limits.stream_sqnr_db,
    )


def _single_steps(engine: Engine, vectors: Mapping[str, npt.NDArray[np.float32]]) -> float:
    expected_y = vectors[f"step.{engine.precision}.y"]
    scale = max(1.0, float(np.abs(expected_y).max(initial=0.0)))
    worst = 0.0
    for k, x in enumerate(vectors["step.x"]):
        values = {name: vectors[f"step.{name}"][k] for name in engine.manifest.state_sizes}
        engine.load_state(0, State(engine.model_hash, 0, values))
        worst = max(worst, _difference(engine.step(x), expected_y[k]) / scale)
        after = engine.save_state(0).values
        for name, value in after.items():
            worst = max(
                worst, _difference(value, vectors[f"step.{engine.precision}.{name}_out"][k])
            )
    return worst


def _difference(got: Float32, expected: Float32) -> float:
    worst = float(np.abs(got.astype(np.float64) - expected).max())
    return worst if math.isfinite(worst) else math.inf


def _free_running(engine: Engine, x: Float32) -> Float32:
    engine.reset(0)
    return np.stack([engine.step(row) for row in x])
