"""When wear is called, and how a call is judged."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from quantization.examples import EXAMPLES
from quantization.examples.pump.alert import AlertRule, Outcome, first_call_s

RULE = AlertRule(enter=0.5, exit=0.3, for_s=0.3)


def wear(*parts):
    return np.concatenate([np.full(n, value) for n, value in parts])


def test_called_once_the_threshold_has_held_for_long_enough():
    assert first_call_s(wear((20, 0.0), (50, 0.6)), 10.0, RULE) == pytest.approx(2.3)


def test_not_called_when_it_holds_one_sample_too_short():
    assert first_call_s(wear((20, 0.0), (3, 0.6), (20, 0.4)), 10.0, RULE) is None
    assert first_call_s(wear((20, 0.0), (4, 0.6), (20, 0.4)), 10.0, RULE) == pytest.approx(2.3)


def test_on_the_threshold_is_not_above_it():
    assert first_call_s(wear((50, 0.5)), 10.0, RULE) is None


def test_called_at_once_where_it_need_not_hold():
    assert first_call_s(wear((7, 0.0), (1, 0.6)), 10.0, AlertRule(0.5, 0.3, 0.0)) == 0.7


def test_recording_shorter_than_the_hold_calls_nothing():
    assert first_call_s(wear((2, 0.9)), 10.0, RULE) is None


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome(math.inf, None), None),
        (Outcome(math.inf, 3.0), "false_alarm"),
        (Outcome(8.0, 7.9), "false_alarm"),
        (Outcome(8.0, None), "missed"),
        (Outcome(8.0, 9.5), "detected"),
    ],
)
def test_outcomes_are_told_apart(outcome, kind):
    kinds = [k for k in ("false_alarm", "missed", "detected") if getattr(outcome, k)]
    assert kinds == ([] if kind is None else [kind])


def test_delay_counts_from_the_onset():
    assert Outcome(8.0, 9.5).delay_s == 1.5
    assert Outcome(8.0, None).delay_s == math.inf


def test_splits_share_no_machine_and_hold_healthy_pumps_of_two_minutes():
    example = EXAMPLES["pump"]
    scenarios = {split: example.scenarios(split) for split in ("train", "validation", "test")}
    seeds = [scenario.seed for part in scenarios.values() for scenario in part]
    assert len(set(seeds)) == len(seeds)
    assert len(scenarios["test"]) == 200
    for part in scenarios.values():
        assert sum(s.onset_s == math.inf and s.duration_s == 120 for s in part) >= 5


def test_scenarios_are_the_same_every_time():
    first, second = (EXAMPLES["pump"].scenarios("validation") for _ in range(2))
    assert [astuple(s) for s in first] == [astuple(s) for s in second]


def test_truth_as_output_misses_nothing():
    example = EXAMPLES["pump"]
    truth = [target[:, None] for target in example.targets("validation")]
    score = example.metric(truth, "validation")
    assert score["rmse_wear"] == score["n_false_alarms"] == score["n_missed"] == 0
