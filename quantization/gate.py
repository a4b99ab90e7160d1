"""The gate: what a quantized model must pass before it is packed, judged on real streams.

Judged by: the task metric, the streamed SQNR, whether the memory still moves, the largest
deviation. Printed beside, and never judged by, since broken models look well in them: the drift
over the stream and the error of a single step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from edge_gru.engines.base import Float32
from edge_gru.engines.golden import sqnr_db
from edge_gru.manifest import GateResult
from edge_gru.state import State
from quantization.calibrate import Calibration
from quantization.comparison import (
    Comparison,
    Deviation,
    Float64,
    Samples,
    advance,
    compare,
    run_sequences,
)
from quantization.metrics import Metric
from quantization.progress import Progress, silent
from quantization.stream import JoinedStream, has_slow_stretch, median_input
from quantization.stuck import StuckTest, TimeConstants, stuck_test, time_constants, unit_sqnr_db
from quantization.twins import Opener, Twins

Verdict: TypeAlias = Literal["pass", "warn", "fail", "info"]

N_JUDGED_STEPS = 100_000
TOLERANCE = 0.005

_PASS_DB, _WARN_DB = 40.0, 30.0
_WARN_STUCK = 0.005
_PASS_SETTLE_STD, _WARN_SETTLE_STD = 0.05, 0.15
_WARN_DEVIATION_STD = 0.25
_WARN_SATURATED = 1e-4
_CHAOS_DB = 100.0

_MAX_STREAMS = 32
_MIN_STREAM_STEPS = 2000
_FIRST_LOOK_STEPS = 1024
_N_TIME_CONSTANTS = 10  # of the slowest unit, in each stream
_N_SINGLE_STEPS = 256
_N_WORST_UNITS = 8
_GRID_STEPS = 127
_CONTROL = "control"
_CHAOTIC = "the network is chaotic (see control): streams part whatever is quantized"


@dataclass(frozen=True)
class GateSettings:
    """How to judge.

    Attributes:
        metric: of the task; None where there are no targets.
        tolerance: how much worse the metric may get, relative to that of fp32.
        n_steps: samples of the stream; fewer than 100,000 rank, they do not accept.
        seed: of the order in which sequences are joined.
    """

    metric: Metric | None = None
    tolerance: float = TOLERANCE
    n_steps: int = N_JUDGED_STEPS
    seed: int = 0


class Check(msgspec.Struct, frozen=True):
    """One row of the gate: what was found, what is needed, and why that is the verdict."""

    name: str
    verdict: Verdict
    found: str
    needs: str
    reason: str


class TaskScore(msgspec.Struct, frozen=True, kw_only=True):
    """The task metric of both twins, and how much worse the candidate is, relative to fp32."""

    metric: str
    fp32: float
    candidate: float
    worsening: float
    tolerance: float
    n_sequences: int


class StreamShape(msgspec.Struct, frozen=True, kw_only=True):
    """What was streamed; ``data_sha256`` is of the judged sequences, in order."""

    n_streams: int
    n_steps: int
    seed: int
    has_holds: bool
    n_sequences: int
    n_data_steps: int
    data_sha256: str


class Unit(msgspec.Struct, frozen=True):
    """A unit of a state: its SQNR along the stream and its time constant in steps."""

    name: str
    sqnr_db: float
    tau_steps: float


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says, and everything that it rests on."""

    precision: str
    checks: list[Check]
    task: TaskScore | None
    control_sqnr_db: float | None
    stuck: StuckTest
    time_constants: TimeConstants
    one_step_error_std: float
    worst_units: list[Unit]
    share_beyond_grid: list[float] | None
    stream: StreamShape

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """The worst of the checks."""
        found = {check.verdict for check in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    @property
    def result(self) -> GateResult:
        """What the manifest says of it."""
        sentences = tuple(
            f"{c.name}: {c.reason}" for c in self.checks if c.verdict in ("warn", "fail")
        )
        return GateResult(self.verdict, sentences)

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == "fail"]


class Evidence(msgspec.Struct, frozen=True):
    """A judgement, and the stream with its deviations and samples for whoever looks further."""

    judgement: Judgement
    deviations: dict[str, Deviation]
    stream: JoinedStream
    samples: Samples


