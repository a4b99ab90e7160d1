from __future__ import annotations

import math

import pytest

from edge_gru.store import TrialJudge, TrialLimits


def judge(**limits) -> TrialJudge:
    return TrialJudge(TrialLimits(n_constant=5, silence_s=10, **limits))


def test_changing_outputs_are_fine():
    judged = judge()
    for k in range(100):
        judged.observe((k,), (k % 2, 0.0))
    assert judged.fault is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_output_that_is_not_finite_is_a_fault_at_once(value):
    judged = judge()
    judged.observe((1.0,), (0.0, value))
    assert judged.fault == "its output is not finite"
    judged.observe((1.0,), (0.0, 1.0))
    assert judged.fault


def test_same_output_to_other_samples_is_a_fault():
    judged = judge()
    for k in range(4):
        judged.observe((k,), (0.5,))
    assert judged.fault is None
    judged.observe((4,), (0.5,))
    assert judged.fault == "its output is the same in 5 predictions"


def test_same_output_to_a_sensor_that_stands_still_is_none():
    judged = judge()
    for _ in range(100):
        judged.observe((1.0,), (0.5,))
    assert judged.fault is None
    judged.observe((2.0,), (0.5,))
    assert judged.fault


def test_model_that_may_repeat_itself_is_not_asked():
    judged = TrialJudge(TrialLimits(n_constant=None))
    for k in range(2000):
        judged.observe((k,), (0.0,))
    assert judged.fault is None
    judged.observe((0.0,), (math.nan,))
    assert judged.fault


def test_seconds_with_predictions_are_good_service():
    judged = judge()
    for second in range(11):
        judged.look(second, n_arrived=second * 100, n_answered=second * 100, p99_us=50)
    assert judged.take_served() == 10
    assert judged.take_served() == 0


def test_time_without_samples_is_neither_good_nor_bad():
    judged = judge()
    for second in range(1000):
        judged.look(second, n_arrived=7, n_answered=7, p99_us=50)
    assert (judged.served_s, judged.fault) == (0, None)


def test_samples_without_answers_are_a_fault_after_a_while():
    judged = judge()
    for second in range(10):
        judged.look(second, n_arrived=second, n_answered=0, p99_us=50)
        assert judged.fault is None
    judged.look(10, n_arrived=10, n_answered=0, p99_us=50)
    assert judged.fault == "samples came for 10 s and it answered none"


def test_an_answer_in_time_begins_the_silence_anew():
    judged = judge()
    for second in range(100):
        judged.look(second, n_arrived=second, n_answered=second // 5, p99_us=50)
    assert judged.fault is None


def test_time_in_which_nobody_looked_does_not_count_in_full():
    judged = judge()
    judged.look(0, n_arrived=0, n_answered=0, p99_us=0)
    judged.look(1000, n_arrived=1, n_answered=1, p99_us=0)
    assert judged.served_s == 5


def test_latency_over_the_limit_is_a_fault_once_it_is_measured():
    judged = judge(p99_us=1000)
    judged.look(0, n_arrived=9, n_answered=9, p99_us=5000)
    assert judged.fault is None
    judged.look(1, n_arrived=200, n_answered=200, p99_us=1001)
    assert judged.fault == "its p99 is 1001 us, over the limit of 1000 us"
