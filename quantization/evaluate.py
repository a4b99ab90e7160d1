"""Streams through an engine, state carried, and how long a model remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine
from edge_gru.state import State
from quantization.calibrate import Calibration
from quantization.progress import Progress, silent

Float32 = npt.NDArray[np.float32]

WARMUP_TOLERANCE = 0.01
_WARMUP_STEPS = 4096
_MAX_WARMUP_DATA = 65_536  # samples to choose states and places from
_N_WARMUP_PLACES = 4


def run_stream(engine: Engine, sequence: Float32) -> Float32:
    """Run a sequence from a zero state on stream 0: ``(T, n_in)`` -> ``(T, n_out)``."""
    engine.reset(0)
    y = np.empty((len(sequence), engine.n_out), np.float32)
    for k, x in enumerate(sequence):
        engine.step(x, y[k])
    return y


def states_along(
    engine: Engine, stream: Float32, positions: npt.NDArray[np.int_]
) -> list[Mapping[str, Float32]]:
    """Run a stream from zero and keep the states before the samples at ``positions``."""
    wanted = set(positions.tolist())
    engine.reset(0)
    states = []
    for k, x in enumerate(stream):
        if k in wanted:
            states.append(engine.save_state(0).values)
        engine.step(x)
    return states


def measure_warmup(
    engine: Engine, calibration: Calibration, progress: Progress = silent
) -> int | None:
    """Count the steps until streams that began in different states agree, on the same inputs.

    One stream begins at zero, the others in states that the model reaches in the calibration. They
    agree where no output differs by more than 1 % of its standard deviation, from there on. The
    worst of several places in the data counts; None if they never agree within 4,096 steps there.
    """
    n_steps = int(np.clip(calibration.n_steps, _WARMUP_STEPS, _MAX_WARMUP_DATA))
    whole = calibration.joined(n_steps)
    n_states = engine.n_streams - 1
    states = states_along(engine, whole, np.linspace(1, len(whole) - 1, n_states, dtype=int))
    places = np.linspace(0, len(whole), _N_WARMUP_PLACES, endpoint=False, dtype=int)
    counts = []
    for k, place in enumerate(places):
        window = np.roll(whole, -place, axis=0)[:_WARMUP_STEPS]
        counts.append(_steps_until_agreement(engine, states, window))
        progress("warm-up", k + 1, len(places))
    return None if None in counts else max(filter(None, counts), default=0)


def _steps_until_agreement(
    engine: Engine, states: Sequence[Mapping[str, Float32]], window: Float32
) -> int | None:
    engine.reset()
    for k, values in enumerate(states, start=1):
        engine.load_state(k, State(engine.model_hash, 0, values))
    outputs = np.stack([engine.step_batch(np.tile(x, (engine.n_streams, 1))) for x in window])
    std = outputs.reshape(-1, engine.n_out).astype(np.float64).std(axis=0)
    apart = (np.ptp(outputs, axis=1) > WARMUP_TOLERANCE * std).any(axis=1)
    return None if apart[-1] else int(apart.nonzero()[0].max(initial=-1)) + 1