def judge(
    twins: Twins,
    data: Calibration,
    settings: GateSettings | None = None,
    progress: Progress = silent,
) -> Evidence:
    """Run both twins on the data and judge the candidate.

    Raises:
        DataError: targets do not fit the outputs, or the metric is not finite.
    """
    settings = settings or GateSettings()
    held = median_input(data.sequences)
    first = JoinedStream(
        data.sequences,
        _MAX_STREAMS,
        _FIRST_LOOK_STEPS,
        has_holds=False,
        held=held,
        begins_anywhere=True,
    )
    tau = time_constants(twins, compare(twins.fp32, {}, first).samples, held)
    stream = _stream(data, tau.largest, held, settings)
    openers: dict[str, Opener] = {twins.precision: twins.candidate, **twins.others}
    if twins.control is not None:
        openers[_CONTROL] = twins.control
    found = compare(
        twins.fp32, openers, stream, input_limit=twins.input_limit, progress=progress
    )
    stuck = stuck_test(twins, found.samples, held, tau, found.output_std)
    task = _task(twins, data, settings, progress)
    control = found.deviations.get(_CONTROL)
    judgement = Judgement(
        precision=twins.precision,
        checks=_checks(twins, found, stuck, task, settings),
        task=task,
        control_sqnr_db=None if control is None else control.sqnr_db,
        stuck=stuck,
        time_constants=tau,
        one_step_error_std=_one_step_error(twins, found.samples, found.output_std),
        worst_units=_worst_units(found.samples, tau),
        share_beyond_grid=None if twins.input_limit is None else found.share_beyond.tolist(),
        stream=_shape(stream, data),
    )
    deviations = {name: d for name, d in found.deviations.items() if name != _CONTROL}
    return Evidence(judgement, deviations, stream, found.samples)


