"""A pump whose bearing wears out, as its sensor board would report it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from firmware_bridge.sample import Float32, Float64, Schema

CHANNELS = (
    ("vib_x", "g"),
    ("vib_y", "g"),
    ("vib_z", "g"),
    ("temperature", "degC"),
    ("pressure", "bar"),
    ("current", "A"),
)

SYNCHRONOUS_HZ = 25.0  # four poles on a 50 Hz grid
FULL_LOAD_SLIP = 0.03
IMPACTS_PER_TURN = 3.57  # outer race, eight balls
WINDOW_DEGREES_OF_FREEDOM = 40  # 2 kHz of band over 10 ms
THERMAL_S = 6.0
WEAR_EXPONENT = 1.5

_AXIS_UNBALANCE_G = np.array([0.06, 0.05, 0.02])
_AXIS_FLOW_G = np.array([0.11, 0.10, 0.08])
_AXIS_BEARING_G = np.array([0.80, 0.95, 0.40])


@dataclass(frozen=True)
class PumpScenario:
    """What happens to the pump; equal scenarios give equal samples.

    The machine (balance, ambient temperature, sensor offsets), its load and its disturbances follow
    from ``seed`` alone: scenarios that differ in wear agree until the earlier onset, and a longer
    recording begins like a shorter one.

    Attributes:
        rate_hz: Samples per second.
        seed: Which machine, and which history of load and disturbances.
        duration_s: Length of the recording.
        onset_s: When the bearing starts to wear; infinite for a healthy one.
        failure_s: When its wear reaches 1.
        load: Mean flow as a share of the rated one.
        disturbances_per_min: Mean rate of harmless events: load steps, valve moves, knocks.

    Raises:
        ValueError: a rate, duration, load or order of times that makes no sense.
    """

    rate_hz: float = 100.0
    seed: int = 0
    duration_s: float = 20.0
    onset_s: float = 8.0
    failure_s: float = 18.0
    load: float = 0.75
    disturbances_per_min: float = 12.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"expected a seed of 0 or more, got {self.seed}")
        for name in ("rate_hz", "duration_s", "load"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"expected a positive, finite {name}, got {value}")
        if not 0 <= self.disturbances_per_min < math.inf:
            raise ValueError(
                "expected disturbances_per_min of zero or more, finite, "
                f"got {self.disturbances_per_min}"
            )
        healthy = self.onset_s == self.failure_s == math.inf
        if not healthy and not 0 <= self.onset_s < self.failure_s < math.inf:
            raise ValueError(
                "expected 0 <= onset_s < failure_s, or both infinite for a healthy pump, "
                f"got {self.onset_s} and {self.failure_s}"
            )

    @classmethod
    def healthy(cls, *, duration_s: float, seed: int = 0, load: float = 0.75) -> PumpScenario:
        """Make a pump that does not wear."""
        return cls(
            seed=seed, duration_s=duration_s, onset_s=math.inf, failure_s=math.inf, load=load
        )

    @property
    def n_samples(self) -> int:
        """Number of samples in the recording."""
        return round(self.duration_s * self.rate_hz)


class PumpSource:
    """Simulates a motor pump on a 50 Hz grid and what six sensors on it read.

    Vibration is what a front-end with a fast converter reports: the RMS acceleration over each
    sampling period, on two radial axes and the axial one. It holds the unbalance of the shaft, flow
    noise that grows with the load, and the impacts of the damaged bearing at its defect frequency.
    Friction rises with wear; bearing temperature follows load and friction with a thermal time
    constant, current follows the torque, pressure the pump curve at the slipping speed.

    Load steps, valve moves and knocks disturb single channels as much as wear does: a threshold
    on one of them calls a fault where there is none.

    Time is compressed: bearings wear over weeks and housings warm over many minutes, here both take
    seconds, so that a healthy pump fails within a demonstration.
    """

    def __init__(self, scenario: PumpScenario | None = None) -> None:
        self.scenario = PumpScenario() if scenario is None else scenario
        self.schema = Schema.of(CHANNELS, self.scenario.rate_hz)

    def __iter__(self) -> Iterator[Float32]:
        """Yield samples ``(6,)`` in physical units."""
        yield from self.arrays()[0]

    def wear_at(self, t_s: float) -> float:
        """Tell the true wear, 0 before the onset and 1 from the failure on."""
        return float(self._wear(np.array([t_s]))[0])

    def arrays(self) -> tuple[Float32, Float32]:
        """Return all samples ``(n_samples, 6)`` and the true wear ``(n_samples,)``."""
        seeds = np.random.SeedSequence(self.scenario.seed).spawn(5)
        machine_rng, event_rng, load_rng, vibration_rng, noise_rng = map(
            np.random.default_rng, seeds
        )
        machine = _Machine.draw(machine_rng)
        t_s = np.arange(self.scenario.n_samples) / self.scenario.rate_hz
        wear = self._wear(t_s)
        events = _draw_events(self.scenario, event_rng)
        load = self._load(t_s, events, load_rng)
        torque = load + machine.friction * (1 + 2.5 * wear)
        shaft_hz = SYNCHRONOUS_HZ * (1 - FULL_LOAD_SLIP * torque)
        vibration = self._vibration(machine, events, load, wear, shaft_hz, vibration_rng)
        process = self._process(machine, events, load, torque, shaft_hz)
        noise = noise_rng.normal(0.0, [0.08, 0.02, 0.06], process.shape)
        samples = np.column_stack([vibration, process + noise]).astype(np.float32)
        return samples, wear.astype(np.float32)

    def _wear(self, t_s: Float64) -> Float64:
        if self.scenario.onset_s == math.inf:
            return np.zeros_like(t_s)
        life_s = self.scenario.failure_s - self.scenario.onset_s
        return np.clip((t_s - self.scenario.onset_s) / life_s, 0.0, 1.0) ** WEAR_EXPONENT

    def _load(self, t_s: Float64, events: list[_Event], rng: np.random.Generator) -> Float64:
        steps = [event for event in events if event.kind == "load"]
        levels = np.array([0.0] + [event.signed for event in steps])
        level = levels[np.searchsorted([event.t_s for event in steps], t_s, side="right")]
        stepped = _lagged(self.scenario.load + 0.25 * level, 0.4, self.scenario.rate_hz)
        wander_s = 4.0
        drive = rng.normal(0.0, 0.04 * math.sqrt(2 * wander_s * self.scenario.rate_hz), len(t_s))
        drive[:1] = 0.0  # the lag settles on its first value: start from the mean
        return np.clip(stepped + _lagged(drive, wander_s, self.scenario.rate_hz), 0.1, 1.3)

    def _vibration(
        self,
        machine: _Machine,
        events: list[_Event],
        load: Float64,
        wear: Float64,
        shaft_hz: Float64,
        rng: np.random.Generator,
    ) -> Float64:
        """Return the RMS of each window ``(n_samples, 3)`` in g."""
        impact_rng, window_rng = rng.spawn(
            2
        )  # one generator would mix the draws of both by duration
        period_s = 1 / self.scenario.rate_hz
        turns = np.cumsum(shaft_hz) * period_s
        # A window shorter than a turn sees the square of the 1x sine: it beats at twice the shaft.
        ripple = np.sinc(2 * shaft_hz * period_s)[:, None] * np.cos(
            4 * np.pi * turns[:, None] + np.array([0.0, np.pi, 0.5 * np.pi])
        )
        unbalance = (machine.unbalance_g * shaft_hz[:, None] / SYNCHRONOUS_HZ) ** 2 * (1 - ripple)
        flow = (machine.flow_g * (0.4 + 0.8 * load[:, None])) ** 2
        n_impacts = np.diff(np.floor(IMPACTS_PER_TURN * turns), prepend=0.0)
        scatter = impact_rng.lognormal(-0.08, 0.4, len(wear))  # unit mean
        impacts = n_impacts * scatter / (IMPACTS_PER_TURN * shaft_hz * period_s)
        damage = (machine.bearing_g * wear[:, None]) ** 2 * (0.6 + 0.4 * impacts[:, None])
        square = unbalance + flow + damage + _burst_square(self.scenario, events)
        spread = (
            window_rng.chisquare(WINDOW_DEGREES_OF_FREEDOM, square.shape)
            / WINDOW_DEGREES_OF_FREEDOM
        )
        return np.sqrt(square * spread) * machine.vibration_gain

    def _process(
        self,
        machine: _Machine,
        events: list[_Event],
        load: Float64,
        torque: Float64,
        shaft_hz: Float64,
    ) -> Float64:
        """Return temperature, pressure and current ``(n_samples, 3)`` without noise."""
        friction = torque - load
        settled_degc = machine.ambient_degc + 16.0 * load**2 + 90.0 * friction
        temperature = _lagged(settled_degc, THERMAL_S, self.scenario.rate_hz)
        speed = shaft_hz / SYNCHRONOUS_HZ
        pressure = 6.2 * speed**2 - 1.8 * load**2 + machine.pressure_offset_bar
        for start, event, since_s in _each(self.scenario, events, "valve", 2.0):
            surge = np.exp(-since_s / 0.35) * np.cos(2 * np.pi * 3.0 * since_s)
            pressure[start : start + len(since_s)] -= 1.2 * event.strength * surge
        current = machine.current_gain * np.hypot(3.2, 9.0 * torque)
        return np.column_stack([temperature, pressure, current])


@dataclass(frozen=True)
class _Machine:
    """What differs from one pump of a series to the next."""

    unbalance_g: Float64
    flow_g: Float64
    bearing_g: Float64
    vibration_gain: Float64
    ambient_degc: float
    friction: float
    pressure_offset_bar: float
    current_gain: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Machine:
        return cls(
            unbalance_g=_AXIS_UNBALANCE_G * rng.uniform(0.6, 1.5),
            flow_g=_AXIS_FLOW_G * rng.uniform(0.85, 1.15, 3),
            bearing_g=_AXIS_BEARING_G * rng.uniform(0.85, 1.2, 3),
            vibration_gain=rng.uniform(0.95, 1.05, 3),
            ambient_degc=rng.uniform(15.0, 30.0),
            friction=rng.uniform(0.05, 0.07),
            pressure_offset_bar=rng.uniform(-0.1, 0.1),
            current_gain=rng.uniform(0.97, 1.03),
        )


@dataclass(frozen=True)
class _Event:
    """A harmless disturbance; ``signed`` is in -1..1, ``strength`` in 0.5..1."""

    t_s: float
    kind: str
    strength: float
    signed: float
    axis: int


def _draw_events(scenario: PumpScenario, rng: np.random.Generator) -> list[_Event]:
    events: list[_Event] = []
    if scenario.disturbances_per_min == 0:
        return events
    mean_gap_s = 60 / scenario.disturbances_per_min
    t_s = rng.exponential(mean_gap_s)
    while t_s < scenario.duration_s:
        kind = ("load", "valve", "knock")[rng.integers(3)]
        strength, signed, axis = rng.uniform(0.5, 1.0), rng.uniform(-1.0, 1.0), rng.integers(3)
        events.append(_Event(t_s, kind, strength, signed, int(axis)))
        t_s += rng.exponential(mean_gap_s)
    return events


def _each(
    scenario: PumpScenario, events: list[_Event], kind: str, lasts_s: float
) -> Iterator[tuple[int, _Event, Float64]]:
    """Yield the first sample of each event of ``kind`` and the time since it, per sample."""
    for event in events:
        if event.kind == kind:
            start = math.ceil(event.t_s * scenario.rate_hz)
            stop = min(start + round(lasts_s * scenario.rate_hz), scenario.n_samples)
            yield start, event, np.arange(start, stop) / scenario.rate_hz - event.t_s


def _burst_square(scenario: PumpScenario, events: list[_Event]) -> Float64:
    """Return what valves and knocks add to the mean square ``(n_samples, 3)`` in g^2."""
    square = np.zeros((scenario.n_samples, 3))
    for start, event, since_s in _each(scenario, events, "valve", 2.0):
        turbulence = (0.7 * event.strength) ** 2 * np.exp(-since_s / 0.2)
        square[start : start + len(since_s)] += turbulence[:, None]
    for start, event, since_s in _each(scenario, events, "knock", 0.3):
        ring = (1.8 * event.strength) ** 2 * np.exp(-since_s / 0.03)
        square[start : start + len(since_s), event.axis] += ring
    return square


def _lagged(values: npt.NDArray[np.float64], time_constant_s: float, rate_hz: float) -> Float64:
    """Follow ``values`` with a first-order lag that has settled on the first of them."""
    gain = -math.expm1(-1 / (time_constant_s * rate_hz))
    return np.array(list(accumulate(values.tolist(), lambda y, u: y + gain * (u - y))))
