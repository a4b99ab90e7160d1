from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_gru.engines.base import EngineSource, HostStateEngine
from edge_gru.errors import ConfigError, GateError
from edge_gru.manifest import InputRange
from quantization import checks, quantize
from quantization.calibrate import Calibration, check_sequences
from quantization.comparison import Comparison, Deviation, Samples
from quantization.gate import GateSettings, judge
from quantization.judgement import TaskScore
from quantization.metrics import METRICS, Metric
from quantization.report import report_of
from quantization.stuck import StuckTest
from quantization.twins import nudged, twins_of

SHORT = GateSettings(n_steps=4000)


class Noisy(HostStateEngine):
    """What fp32 answers, with noise on every output; its states are those of fp32."""

    def __init__(self, inner, std):
        super().__init__(EngineSource(inner.manifest, {}), inner.n_streams)
        self._inner, self._std, self._rng = inner, std, np.random.default_rng(0)

    def _advance(self, x, states):
        y, new = self._inner._advance(x, states)
        return y + (self._std * self._rng.normal(size=y.shape)).astype(np.float32), new


@pytest.fixture
def twins(gru_file, write, sequences):
    return twins_of(quantize(write(gru_file), sequences).source)


@pytest.fixture
def data(sequences):
    return check_sequences(sequences * 4, None)


def by_name(judgement):
    return {check.name.split(" (")[0]: check for check in judgement.checks}


def noisy(twins, std):
    return replace(twins, candidate=lambda n: Noisy(twins.fp32(n), std), others={})


def test_the_model_against_itself_passes(twins, data):
    found = judge(replace(twins, candidate=twins.fp32), data).judgement
    assert found.verdict == "pass"
    assert found.one_step_error_std == 0


def test_few_steps_rank_and_do_not_accept(twins, data):
    found = judge(twins, data, SHORT).judgement
    assert found.verdict == "warn"
    assert "do not accept" in by_name(found)["length of the stream"].reason
    assert found.stream.n_steps >= 4000


@pytest.mark.parametrize(("std", "verdict"), [(1e-4, "pass"), (3e-3, "warn"), (0.1, "fail")])
def test_noise_is_judged_by_how_much_signal_it_leaves(twins, data, std, verdict):
    found = judge(noisy(twins, std), data, SHORT).judgement
    assert by_name(found)["streamed SQNR"].verdict == verdict


def test_outside_its_tolerance_the_task_decides_alone(twins, data):
    targets = tuple(np.zeros(len(s)) for s in data.sequences)
    labelled = Calibration(data.sequences, targets)

    def score(outputs, _):
        return 1.0 if {float(y[0, 0]) for y in outputs} else 0.0

    steady = GateSettings(Metric("steady", score), n_steps=4000)
    assert by_name(judge(twins, labelled, steady).judgement)["task metric steady"].verdict == "pass"
    calls = iter([1.0, 0.99])
    worse = GateSettings(Metric("m", lambda *_: next(calls), more_is_better=True), n_steps=4000)
    found = judge(twins, labelled, worse).judgement
    assert [check.name for check in found.failures] == ["task metric m"]
    assert found.task.worsening == pytest.approx(0.01)
    calls = iter([1.0, 0.99])
    wider = replace(worse, tolerance=0.02)
    assert not judge(twins, labelled, wider).judgement.failures


def test_of_a_chaotic_network_only_the_task_counts(gru_file, write, sequences, data):
    gru_file.weights["r"] = gru_file.weights["r"] * 40  # the smallest difference grows
    gru_file.weights["b"][0, :5] = -4
    twins = twins_of(quantize(write(gru_file), sequences, accept_failure=True).source)
    found = judge(twins, data, SHORT).judgement
    assert found.control_sqnr_db < 100
    assert [check.name.split(" (")[0] for check in found.failures] == ["control"]
    assert by_name(found)["streamed SQNR"].verdict == "info"
    assert "give targets and metric" in found.failures[0].reason
    labelled = Calibration(data.sequences, tuple(np.zeros(()) for _ in data.sequences))
    metric = Metric("finite", lambda y, _: float(np.isfinite(np.concatenate(y)).all()))
    found = judge(twins, labelled, replace(SHORT, metric=metric)).judgement
    assert by_name(found)["control"].verdict == "warn"
    assert not found.failures


