"""Golden vectors: what the trained model answered, and whether an engine answers the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_gru.engines.base import Engine, Float32
from edge_gru.engines.tensors import GOLDEN, read_tensors
from edge_gru.errors import BundleError
from edge_gru.manifest import Manifest
from edge_gru.state import State


@dataclass(frozen=True)
class GoldenResult:
    """How far an engine is from the golden vectors of its precision.

    ``step_error`` is the largest difference over single steps from given states, of outputs and new
    states, each relative to ``max(1, max|value|)``. ``stream_sqnr_db`` compares a free-running
    stream (inf: equal).
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

    ``10 log10(sum (y - mean y)^2 / sum (y_q - y)^2)``, the mean taken per output; inf if equal,
    -inf if a value is not finite.
    """
    if not (np.isfinite(reference).all() and np.isfinite(got).all()):
        return -math.inf
    reference64, got64 = reference.astype(np.float64), got.astype(np.float64)
    noise = float(((got64 - reference64) ** 2).sum())
    signal = float(((reference64 - reference64.mean(axis=0)) ** 2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


@dataclass(frozen=True)
class GoldenVectors:
    """Real inputs, and what one precision of the model answers to them.

    ``n`` single steps from given states, and a stream of ``t`` samples from a fresh start:
    ``step_x`` (n, n_in), ``step_y`` (n, n_out), ``states`` and ``states_out`` (n, size) by state
    name, ``stream_x`` (t, n_in), ``stream_y`` (t, n_out).
    """

    step_x: Float32
    step_y: Float32
    states: Mapping[str, Float32]
    states_out: Mapping[str, Float32]
    stream_x: Float32
    stream_y: Float32

    @classmethod
    def read(cls, golden: bytes, manifest: Manifest, precision: str) -> GoldenVectors:
        """Read the vectors of a precision.

        Raises:
            BundleError: they are missing, empty, not finite, or of other shapes than the model's.
        """
        tensors = read_tensors(golden, GOLDEN)
        n, t = (len(np.atleast_1d(tensors.get(f"{kind}.x", ()))) for kind in ("step", "stream"))

        def take(name: str, *shape: int) -> Float32:
            found = tensors.get(name, np.empty(0))
            if found.shape != shape or found.dtype != np.float32 or not found.size:
                raise BundleError(
                    f"expected golden vectors {name} of shape {shape} in float32, "
                    f"got {found.shape} in {found.dtype}; pack the model again"
                )
            if not np.isfinite(found).all():  # nothing would differ from it
                raise BundleError(
                    f"expected finite golden vectors {name}, got others; pack the model again"
                )
            return found

        sizes = manifest.state_sizes.items()
        return cls(
            step_x=take("step.x", n, manifest.n_in),
            step_y=take(f"step.{precision}.y", n, manifest.n_out),
            states={name: take(f"step.{name}", n, size) for name, size in sizes},
            states_out={
                name: take(f"step.{precision}.{name}_out", n, size) for name, size in sizes
            },
            stream_x=take("stream.x", t, manifest.n_in),
            stream_y=take(f"stream.{precision}.y", t, manifest.n_out),
        )


def replay(engine: Engine, golden: bytes) -> GoldenResult:
    """Run the golden vectors on stream 0 of an engine; the stream is reset before and after.

    Raises:
        BundleError: the vectors do not fit the model.
    """
    precision = engine.precision
    vectors = GoldenVectors.read(golden, engine.manifest, precision)
    try:
        step_error = _single_steps(engine, vectors)
        stream = _free_running(engine, vectors.stream_x)
    finally:
        engine.reset(0)
    limits = engine.manifest.precisions[precision]
    return GoldenResult(
        engine=engine.name,
        precision=precision,
        n_steps=len(vectors.step_x) + len(stream),
        step_error=step_error,
        step_tolerance=limits.step_tolerance,
        stream_sqnr_db=sqnr_db(vectors.stream_y, stream),
        stream_floor_db=limits.stream_sqnr_db,
    )


def _single_steps(engine: Engine, vectors: GoldenVectors) -> float:
    scale = _scale(vectors.step_y)
    state_scales = {name: _scale(values) for name, values in vectors.states_out.items()}
    worst = 0.0
    for k, x in enumerate(vectors.step_x):
        before = {name: values[k] for name, values in vectors.states.items()}
        engine.load_state(0, State(engine.model_hash, 0, before))
        worst = max(worst, _difference(engine.step(x), vectors.step_y[k]) / scale)
        for name, after in engine.save_state(0).values.items():
            difference = _difference(after, vectors.states_out[name][k])
            worst = max(worst, difference / state_scales[name])
    return worst


def _scale(values: Float32) -> float:
    return max(1.0, float(np.abs(values).max()))


def _difference(got: Float32, expected: Float32) -> float:
    worst = float(np.abs(got.astype(np.float64) - expected).max())
    return worst if math.isfinite(worst) else math.inf


def _free_running(engine: Engine, x: Float32) -> Float32:
    engine.reset(0)
    return np.stack([engine.step(row) for row in x])
