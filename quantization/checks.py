"""The checks of the gate: what passes, what warns, what fails, and the sentence that says why."""

from __future__ import annotations

import msgspec
import numpy as np

from quantization.comparison import Comparison, Deviation, Float64, Samples
from quantization.judgement import Check, TaskScore, Verdict
from quantization.saturation import saturation
from quantization.stuck import StuckTest
from quantization.twins import FLOAT, Twins

CONTROL = "control"
CONTROL_CHECK = "control (fp32, biases + 1e-7)"
N_JUDGED_STEPS = 100_000

_PASS_DB, _WARN_DB = 40.0, 30.0
_WARN_STUCK = 0.005
_PASS_SETTLE_STD, _WARN_SETTLE_STD = 0.05, 0.15
_WARN_DEVIATION_STD = 0.25
_WARN_SATURATED = 1e-4
_CHAOS_DB = 100.0  # of the middle stream: chaos parts all of them
_CHAOS_MARGIN_DB = 55.0  # above the SQNR judged; measured: chaos 49, outputs that hardly move 68
_RARE_DB = 6.0

_GRID_STEPS = 127
_COARSE_STEPS = 8  # a signal of fewer is lost in the rounding of its operand
_MANY_FINE = 0.25  # of the units
_CHAOTIC = "the network is chaotic (see control): streams part whatever is quantized"


def all_checks(
    twins: Twins,
    found: Comparison,
    stuck: StuckTest,
    task: TaskScore | None,
    n_steps: int,
) -> list[Check]:
    """Judge everything that was found on a stream of ``n_steps`` samples."""
    deviation = found.deviations[twins.precision]
    control = found.deviations.get(CONTROL)
    is_float = twins.precision == FLOAT
    is_chaotic = not is_float and control is not None and _is_chaotic(control, deviation)
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
    checks += _operand_check(saturation(twins, found.samples))
    if is_float:
        checks.append(Check(CONTROL_CHECK, "info", "-", "nothing", "nothing is quantized"))
    else:
        checks.append(_control_check(control, is_chaotic=is_chaotic, has_task=task is not None))
    if n_steps < N_JUDGED_STEPS:
        checks.append(_length_check(n_steps))
    return checks


def _task_check(task: TaskScore) -> Check:
    change = f"{task.worsening:+.3%} worse" if task.worsening > 0 else "no worse"
    is_inside = task.worsening <= task.tolerance
    side = "inside" if is_inside else "outside"
    return Check(
        f"task metric {task.metric}",
        "pass" if is_inside else "fail",
        f"{task.candidate:.6g}, fp32 {task.fp32:.6g}",
        f"at most {task.tolerance:.2%} worse",
        f"{change} on {task.n_sequences} sequences, {side} the tolerance",
    )


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
        reason += _event_hint(deviation) or _grid_hint(twins, samples)
    return Check(
        "streamed SQNR", verdict, found, f">= {_PASS_DB:g} dB (fail < {_WARN_DB:g})", reason
    )


def _event_hint(deviation: Deviation) -> str:
    """Say where a few events make most of the noise."""
    if deviation.sqnr_db_middle < deviation.sqnr_db + _RARE_DB:
        return ""
    return (
        f"; a few events make it, the middle stream has {deviation.sqnr_db_middle:.1f} dB: if the "
        "product clears its state where a sequence begins, judge it so (resets)"
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
        if deviation < _COARSE_STEPS * step or fine > _MANY_FINE:
            return (
                f"; {info.name} varies by {deviation:.2g} (RMS over its units), {fine:.0%} of them "
                f"by less than a step of the grid {step:.2g}: the signal is finer than the grid"
            )
    return ""


def _stuck_checks(stuck: StuckTest) -> list[Check]:
    share = stuck.share
    verdict: Verdict = "pass" if not stuck.n_stuck else "warn" if share <= _WARN_STUCK else "fail"
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
    return [units, _rest_check(stuck, where)]


def _rest_check(stuck: StuckTest, where: str) -> Check:
    name = "rest on the median input"
    needs = f"<= {_PASS_SETTLE_STD:g} std (fail > {_WARN_SETTLE_STD:g})"
    n_decided = stuck.n_trials - stuck.n_undecided
    if n_decided < stuck.n_trials // 2:
        reason = f"fp32 itself comes to one place of rest from {n_decided} of {stuck.n_trials} only"
        return Check(name, "info", "-", needs, reason)
    largest = stuck.largest_std
    verdict: Verdict = "pass"
    if not largest <= _PASS_SETTLE_STD:
        verdict = "warn" if largest <= _WARN_SETTLE_STD else "fail"
    if stuck.n_undecided:
        where += f", {n_decided} of which fp32 leads to one place of rest"
    reason = f"outputs end {largest:.3f} std apart; {where}"
    return Check(name, verdict, f"{largest:.3f} std", needs, reason)


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


def _operand_check(shares: dict[str, float]) -> list[Check]:
    if not shares:
        return []
    worst = max(shares, key=shares.__getitem__)
    share = shares[worst]
    return [
        Check(
            "saturated operands",
            "pass" if share < _WARN_SATURATED else "warn",
            f"{share:.2e}",
            f"< {_WARN_SATURATED:g}",
            f"{share:.2e} of the values of {worst} lie beyond its grid: calibrate on more data, "
            "or give it more head_room",
        )
    ]


def _is_chaotic(control: Deviation, deviation: Deviation) -> bool:
    """Tell whether a difference of 1e-7 grows to the size of what quantization does.

    Outputs that hardly move put it below the first limit too, but far above the second.
    """
    limit = min(_CHAOS_DB, deviation.sqnr_db_middle + _CHAOS_MARGIN_DB)
    return control.sqnr_db_middle < limit


def _control_check(control: Deviation | None, *, is_chaotic: bool, has_task: bool) -> Check:
    name, needs = CONTROL_CHECK, f">= {_CHAOS_DB:g} dB, or far above"
    if control is None:
        return Check(name, "info", "-", needs, "no cell has a bias to add to")
    found = f"{control.sqnr_db_middle:.1f} dB"
    if not is_chaotic:
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
