"""What quantization cost, and how long a model remembers: measured on streams, state carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine
from edge_gru.engines.golden import sqnr_db
from edge_gru.state import State

Float32 = npt.NDArray[np.float32]

WARMUP_TOLERANCE = 0.01


@dataclass(frozen=True)
class Deviation:
    """How far a stream of outputs is from the fp32 one.

    ``largest_std`` is the largest difference in standard deviations of its output.
    """

    sqnr_db: float
    largest: float
    largest_std: float
    n_steps: int


def run_stream(engine: Engine, sequence: Float32) -> Float32:
    """Run a sequence from a zero state on stream 0: ``(T, n_in)`` -> ``(T, n_out)``."""
    engine.reset(0)
    y = np.empty((len(sequence), engine.n_out), np.float32)
    for k, x in enumerate(sequence):
        engine.step(x, y[k])
    return y


def deviation(reference: Sequence[Float32], got: Sequence[Float32]) -> Deviation:
    """Compare outputs of the same sequences."""
    expected, found = np.concatenate(reference), np.concatenate(got)
    difference = np.abs(expected.astype(np.float64) - found)
    std = expected.astype(np.float64).std(axis=0)
    relative = difference.max(axis=0) / np.where(std > 0, std, np.inf)
    return Deviation(
        sqnr_db(expected, found), float(difference.max()), float(relative.max()), len(expected)
    )


def measure_warmup(engine: Engine, stream: Float32) -> int | None:
    """Count the steps until streams that began in different states agree, on the same inputs.

    One stream begins at zero, the others in random states within the bounds of the cells. They
    agree where no output differs by more than 1 % of its standard deviation, from there to the end.
    Returns None if they never do.
    """
    rng = np.random.default_rng(0)
    streams = np.arange(engine.n_streams, dtype=np.int32)
    engine.reset()
    for k in range(1, engine.n_streams):
        engine.load_state(k, _random_state(engine, rng))
    outputs = np.stack([engine.step_batch(np.tile(x, (len(streams), 1)), streams) for x in stream])
    engine.reset()
    std = outputs[:, 0].astype(np.float64).std(axis=0)
    allowed = WARMUP_TOLERANCE * np.where(std > 0, std, np.inf)
    apart = (np.ptp(outputs, axis=1) > allowed).any(axis=1)
    if apart[-1]:
        return None
    return int(apart.nonzero()[0].max(initial=-1)) + 1


def _random_state(engine: Engine, rng: np.random.Generator) -> State:
    values = {
        info.name: (rng.uniform(-1, 1, info.size) * info.bound).astype(np.float32)
        for info in engine.manifest.states
    }
    return State(engine.model_hash, 0, values)
