"""Engines in lock-step on one long stream, compared as they go: memory does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine, Float32
from edge_gru.manifest import InputRange
from edge_gru.state import State
from quantization.progress import Progress, silent
from quantization.stream import JoinedStream
from quantization.twins import Opener

Float64 = npt.NDArray[np.float64]
States: TypeAlias = Mapping[str, Float32]

N_BINS = 100
NOTHING_LEFT_DB = -999.0  # of a signal drowned in noise that is not finite
_N_SAMPLES = 2048
_N_AT_ONCE = 32
_NO_SIGNAL = 1e-6  # of the largest deviation among outputs: one that stands still


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """How far an engine's outputs are from the fp32 ones on a stream.

    ``largest_std`` and ``over_time_std`` (root mean square in each hundredth of the stream) are in
    standard deviations of the output. ``sqnr_db`` is over all outputs together, the list has one
    value an output (None: it stands still, so there is no signal to compare with), and the middle
    one is the median over streams, which a few rare events do not move.
    """

    sqnr_db: float
    sqnr_db_middle: float
    sqnr_db_by_output: list[float | None]
    largest: float
    largest_std: float
    last_over_first: float
    over_time_std: list[float]
    n_steps: int


class Samples(msgspec.Struct, frozen=True):
    """What was where on the stream: inputs ``(m, n_in)``, and states before them ``(m, size)``."""

    x: Float32
    fp32: dict[str, Float32]
    candidate: dict[str, Float32]


class Comparison(msgspec.Struct, frozen=True):
    """Deviations by name of the engine, samples, and the deviation of every fp32 output."""

    deviations: dict[str, Deviation]
    samples: Samples
    output_std: Float64
    share_beyond: Float64  # of the samples of each channel, beyond the input limit


class _Errors:
    """Sums over a stream of what one engine does otherwise than fp32."""

    def __init__(self, n_out: int, n_streams: int) -> None:
        self.squares = np.zeros((N_BINS, n_out))
        self.by_stream = np.zeros(n_streams)
        self.largest = np.zeros(n_out)
        self.is_finite = True

    def add(self, bins: npt.NDArray[np.intp], expected: Float32, found: Float32) -> None:
        error = np.abs(found.astype(np.float64) - expected)
        self.is_finite &= bool(np.isfinite(error).all())
        squares = error**2
        np.add.at(self.squares, bins, squares.sum(axis=1))
        self.by_stream += squares.sum(axis=(0, 2))
        self.largest = np.maximum(self.largest, error.max(axis=(0, 1)))


class _Signal:
    """Running mean and variance of every output, around its first value against cancellation."""

    def __init__(self, n_out: int) -> None:
        self.origin: Float64 | None = None
        self.sums = np.zeros((2, n_out))
        self.n = 0

    def add(self, y: Float32) -> None:
        if self.origin is None:
            self.origin = y[0, 0].astype(np.float64)
        centred = y.reshape(-1, y.shape[-1]).astype(np.float64) - self.origin
        self.sums += [centred.sum(axis=0), (centred**2).sum(axis=0)]
        self.n += len(centred)

    @property
    def variance(self) -> Float64:
        mean, square = self.sums / max(self.n, 1)
        return np.maximum(square - mean**2, 0)


def compare(
    fp32: Opener,
    others: Mapping[str, Opener],
    stream: JoinedStream,
    *,
    input_limit: InputRange | None = None,
    starts: States | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Run engines freely on the same samples; the first of ``others`` is sampled.

    Every one begins at zero, or in the states ``starts``, ``(n_streams, size)`` each. ``progress``
    is told of stage ``judge``.
    """
    with ExitStack() as stack:
        right = stack.enter_context(fp32(stream.n_streams))
        engines = {
            name: stack.enter_context(open_(stream.n_streams)) for name, open_ in others.items()
        }
        if starts is not None:
            for engine in (right, *engines.values()):
                load_states(engine, starts)
        return _compare(right, engines, stream, input_limit, progress)


def _compare(
    right: Engine,
    engines: Mapping[str, Engine],
    stream: JoinedStream,
    input_limit: InputRange | None,
    progress: Progress,
) -> Comparison:
    signal = _Signal(right.n_out)
    errors = {name: _Errors(right.n_out, stream.n_streams) for name in engines}
    sampler = _Sampler(right, next(iter(engines.values()), right), stream)
    low, high = (-np.inf, np.inf) if input_limit is None else _ends(input_limit)
    n_beyond, n_done = np.zeros(right.n_in), 0
    for block, begins in stream.blocks():
        outputs = {name: np.empty((*block.shape[:2], right.n_out), np.float32) for name in engines}
        expected = np.empty((*block.shape[:2], right.n_out), np.float32)
        for k, x in enumerate(block):
            for row in begins[k].nonzero()[0].tolist():
                for engine in (right, *engines.values()):
                    engine.reset(row)
            sampler.look(n_done + k, x)
            expected[k] = advance(right, x)
            for name, engine in engines.items():
                outputs[name][k] = advance(engine, x)
        signal.add(expected)
        bins = (n_done + np.arange(len(block))) * N_BINS // stream.n_steps
        for name, found in outputs.items():
            errors[name].add(bins, expected, found)
        n_beyond += ((block < low) | (block > high)).sum(axis=(0, 1))
        n_done += len(block)
        progress("judge", n_done, stream.n_steps)
    return Comparison(
        {name: _deviation(found, signal) for name, found in errors.items()},
        sampler.samples(),
        np.sqrt(signal.variance),
        n_beyond / max(stream.n_samples, 1),
    )


