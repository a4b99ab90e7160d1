"""The gate: what a quantized model must pass before it is packed, judged on real streams.

Judged by: the task metric, the streamed SQNR, whether the memory still moves, the largest
deviation. Printed beside, and never judged by, since broken models look well in them: the drift
over the stream and the error of a single step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from edge_gru.engines.base import Float32
from edge_gru.errors import ConfigError
from quantization.calibrate import Calibration
from quantization.checks import CONTROL, N_JUDGED_STEPS, all_checks
from quantization.comparison import (
    Deviation,
    Float64,
    Samples,
    advance,
    compare,
    load_states,
    run_sequences,
)
from quantization.judgement import Judgement, StreamShape, TaskScore, Unit
from quantization.metrics import Metric
from quantization.progress import Progress, silent
from quantization.stream import SLOW_STEPS, JoinedStream, has_slow_stretch, median_input
from quantization.stuck import TimeConstants, stuck_test, time_constants, unit_sqnr_db
from quantization.twins import Opener, Twins

TOLERANCE = 0.005


_MAX_STREAMS = 32
_MIN_STREAM_STEPS = 2000
_FIRST_LOOK_STEPS = 1024
_N_TIME_CONSTANTS = 10  # of the slowest unit, in each stream
_N_SINGLE_STEPS = 256
_N_WORST_UNITS = 8


@dataclass(frozen=True)
class GateSettings:
    """How to judge.

    Attributes:
        metric: of the task; None where there are no targets.
        tolerance: how much worse the metric may get, relative to that of fp32.
        n_steps: samples of the stream; fewer than 100,000 rank, they do not accept.
        seed: of the order in which sequences are joined.
        resets: the product clears its state where a sequence begins, and so does the stream.

    Raises:
        ConfigError: the tolerance is no number.
    """

    metric: Metric | None = None
    tolerance: float = TOLERANCE
    n_steps: int = N_JUDGED_STEPS
    seed: int = 0
    resets: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.tolerance):
            raise ConfigError("expected a tolerance such as 0.005, got nan")


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
        openers[CONTROL] = twins.control
    found = compare(twins.fp32, openers, stream, input_limit=twins.input_limit, progress=progress)
    stuck = stuck_test(twins, found.samples, held, tau, found.output_std)
    task = _task(twins, data, settings, progress)
    control = found.deviations.get(CONTROL)
    judgement = Judgement(
        precision=twins.precision,
        checks=all_checks(twins, found, stuck, task, settings.n_steps),
        task=task,
        control_sqnr_db=None if control is None else control.sqnr_db_middle,
        stuck=stuck,
        time_constants=tau,
        one_step_error_std=_one_step_error(twins, found.samples, found.output_std),
        worst_units=_worst_units(found.samples, tau),
        share_beyond_grid=None if twins.input_limit is None else found.share_beyond.tolist(),
        stream=_shape(stream, data),
    )
    deviations = {name: d for name, d in found.deviations.items() if name != CONTROL}
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
        has_holds=_needs_holds(data, tau_steps) and not settings.resets,
        held=held,
        seed=settings.seed,
        resets=settings.resets,
    )


def _needs_holds(data: Calibration, tau_steps: float) -> bool:
    return tau_steps > SLOW_STEPS and not has_slow_stretch(data.sequences)


def _shape(stream: JoinedStream, data: Calibration) -> StreamShape:
    return StreamShape(
        n_streams=stream.n_streams,
        n_steps=stream.n_samples,
        seed=stream.seed,
        has_holds=stream.has_holds,
        resets=stream.resets,
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


def _one_step_error(twins: Twins, samples: Samples, output_std: Float64) -> float:
    """Take single steps of both from the same float states; the largest difference in std."""
    places = np.linspace(0, len(samples.x) - 1, _N_SINGLE_STEPS).astype(int)
    std, worst = np.where(output_std > 0, output_std, np.inf), 0.0
    with twins.fp32(_MAX_STREAMS) as right, twins.candidate(_MAX_STREAMS) as candidate:
        for chosen in places.reshape(-1, _MAX_STREAMS):
            outputs = []
            for engine in (right, candidate):
                load_states(engine, {name: rows[chosen] for name, rows in samples.fp32.items()})
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
