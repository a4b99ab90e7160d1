from __future__ import annotations

import math

import pytest

from edge_gru.errors import ConfigError
from edge_gru.manifest import Alert
from edge_gru.service.alerts import AlertRule

ALERT = Alert("wear", "y.wear", enter=0.8, exit=0.6, for_s=1.0)


def changes(readings: list[tuple[float, float]], alert: Alert = ALERT) -> list[tuple[float, bool]]:
    rule = AlertRule(alert, ("load", "wear"))
    found = []
    for t_s, value in readings:
        change = rule.update(t_s, (0.0, value), is_warming_up=False)
        if change is not None:
            found.append((t_s, change.active))
    return found


def test_fires_after_for_s_above_enter_and_clears_below_exit():
    readings = [(0, 0.9), (0.5, 0.9), (1.0, 0.9), (1.5, 0.9), (2.0, 0.7), (3.0, 0.5), (4.0, 0.5)]
    assert changes(readings) == [(1.0, True), (3.0, False)]


def test_a_dip_below_enter_starts_the_time_anew():
    assert changes([(0, 0.9), (0.9, 0.7), (1.0, 0.9), (1.9, 0.9), (2.0, 0.9)]) == [(2.0, True)]


def test_at_the_thresholds_nothing_changes():
    assert changes([(0, 0.8), (5, 0.8)]) == []
    assert changes([(0, 0.9), (1, 0.9), (2, 0.6)]) == [(1, True)]


def test_without_for_s_it_fires_at_once():
    assert changes([(0, 0.9)], Alert("wear", "wear", 0.8, 0.6)) == [(0, True)]


def test_time_that_runs_back_starts_anew():
    assert changes([(10, 0.9), (1, 0.9), (1.5, 0.9), (2, 0.9)]) == [(2, True)]


def test_not_a_number_neither_fires_nor_clears():
    readings = [(0, 0.9), (0.9, math.nan), (1.0, 0.9), (2.0, 0.9), (3.0, math.nan)]
    assert changes(readings) == [(2.0, True)]


def test_warming_up_never_fires_and_starts_the_time_anew():
    rule = AlertRule(ALERT, ("wear",))
    assert rule.update(0, (0.9,), is_warming_up=False) is None
    assert rule.update(5, (0.9,), is_warming_up=True) is None
    assert rule.update(6, (0.9,), is_warming_up=False) is None
    assert rule.update(7, (0.9,), is_warming_up=False) is not None


def test_an_active_alert_survives_warming_up():
    rule = AlertRule(Alert("wear", "wear", 0.8, 0.6), ("wear",))
    rule.update(0, (0.9,), is_warming_up=False)
    assert rule.update(1, (0.1,), is_warming_up=True) is None
    assert rule.is_active


@pytest.mark.parametrize(
    ("alert", "sentence"),
    [
        (Alert("a", "y.wearr", 0.8, 0.6), "expected an output of load, wear, got 'y.wearr'"),
        (Alert("a", "wear", 0.6, 0.8), "expected exit <= enter"),
        (Alert("a", "wear", math.nan, 0.8), "expected exit <= enter"),
        (Alert("a", "wear", 0.8, 0.6, -1), "for_s >= 0"),
    ],
)
def test_rule_that_makes_no_sense_is_refused(alert: Alert, sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        AlertRule(alert, ("load", "wear"))
