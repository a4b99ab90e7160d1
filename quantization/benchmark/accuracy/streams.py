"""Synthetic streams: two tasks with a target at every step, and plucked strings as audio."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

AVERAGE_STEPS = 300
_FLIPS_A_STEP = 1 / 200
_LEVELS_A_STEP = 1 / 800
_N_DISTRACTORS = 2

N_SENSORS = 14
_N_SPIKY = 4
_SPIKES_A_STEP = 0.002
_SPIKE_SIGMA = 25.0
_NOISE = 0.35
_LIFE_STEPS = (120, 320)
_REGIME_STEPS = 20
_N_REGIMES = 3
_CAP_STEPS = 125
_PLANT_SEED = 20

AUDIO_RATE_HZ = 44_100
_LOWEST_HZ, _N_SEMITONES = 82.4, 36
_NOTE_SAMPLES = (2205, 11025)
_LOSS = 0.996


def long_memory(n_steps: int, n_streams: int, seed: int) -> tuple[Float32, Float32]:
    """Make a task that takes memory of hundreds of steps.

    Of four inputs, one has rare pulses of both signs, one a level in noise, two mean nothing. To
    be told at every step: the sign of the last pulse, and the exponential average of the level
    with a time constant of 300 steps.

    Returns:
        Inputs ``(n_streams, n_steps, 4)`` and targets ``(n_streams, n_steps, 2)``.
    """
    rng = np.random.default_rng(seed)
    shape = (n_steps, n_streams)
    pulse = rng.choice([-1.0, 1.0], shape) * (rng.random(shape) < _FLIPS_A_STEP)
    changes = rng.random(shape) < _LEVELS_A_STEP
    changes[0] = True
    level = _held(rng.uniform(-1, 1, shape), changes)
    noisy = level + rng.normal(0, 0.5, shape)
    distractors = rng.normal(0, 1, (*shape, _N_DISTRACTORS))
    x = np.concatenate([np.stack([3 * pulse, noisy], axis=2), distractors], axis=2)
    decay = np.full(n_streams, 1 - 1 / AVERAGE_STEPS)
    y = np.stack([_held(pulse, pulse != 0), _lagged(noisy, decay)], axis=2)
    return _by_stream(x), _by_stream(y)


def run_to_failure(n_steps: int, n_streams: int, seed: int) -> tuple[Float32, Float32]:
    """Make machines that wear out and are replaced, seen by 14 sensors in three regimes.

    Four of the sensors tell nothing and have rare spikes of 25 sigma: 25 times the noise of the
    sensor. To be told at every step: the steps left, at most 125, as a share of 125.

    Returns:
        Inputs ``(n_streams, n_steps, 14)`` and targets ``(n_streams, n_steps, 1)``.
    """
    plant = np.random.default_rng(_PLANT_SEED)
    linear, curved = plant.normal(0, 2, N_SENSORS), plant.normal(0, 1.4, N_SENSORS)
    linear[-_N_SPIKY:] = curved[-_N_SPIKY:] = 0
    shifts = plant.normal(0, 0.5, (_N_REGIMES, N_SENSORS))
    lag = plant.uniform(0, 0.9, N_SENSORS)

    rng = np.random.default_rng(seed)
    lives = [_lives(n_steps, rng) for _ in range(n_streams)]
    wear = np.stack([wear for wear, _ in lives], axis=1)[:, :, None]
    left = np.stack([left for _, left in lives], axis=1)[:, :, None]
    n_blocks = -(-n_steps // _REGIME_STEPS)
    regime = np.repeat(rng.integers(0, _N_REGIMES, (n_blocks, n_streams)), _REGIME_STEPS, axis=0)
    shown = linear * wear + curved * wear**2 + shifts[regime[:n_steps]]
    x = _lagged(shown, lag) + rng.normal(0, _NOISE, shown.shape)
    spiky = x[:, :, -_N_SPIKY:]  # a view
    strikes = rng.random(spiky.shape) < _SPIKES_A_STEP
    spiky += strikes * rng.normal(0, _SPIKE_SIGMA * _NOISE, spiky.shape)
    return _by_stream(x), _by_stream(np.minimum(left, _CAP_STEPS) / _CAP_STEPS)


def plucked_strings(n_steps: int, n_streams: int, seed: int) -> Float32:
    """Make audio at 44.1 kHz: a string is plucked every 50 to 250 ms, loud or soft.

    A burst of noise runs round a delay line of the length of the pitch and loses its treble there
    (Karplus and Strong, Computer Music Journal 7(2), 1983).

    Returns:
        Samples ``(n_streams, n_steps, 1)`` within -1 and 1.
    """
    rng = np.random.default_rng(seed)
    streams = [_plucked(n_steps, rng) for _ in range(n_streams)]
    return np.clip(np.stack(streams)[:, :, None], -1, 1).astype(np.float32)


def _plucked(n_steps: int, rng: np.random.Generator) -> Float64:
    notes: list[Float64] = []
    n_made = 0
    while n_made < n_steps:
        n_note = int(rng.integers(*_NOTE_SAMPLES))
        pitch_hz = _LOWEST_HZ * 2 ** (rng.integers(_N_SEMITONES) / 12)
        string = rng.uniform(-1, 1, round(AUDIO_RATE_HZ / pitch_hz)) * rng.uniform(0.1, 0.8)
        rounds = []
        for _ in range(-(-n_note // len(string))):
            string = _LOSS * (string + np.roll(string, 1)) / 2
            rounds.append(string)
        notes.append(np.concatenate(rounds)[:n_note])
        n_made += n_note
    return np.concatenate(notes)[:n_steps]


def _lives(n_steps: int, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Wear from 0 to 1 over one life after another, and the steps left: ``(n_steps,)`` each."""
    wear, left, n_made = [], [], 0
    while n_made < n_steps:
        life = int(rng.integers(*_LIFE_STEPS))
        onset, power = rng.uniform(0.2, 0.6), rng.uniform(1.5, 3.0)
        age = np.arange(life) / life
        wear.append(np.maximum((age - onset) / (1 - onset), 0) ** power)
        left.append(np.arange(life, dtype=np.float64)[::-1])
        n_made += life
    return np.concatenate(wear)[:n_steps], np.concatenate(left)[:n_steps]


def _held(values: Float64, changes: npt.NDArray[np.bool_]) -> Float64:
    """Hold each value until the next change: ``(n_steps, n_streams)``; 0 before the first."""
    step = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(changes, step, -1), axis=0)
    held = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last < 0, 0.0, held)


def _lagged(values: Float64, decay: Float64) -> Float64:
    """Follow values with a lag, from zero: ``decay`` is what remains of the old after a step."""
    followed = np.empty_like(values)
    now = np.zeros(values.shape[1:])
    for t, value in enumerate(values):
        now = decay * now + (1 - decay) * value
        followed[t] = now
    return followed


def _by_stream(values: Float64) -> Float32:
    return np.ascontiguousarray(values.swapaxes(0, 1), np.float32)