def _ends(limits: InputRange) -> tuple[Float32, Float32]:
    return np.array(limits.minimum, np.float32), np.array(limits.maximum, np.float32)


def advance(engine: Engine, x: Float32) -> Float32:
    """Advance all streams: ``(n_streams, n_in)`` -> ``(n_streams, n_out)``."""
    return engine.step(x[0])[None] if len(x) == 1 else engine.step_batch(x)


def load_states(engine: Engine, states: States) -> None:
    """Begin every stream in a state of its own: ``(n_streams, size)`` by name."""
    for k in range(engine.n_streams):
        values = {name: rows[k] for name, rows in states.items()}
        engine.load_state(k, State(engine.model_hash, 0, values))


def read_states(engine: Engine) -> dict[str, Float32]:
    """Copy the states of all streams: ``(n_streams, size)`` by name."""
    kept = [engine.save_state(k).values for k in range(engine.n_streams)]
    return {name: np.stack([values[name] for values in kept]) for name in kept[0]}


def _deviation(errors: _Errors, signal: _Signal) -> Deviation:
    variance = signal.variance
    std = np.sqrt(variance)
    moves = std > _NO_SIGNAL * std.max(initial=0)
    noise = errors.squares.sum(axis=0) / max(signal.n, 1)
    relative = errors.squares[:, moves] / np.where(variance[moves] > 0, variance[moves], 1)
    per_bin = relative.mean(axis=1) if moves.any() else np.zeros(N_BINS)
    over_time = np.sqrt(per_bin * N_BINS / max(signal.n, 1))
    tenth = N_BINS // 10
    first, last = over_time[:tenth].mean(), over_time[-tenth:].mean()
    largest = errors.largest[moves] / std[moves]
    if not errors.is_finite:
        noise = np.full_like(noise, np.inf)
    middle = float(np.median(errors.by_stream)) * len(errors.by_stream) / max(signal.n, 1)
    return Deviation(
        sqnr_db=_db(float(variance.sum()), float(noise.sum())),
        sqnr_db_middle=_db(float(variance.sum()), middle),
        sqnr_db_by_output=[
            _db(float(v), float(n)) if m else None
            for v, n, m in zip(variance, noise, moves, strict=True)
        ],
        largest=float(errors.largest.max(initial=0)),
        largest_std=float(largest.max(initial=0)) if errors.is_finite else math.inf,
        last_over_first=float(last / first) if first > 0 else 1.0,
        over_time_std=over_time.tolist(),
        n_steps=signal.n,
    )


def _db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    if signal == 0 or not math.isfinite(noise):
        return NOTHING_LEFT_DB
    return 10 * math.log10(signal / noise)


class _Sampler:
    """Copies inputs and states of two engines at some 2,048 places of a stream."""

    def __init__(self, right: Engine, candidate: Engine, stream: JoinedStream) -> None:
        self._engines = (right, candidate)
        n_times = max(1, _N_SAMPLES // stream.n_streams)
        self._every = max(1, stream.n_steps // n_times)
        self._x: list[Float32] = []
        self._states: tuple[list[States], list[States]] = ([], [])

    def look(self, step: int, x: Float32) -> None:
        # Half an interval late: at the very first step every state is zero.
        if step % self._every != self._every // 2:
            return
        self._x.append(x.copy())
        for engine, kept in zip(self._engines, self._states, strict=True):
            kept.extend(engine.save_state(k).values for k in range(engine.n_streams))

    def samples(self) -> Samples:
        names = self._engines[0].manifest.state_sizes
        right, candidate = (
            {name: np.stack([values[name] for values in kept]) for name in names}
            for kept in self._states
        )
        return Samples(np.concatenate(self._x), right, candidate)


def run_sequences(
    open_engine: Opener, sequences: Sequence[Float32], progress: Progress = silent
) -> list[Float32]:
    """Run sequences of any lengths from zero, many at a time: a ``(T, n_out)`` for each.

    ``progress`` is told of stage ``task``.
    """
    order = np.argsort([-len(sequence) for sequence in sequences], kind="stable")
    outputs: list[Float32] = [np.empty(0, np.float32)] * len(sequences)
    n_streams = min(_N_AT_ONCE, len(sequences))
    with open_engine(n_streams) as engine:
        for start in range(0, len(order), n_streams):
            chosen = order[start : start + n_streams].tolist()
            engine.reset()
            group = [sequences[k] for k in chosen]
            for k, y in zip(chosen, _run_group(engine, group), strict=True):
                outputs[k] = y
            progress("task", min(start + n_streams, len(order)), len(order))
    return outputs


def _run_group(engine: Engine, group: list[Float32]) -> list[Float32]:
    """Run sequences, the longest first; those that have ended drop out from behind."""
    lengths = np.array([len(sequence) for sequence in group])
    outputs = [np.empty((n, engine.n_out), np.float32) for n in lengths]
    for t in range(int(lengths[0])):
        n_left = int(np.searchsorted(-lengths, -t, side="left"))
        x = np.stack([sequence[t] for sequence in group[:n_left]])
        for k, row in enumerate(advance(engine, x)):
            outputs[k][t] = row
    return outputs