def test_what_is_not_quantized_is_not_refused(gru_file, write, sequences):
    gru_file.weights["r"] = gru_file.weights["r"] * 40
    gru_file.weights["b"][0, :5] = -4
    bundle = quantize(write(gru_file), sequences, recipe="fp32")
    assert bundle.manifest.gate.verdict == "pass"
    checks_of = {c["name"]: c for c in report_of(bundle)["gate"]["checks"]}
    assert checks_of[checks.CONTROL_CHECK]["verdict"] == "info"


def test_the_control_moves_every_bias_and_little(twins):
    control = nudged(twins.source)
    before, after = (
        [p for name, p in sorted(source.parts.items()) if name.startswith("fp32")]
        for source in (twins.source, control)
    )
    assert before != after
    with twins.fp32(1) as right, twins.control(1) as moved:
        x = np.ones(3, np.float32)
        difference = np.abs(right.step(x) - moved.step(x)).max()
    assert 0 < difference < 1e-5


def test_saturated_inputs_warn(twins, data):
    limit = InputRange((-100.0, -100.0, -1.0), (100.0, 100.0, 1.0))
    found = judge(replace(twins, input_limit=limit), data, SHORT).judgement
    assert by_name(found)["saturated x"].verdict == "warn"
    assert "of ch2" in by_name(found)["saturated x"].found
    assert found.share_beyond_grid[0] == 0


def test_a_model_that_fails_is_refused_with_reasons_and_what_to_do(gru_file, write, sequences):
    targets = [np.zeros(len(sequence)) for sequence in sequences]
    calls = iter([1.0, 2.0])
    with pytest.raises(GateError, match="recipe rec does not pass the gate: task metric") as caught:
        quantize(write(gru_file), sequences, targets=targets, metric=lambda *_: next(calls))
    assert "another recipe (rec-hilo, fp16, fp32, auto)" in str(caught.value)
    assert "--accept-failure" in str(caught.value)
    assert caught.value.report["gate"]["verdict"] == "fail"


def test_whoever_insists_gets_a_bundle_that_says_so(gru_file, write, sequences):
    targets = [np.zeros(len(sequence)) for sequence in sequences]
    calls = iter([1.0, 2.0])
    bundle = quantize(
        write(gru_file),
        sequences,
        targets=targets,
        metric=lambda *_: next(calls),
        accept_failure=True,
    )
    assert bundle.manifest.gate.verdict == "fail"
    assert "outside the tolerance" in bundle.manifest.gate.reasons[0]


def test_a_pass_is_in_the_manifest_too(gru_file, write, sequences):
    gate = quantize(write(gru_file), sequences, recipe="fp32").manifest.gate
    assert (gate.verdict, gate.reasons) == ("pass", ())


DEVIATION = Deviation(
    sqnr_db=60.0,
    sqnr_db_middle=60.0,
    sqnr_db_by_output=[60.0, None],
    largest=0.1,
    largest_std=0.01,
    last_over_first=1.0,
    over_time_std=[],
    n_steps=100_000,
)
STUCK = StuckTest(
    n_trials=24, n_undecided=0, n_steps=200, n_moving=1000, n_stuck=0, largest_std=0.0,
    worst_unit="",
)  # fmt: skip
TASK = TaskScore(
    metric="rmse", fp32=1.0, candidate=1.0, worsening=0.0, tolerance=0.005, n_sequences=3
)


