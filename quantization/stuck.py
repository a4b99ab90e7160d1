"""Does a quantized memory still move: both twins on a held input, from states of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Float32
from edge_gru.manifest import Manifest, StateInfo
from quantization.comparison import (
    Float64,
    Samples,
    States,
    advance,
    load_states,
    read_states,
)
from quantization.probe import probe
from quantization.twins import Opener, Twins, float_graph

N_TRIALS = 24
_MIN_STEPS, _MAX_STEPS = 200, 6000
_MOVES = 0.05  # of what the state can reach
_STUCK = 0.5  # of the way
_SAME_PLACE = 0.25  # of the way
_N_LATE_LOOKS = 16
_SETTLED_STD = 0.05
_TINY_UPDATE = 1e-6
_N_LOOKS = 64
_N_NUDGES = 4
_GRID_STEPS = 127

# The gate that says how much of itself a state keeps in a step, and the state that it keeps.
_RETENTION = {
    "GRU": ("z", 1),
    "GRU_RESET_FIRST": ("z", 1),
    "LSTM": ("f", 2),
    "LSTM_PROJECTED": ("f", 2),
}


class TimeConstants(msgspec.Struct, frozen=True):
    """Steps after which a unit has forgotten 63 %, by state; ``measured`` says from what."""

    steps: dict[str, list[float]]
    measured: str

    @property
    def largest(self) -> float:
        """That of the slowest unit."""
        return max(max(values) for values in self.steps.values())


class StuckTest(msgspec.Struct, frozen=True, kw_only=True):
    """Both twins on the median input from the same states.

    A unit of a trial moves if the float one travels more than 5 % of what the state can reach, and
    is stuck if the quantized one covers less than half of that way. Where the float network has no
    place of rest, or not the same one from a step of the grid 1/127 aside, the units concerned are
    left out, and for the outputs the trial (undecided): that says nothing of how quantization
    moves. ``largest_std`` is the largest difference of outputs at the end, in standard deviations.
    """

    n_trials: int
    n_undecided: int
    n_steps: int
    n_moving: int
    n_stuck: int
    largest_std: float
    worst_unit: str

    @property
    def share(self) -> float:
        """Stuck of moving."""
        return self.n_stuck / self.n_moving if self.n_moving else 0.0


def time_constants(twins: Twins, samples: Samples, held: Float32) -> TimeConstants:
    """Measure how long every unit remembers: from its gate along the stream, or by letting go.

    A GRU keeps the share z of a unit in a step, so that its time constant is ``1 / (1 - median
    z)``; an LSTM the share f of its c. Of other states, the time is taken that the float network
    needs to come within 1/e of where it settles on the held input.
    """
    steps = _from_gates(twins, samples)
    if set(steps) == set(twins.manifest.state_sizes):
        return TimeConstants(steps, "gates")
    return TimeConstants({**_from_settling(twins, samples, held), **steps}, "settling")


def _from_gates(twins: Twins, samples: Samples) -> dict[str, list[float]]:
    gates = {
        node.inputs[_RETENTION[node.op][1]]: f"{node.attributes['cell']}.{_RETENTION[node.op][0]}"
        for node in twins.manifest.program.nodes
        if node.op in _RETENTION
    }
    found = probe(float_graph(twins.source), gates.values(), samples.x, samples.fp32)
    return {
        state: _time_constant(found[gate]).tolist()
        for state, gate in gates.items()
        if gate in found
    }


def _time_constant(kept: Float32) -> Float64:
    return 1 / np.maximum(1 - np.median(kept.astype(np.float64), axis=0), _TINY_UPDATE)


def _from_settling(twins: Twins, samples: Samples, held: Float32) -> dict[str, list[float]]:
    places = np.unique(np.geomspace(1, _MAX_STEPS, _N_LOOKS).astype(int))
    starts = _starts(samples)
    with twins.fp32(N_TRIALS) as engine:
        load_states(engine, starts)
        looks = []
        for step in range(1, _MAX_STEPS + 1):
            advance(engine, np.tile(held, (N_TRIALS, 1)))
            if step in places:
                looks.append(read_states(engine))
    found = {}
    for name, start in starts.items():
        path = np.stack([start, *(look[name] for look in looks)])
        left = np.abs(path - path[-1])
        arrived = np.argmax(left <= left[0] / np.e, axis=0)
        found[name] = np.median(np.r_[1, places][arrived], axis=0).astype(np.float64).tolist()
    return found


def stuck_test(
    twins: Twins, samples: Samples, held: Float32, tau: TimeConstants, output_std: Float64
) -> StuckTest:
    """Hold the median input for five of the largest time constants, 200 to 6,000 steps."""
    n_steps = int(np.clip(5 * tau.largest, _MIN_STEPS, _MAX_STEPS))
    std = np.where(output_std > 0, output_std, np.inf)
    starts = _starts(samples)
    right = _settle(twins.fp32, _with_nudges(twins.manifest, starts), held, n_steps)
    found = _settle(twins.candidate, starts, held, n_steps)
    moving, stuck, names = _count(twins.manifest, starts, right, found.states)
    decided = (_spread(right.y, right.y_swing) / std <= _SETTLED_STD).all(axis=1)
    difference = np.abs(found.y.astype(np.float64) - right.y[:N_TRIALS])[decided] / std
    by_unit = stuck.sum(axis=0)
    return StuckTest(
        n_trials=N_TRIALS,
        n_undecided=int((~decided).sum()),
        n_steps=n_steps,
        n_moving=int(moving.sum()),
        n_stuck=int(stuck.sum()),
        largest_std=float(np.nan_to_num(difference, nan=np.inf).max(initial=0)),
        worst_unit=names[int(by_unit.argmax())] if by_unit.any() else "",
    )


class _End(NamedTuple):
    """States and outputs at the end, and how far they swing in the last twentieth."""

    states: States
    state_swing: Mapping[str, Float64]
    y: Float32
    y_swing: Float64


def _settle(open_engine: Opener, starts: States, held: Float32, n_steps: int) -> _End:
    n_streams = len(next(iter(starts.values())))
    x = np.tile(held, (n_streams, 1))
    looks = set(np.linspace(n_steps - n_steps // 20, n_steps, _N_LATE_LOOKS).astype(int).tolist())
    outputs, states = [], []
    with open_engine(n_streams) as engine:
        load_states(engine, starts)
        for step in range(1, n_steps + 1):
            y = advance(engine, x)
            if step in looks:
                outputs.append(y)
                states.append(read_states(engine))
    swing = {name: _swing([look[name] for look in states]) for name in starts}
    return _End(states[-1], swing, outputs[-1], _swing(outputs))


def _swing(looks: list[Float32]) -> Float64:
    return np.ptp(np.stack(looks), axis=0).astype(np.float64)


def _spread(ends: Float32, swing: Float64) -> Float64:
    """Tell how far apart a trial and its nudged copies end, or swing there: ``(trials, n)``."""
    shape = (1 + _N_NUDGES, N_TRIALS, -1)
    apart = np.ptp(ends.astype(np.float64).reshape(shape), axis=0)
    return np.maximum(apart, swing.reshape(shape).max(axis=0))


def _with_nudges(manifest: Manifest, starts: States) -> dict[str, Float32]:
    """Add to the starts, after them, the same ones moved by a step of the grid at random."""
    rng = np.random.default_rng(0)
    nudged = {}
    for info in manifest.states:
        start = starts[info.name]
        limit = reach(info.bound, start)
        step = limit / _GRID_STEPS
        moved = [start + step * rng.choice([-1, 1], start.shape) for _ in range(_N_NUDGES)]
        rows = np.concatenate([start, *moved])
        nudged[info.name] = _within(info.bound, rows).astype(np.float32)
    return nudged


def _starts(samples: Samples) -> dict[str, Float32]:
    """Choose 24 states of the float stream, spread over its later three quarters."""
    n = len(samples.x)
    places = np.linspace(n // 4, n - 1, N_TRIALS).astype(int)
    return {name: values[places] for name, values in samples.fp32.items()}


def _count(
    manifest: Manifest, starts: States, right: _End, found: States
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[str]]:
    """Tell which units of which trials move, and which of these are stuck: ``(trials, units)``."""
    moving, stuck, names = [], [], []
    for info in manifest.states:
        start, name = starts[info.name], info.name
        way = np.abs(right.states[name][:N_TRIALS] - start)
        covered = np.abs(found[name] - start)
        moves = way > _MOVES * reach(info.bound, start)
        moves &= _spread(right.states[name], right.state_swing[name]) < _SAME_PLACE * way
        moving.append(moves)
        stuck.append(moves & ~(covered >= _STUCK * way))  # also finds NaN
        names += _unit_names(info)
    return np.concatenate(moving, axis=1), np.concatenate(stuck, axis=1), names


def reach(bound: float | None, values: Float32) -> float:
    """Tell how far a state gets: its bound, or the largest magnitude seen, at least 1."""
    return bound if bound is not None else max(1.0, float(np.abs(values).max(initial=0)))


def _within(bound: float | None, values: Float64) -> Float64:
    return values if bound is None else np.clip(values, -bound, bound)


def _unit_names(info: StateInfo) -> list[str]:
    return [f"{info.name}[{k}]" for k in range(info.size)]


def unit_sqnr_db(samples: Samples) -> Mapping[str, Float64]:
    """Compare every unit of the candidate with the float one along the stream, in dB."""
    found = {}
    for name, right in samples.fp32.items():
        noise = np.mean((samples.candidate[name].astype(np.float64) - right) ** 2, axis=0)
        signal = np.var(right.astype(np.float64), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name] = np.where(noise == 0, np.inf, 10 * np.log10(signal / noise))
    return found
