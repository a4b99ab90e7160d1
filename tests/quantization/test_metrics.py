from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gru.errors import ConfigError, DataError
from quantization.metrics import METRICS, Metric, find_metric

SCORES = [np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)]
VALUES = [np.array([[1.0], [2.0], [4.0]], np.float32), np.array([[0.0], [3.0]], np.float32)]


def test_accuracy_of_every_step_and_of_the_last():
    assert METRICS["accuracy"](SCORES, [np.array([0, 1, 1])]) == pytest.approx(2 / 3)
    assert METRICS["accuracy"](SCORES, [np.array(0)]) == 1.0


def test_negative_classes_have_no_label():
    assert METRICS["accuracy"](SCORES, [np.array([-1, 1, -1])]) == 1.0


def test_macro_f1_weighs_the_classes_that_occur_alike():
    truth = np.array([0, 0, 1])
    assert METRICS["macro_f1"](SCORES, [truth]) == pytest.approx((0.5 + 0.0) / 2)
    assert METRICS["macro_f1"](SCORES, [np.array([0, 1, 0])]) == 1.0


def test_errors_of_values():
    targets = [np.array([1.0, 1.0, 1.0]), np.array([[np.nan], [3.0]])]
    assert METRICS["rmse"](VALUES, targets) == pytest.approx(np.sqrt(10 / 4))
    assert METRICS["mae"](VALUES, targets) == pytest.approx(1.0)
    assert METRICS["esr"](VALUES, targets) == pytest.approx(10 / 12)


def test_rmse_of_the_last_step_alone():
    assert METRICS["rmse"](VALUES, [np.array(4.0), np.array([2.0])]) == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "reason"),
    [
        ("accuracy", SCORES, [np.array([0, 1, 2])], "class indices from 0 to 1, got 2"),
        ("accuracy", SCORES, [np.array([-1, -1, -1])], "got none"),
        ("accuracy", VALUES, [np.zeros(3), np.zeros(2)], "one output for each class"),
        ("rmse", SCORES, [np.zeros(3)], "a target for each of 2 outputs, got 1"),
        ("rmse", VALUES[:1], [np.zeros(7)], r"got \(7,\) for sequence 0"),
        ("mae", VALUES[:1], [np.full(3, np.nan)], "expected finite targets"),
        ("esr", VALUES[:1], [np.zeros(3)], "expected a finite esr"),
    ],
)
def test_targets_that_do_not_fit_are_one_sentence(metric, outputs, targets, reason):
    with pytest.raises(DataError, match=reason):
        METRICS[metric](outputs, targets)


def test_a_function_of_the_user_is_a_metric_whose_direction_is_not_known():
    def distance(outputs, targets):
        return len(outputs) + len(targets)

    metric = find_metric(distance, has_targets=True)
    assert (metric.name, metric(SCORES, [np.zeros(3)])) == ("distance", 2.0)
    assert metric.worsening(2.0, 1.9) == metric.worsening(2.0, 2.1) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("metric", "has_targets", "reason"),
    [
        ("beauty", True, "of accuracy, macro_f1, rmse, mae, esr, got 'beauty'"),
        ("rmse", False, "got metric without targets"),
        (None, True, "got targets without metric"),
    ],
)
def test_half_a_task_is_refused(metric, has_targets, reason):
    with pytest.raises(ConfigError, match=reason):
        find_metric(metric, has_targets=has_targets)


_positive = st.floats(1e-3, 1e3)


@given(_positive, _positive)
def test_worsening_has_a_direction(reference, found):
    more = Metric("m", lambda *_: 0.0, more_is_better=True)
    less = Metric("m", lambda *_: 0.0, more_is_better=False)
    assert (more.worsening(reference, found) > 0) == (found < reference)
    assert less.worsening(reference, found) == -more.worsening(reference, found)
    assert less.worsening(0.0, found) == found


def test_an_error_that_is_a_ratio_already_worsens_by_its_difference():
    esr = find_metric("esr", has_targets=True)
    assert esr.worsening(1e-8, 0.004) == pytest.approx(0.004, rel=1e-4)
    assert find_metric("rmse", has_targets=True).worsening(1e-8, 0.004) > 1000