def verdict_of(twins, name, *, deviation=None, stuck=None, control=None, task=None):
    samples = Samples(np.zeros((4, 3)), {"state_00_h": np.zeros((4, 5))}, {})
    found = Comparison(
        {
            "int8": msgspec.structs.replace(DEVIATION, **(deviation or {})),
            "control": msgspec.structs.replace(DEVIATION, sqnr_db_middle=130.0, **(control or {}))
            if not control
            else msgspec.structs.replace(DEVIATION, **control),
        },
        samples,
        np.ones(2),
        np.zeros(3),
    )
    rows = checks.all_checks(
        twins,
        found,
        msgspec.structs.replace(STUCK, **(stuck or {})),
        msgspec.structs.replace(TASK, **task) if task else None,
        100_000,
    )
    return next(row.verdict for row in rows if row.name.startswith(name))


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("streamed", {"deviation": {"sqnr_db": 40.0}}, "pass"),
        ("streamed", {"deviation": {"sqnr_db": 39.9}}, "warn"),
        ("streamed", {"deviation": {"sqnr_db": 30.0}}, "warn"),
        ("streamed", {"deviation": {"sqnr_db": 29.9}}, "fail"),
        ("streamed", {"deviation": {"sqnr_db_by_output": [29.9, 80.0]}}, "fail"),
        ("stuck", {"stuck": {"n_stuck": 1}}, "warn"),
        ("stuck", {"stuck": {"n_stuck": 5}}, "warn"),
        ("stuck", {"stuck": {"n_stuck": 6}}, "fail"),
        ("stuck", {"stuck": {"n_moving": 0}}, "pass"),
        ("rest", {"stuck": {"largest_std": 0.05}}, "pass"),
        ("rest", {"stuck": {"largest_std": 0.15}}, "warn"),
        ("rest", {"stuck": {"largest_std": 0.16}}, "fail"),
        ("rest", {"stuck": {"largest_std": float("inf")}}, "fail"),
        ("rest", {"stuck": {"largest_std": 9.0, "n_undecided": 13}}, "info"),
        ("largest", {"deviation": {"largest_std": 0.25}}, "pass"),
        ("largest", {"deviation": {"largest_std": 0.26}}, "warn"),
        ("control", {"control": {"sqnr_db_middle": 100.0}}, "pass"),
        ("control", {"control": {"sqnr_db_middle": 99.0}}, "fail"),
        ("stuck", {"stuck": {"n_stuck": 500}, "control": {"sqnr_db_middle": 99.0}}, "info"),
        ("task", {"task": {"worsening": 0.005}}, "pass"),
        ("task", {"task": {"worsening": 0.0051}}, "fail"),
        ("task", {"task": {"worsening": -3.0}}, "pass"),
    ],
)
def test_limits_are_where_they_are_said_to_be(long_memory_task, name, changes, verdict):
    assert verdict_of(long_memory_task.twins, name, **changes) == verdict


def test_a_few_events_are_told_from_noise(twins):
    deviation = msgspec.structs.replace(DEVIATION, sqnr_db=25.0, sqnr_db_middle=50.0)
    samples = Samples(np.zeros((4, 3)), {"state_00_h": np.zeros((4, 5))}, {})
    found = Comparison({"int8": deviation}, samples, np.ones(2), np.zeros(3))
    rows = checks.all_checks(twins, found, STUCK, None, 100_000)
    assert "a few events make it, the middle stream has 50.0 dB" in rows[0].reason


def test_a_signal_finer_than_the_grid_is_named(twins):
    deviation = msgspec.structs.replace(DEVIATION, sqnr_db=10.0, sqnr_db_middle=10.0)
    fine = 0.001 * np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    samples = Samples(np.zeros((100, 3)), {"state_00_h": fine}, {})
    found = Comparison({"int8": deviation}, samples, np.ones(2), np.zeros(3))
    rows = checks.all_checks(twins, found, STUCK, None, 100_000)
    assert "the signal is finer than the grid" in rows[0].reason


def test_same_data_give_the_same_judgement(twins, data):
    settings = replace(SHORT, metric=METRICS["rmse"])
    labelled = Calibration(data.sequences, tuple(np.zeros((len(s), 2)) for s in data.sequences))
    first, second = (judge(twins, labelled, settings).judgement for _ in range(2))
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


def test_outputs_that_hardly_move_are_not_called_chaos(twins):
    weak = {"deviation": {"sqnr_db_middle": 16.0}, "control": {"sqnr_db_middle": 84.0}}
    assert verdict_of(twins, "control", **weak) == "pass"
    weak["control"] = {"sqnr_db_middle": 65.0}
    assert verdict_of(twins, "control", **weak) == "fail"


def test_tolerance_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="got nan"):
        GateSettings(tolerance=float("nan"))