def _stream(
    data: Calibration, tau_steps: float, held: Float32, settings: GateSettings
) -> JoinedStream:
    longest = max(map(len, data.sequences))
    least = max(_MIN_STREAM_STEPS, longest, math.ceil(_N_TIME_CONSTANTS * tau_steps))
    n_streams = int(np.clip(settings.n_steps // least, 1, _MAX_STREAMS))
    return JoinedStream(
        data.sequences,
        n_streams,
        -(-settings.n_steps // n_streams),
        has_holds=not has_slow_stretch(data.sequences),
        held=held,
        seed=settings.seed,
    )


def _shape(stream: JoinedStream, data: Calibration) -> StreamShape:
    return StreamShape(
        n_streams=stream.n_streams,
        n_steps=stream.n_samples,
        seed=stream.seed,
        has_holds=stream.has_holds,
        n_sequences=len(data.sequences),
        n_data_steps=data.n_steps,
        data_sha256=data.sha256,
    )


def _task(
    twins: Twins, data: Calibration, settings: GateSettings, progress: Progress
) -> TaskScore | None:
    metric, targets = settings.metric, data.targets
    if metric is None or targets is None:
        return None
    scores = []
    for n_before, opener in enumerate((twins.fp32, twins.candidate)):
        n = len(data.sequences)

        def tell(stage: str, done: int, _: int, before: int = n_before * n, n: int = n) -> None:
            progress(stage, before + done, 2 * n)

        scores.append(metric(run_sequences(opener, data.sequences, tell), targets))
    return TaskScore(
        metric=metric.name,
        fp32=scores[0],
        candidate=scores[1],
        worsening=metric.worsening(*scores),
        tolerance=settings.tolerance,
        n_sequences=len(data.sequences),
    )


def _checks(
    twins: Twins,
    found: Comparison,
    stuck: StuckTest,
    task: TaskScore | None,
    settings: GateSettings,
) -> list[Check]:
    deviation = found.deviations[twins.precision]
    control = found.deviations.get(_CONTROL)
    is_chaotic = control is not None and control.sqnr_db < _CHAOS_DB
    compared = [
        _sqnr_check(twins, deviation, found.samples),
        *_stuck_checks(stuck),
        _deviation_check(deviation),
    ]
    if is_chaotic:
        compared = [msgspec.structs.replace(c, verdict="info", reason=_CHAOTIC) for c in compared]
    checks = [_task_check(task)] if task is not None else []
    checks += compared
    if twins.input_limit is not None:
        checks.append(_saturation_check(twins, found.share_beyond))
    checks.append(_control_check(control, has_task=task is not None))
    if settings.n_steps < N_JUDGED_STEPS:
        checks.append(_length_check(settings.n_steps))
    return checks


def _task_check(task: TaskScore) -> Check:
    change = f"{task.worsening:+.3%} worse" if task.worsening > 0 else "no worse"
    is_inside = task.worsening <= task.tolerance
    return Check(
        f"task metric {task.metric}",
        "pass" if is_inside else "fail",
        f"{task.candidate:.6g}, fp32 {task.fp32:.6g}",
        f"at most {task.tolerance:.2%} worse",
        f"{change} on {task.n_sequences} sequences, {_side(is_inside)} the tolerance",
    )


def _side(is_inside: bool) -> str:  # noqa: FBT001 - one argument, named by its value's name
    return "inside" if is_inside else "outside"


def _sqnr_check(twins: Twins, deviation: Deviation, samples: Samples) -> Check:
    by_output = dict(zip(twins.manifest.outputs, deviation.sqnr_db_by_output, strict=True))
    moving = {name: db for name, db in by_output.items() if db is not None}
    worst = min(moving, key=moving.__getitem__, default=None)
    least = min(deviation.sqnr_db, *moving.values()) if moving else deviation.sqnr_db
    verdict: Verdict = "pass" if least >= _PASS_DB else "warn" if least >= _WARN_DB else "fail"
    found = f"{deviation.sqnr_db:.1f} dB"
    if worst is not None and len(moving) > 1:
        found += f"; least {worst} {moving[worst]:.1f} dB"
    reason = f"{least:.1f} dB of signal over quantization noise in {deviation.n_steps} steps"
    if verdict != "pass":
        reason += _grid_hint(twins, samples)
    return Check(
        "streamed SQNR", verdict, found, f">= {_PASS_DB:g} dB (fail < {_WARN_DB:g})", reason
    )


def _grid_hint(twins: Twins, samples: Samples) -> str:
    """Say where a state holds a signal finer than the grid 1/127 of its operand."""
    for info in twins.manifest.states:
        values = samples.fp32[info.name]
        bound: float | None = info.bound
        if bound is None:
            continue
        step = bound / _GRID_STEPS
        deviation = float(np.sqrt(values.astype(np.float64).var(axis=0).mean()))
        fine = float(np.mean(values.std(axis=0) < step))
        if deviation < 8 * step or fine > 0.25:
            return (
                f"; {info.name} varies by {deviation:.2g} (RMS over its units), {fine:.0%} of them "
                f"by less than a step of the grid {step:.2g}: the signal is finer than the grid"
            )
    return ""


def _stuck_checks(stuck: StuckTest) -> list[Check]:
    share = stuck.share
    verdict: Verdict = (
        "pass" if not stuck.n_stuck else "warn" if share <= _WARN_STUCK else "fail"
    )
    where = f"held at the median input for {stuck.n_steps} steps from {stuck.n_trials} states"
    what = f"{stuck.n_stuck} of {stuck.n_moving} moving unit-trials stand still"
    if stuck.worst_unit:
        what += f", most often {stuck.worst_unit}"
    units = Check(
        "stuck units",
        verdict,
        f"{stuck.n_stuck} of {stuck.n_moving} ({share:.1%})",
        f"0 (fail > {_WARN_STUCK:.1%})",
        f"{what}; {where}",
    )
    largest = stuck.largest_std
    settle: Verdict = "pass"
    if not stuck.fp32_settled:
        settle, where = "info", "the float network does not come to rest on it either"
    elif not largest <= _PASS_SETTLE_STD:
        settle = "warn" if largest <= _WARN_SETTLE_STD else "fail"
    return [
        units,
        Check(
            "rest on the median input",
            settle,
            f"{largest:.3f} std",
            f"<= {_PASS_SETTLE_STD:g} std (fail > {_WARN_SETTLE_STD:g})",
            f"outputs end {largest:.3f} std apart; {where}",
        ),
    ]


def _deviation_check(deviation: Deviation) -> Check:
    largest = deviation.largest_std
    return Check(
        "largest deviation",
        "pass" if largest <= _WARN_DEVIATION_STD else "warn",
        f"{largest:.3f} std",
        f"<= {_WARN_DEVIATION_STD:g} std",
        f"no output was ever more than {largest:.3f} std from fp32",
    )


def _saturation_check(twins: Twins, share: Float64) -> Check:
    worst = int(share.argmax())
    name = twins.manifest.schema.names[worst]
    return Check(
        "saturated x",
        "pass" if share[worst] < _WARN_SATURATED else "warn",
        f"{share[worst]:.2e} of {name}",
        f"< {_WARN_SATURATED:g}",
        f"{share[worst]:.2e} of the samples of {name} lie beyond the grid of x",
    )


def _control_check(control: Deviation | None, *, has_task: bool) -> Check:
    name, needs = "control (fp32, biases + 1e-7)", f">= {_CHAOS_DB:g} dB"
    if control is None:
        return Check(name, "info", "-", needs, "no cell has a bias to add to")
    found = f"{control.sqnr_db:.1f} dB"
    if control.sqnr_db >= _CHAOS_DB:
        return Check(name, "pass", found, needs, "the network forgets small differences")
    if has_task:
        reason = "the network is chaotic: only the task metric counts"
        return Check(name, "warn", found, needs, reason)
    reason = "the network is chaotic and there are no targets to judge by: give targets and metric"
    return Check(name, "fail", found, needs, reason)


def _length_check(n_steps: int) -> Check:
    return Check(
        "length of the stream",
        "warn",
        f"{n_steps} steps",
        f">= {N_JUDGED_STEPS}",
        f"{n_steps} steps rank models, they do not accept one",
    )


def _one_step_error(twins: Twins, samples: Samples, output_std: Float64) -> float:
    """Take single steps of both from the same float states; the largest difference in std."""
    places = np.linspace(0, len(samples.x) - 1, _N_SINGLE_STEPS).astype(int)
    std, worst = np.where(output_std > 0, output_std, np.inf), 0.0
    with twins.fp32(_MAX_STREAMS) as right, twins.candidate(_MAX_STREAMS) as candidate:
        for chosen in places.reshape(-1, _MAX_STREAMS):
            outputs = []
            for engine in (right, candidate):
                for k, place in enumerate(chosen.tolist()):
                    values = {name: rows[place] for name, rows in samples.fp32.items()}
                    engine.load_state(k, State(engine.model_hash, 0, values))
                outputs.append(advance(engine, samples.x[chosen]).astype(np.float64))
            worst = max(worst, float((np.abs(outputs[1] - outputs[0]) / std).max()))
    return worst


def _worst_units(samples: Samples, tau: TimeConstants) -> list[Unit]:
    units = [
        Unit(f"{name}[{k}]", float(db), tau.steps[name][k])
        for name, values in unit_sqnr_db(samples).items()
        for k, db in enumerate(values)
        if not math.isnan(db)
    ]
    return sorted(units, key=lambda unit: unit.sqnr_db)[:_N_WORST_UNITS]


def grid_sqnr_db(values: Float32, bound: float) -> float:
    """Tell what rounding a state to the grid ``bound / 127`` leaves of it, in dB."""
    step = np.float32(bound / _GRID_STEPS)
    return sqnr_db(values, (np.rint(values / step) * step).astype(np.float32))


def refusal(judgement: Judgement, recipe: str, alternatives: Sequence[str]) -> str:
    """Say which checks failed and what to do."""
    reasons = "; ".join(f"{check.name}: {check.reason}" for check in judgement.failures)
    others = ", ".join(alternatives) or "fp32"
    return (
        f"recipe {recipe} does not pass the gate: {reasons}. Use another recipe ({others}), or "
        "insist with accept_failure=True (--accept-failure), and the bundle will say so"
    )
