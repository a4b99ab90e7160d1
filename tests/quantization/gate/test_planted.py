"""What breaks a memory must not pass, whichever part of the gate finds it."""

from __future__ import annotations

import numpy as np
import pytest

from edge_gru.engines.products import UNIT_SCALE
from quantization.gate import GateSettings, judge
from quantization.metrics import METRICS

SETTINGS = GateSettings(METRICS["rmse"])
SHORTER = GateSettings(METRICS["rmse"], n_steps=30_000)


def verdicts(judgement):
    return {check.name: check.verdict for check in judgement.checks}


def test_rec_passes_on_a_long_memory_with_60_db(long_memory_task):
    evidence = judge(long_memory_task.twins, long_memory_task.judged, SETTINGS)
    found = evidence.judgement
    assert evidence.deviations["int8"].sqnr_db >= 60
    assert set(verdicts(found).values()) == {"pass"}, found.checks
    assert found.stuck.n_moving > 100
    assert found.stuck.n_stuck == 0
    assert found.time_constants.measured == "gates"
    assert found.time_constants.steps["state_00_h"][4] == pytest.approx(300, rel=0.1)
    assert found.stream.n_steps >= 100_000


def test_an_int8_state_fails(long_memory_task, defect):
    planted = defect(long_memory_task).narrow("state_00_h_out", float(UNIT_SCALE))
    found = judge(planted.twins(), long_memory_task.judged, SHORTER).judgement
    assert found.verdict == "fail"
    assert verdicts(found)["stuck units"] == "fail"
    assert verdicts(found)["streamed SQNR"] == "fail"
    assert found.stuck.share > 0.3
    assert found.stuck.worst_unit


def test_an_int8_state_fails_without_targets_too(long_memory_task, defect):
    planted = defect(long_memory_task).narrow("state_00_h_out", float(UNIT_SCALE))
    found = judge(planted.twins(), long_memory_task.judged, GateSettings(n_steps=30_000)).judgement
    assert {c.name for c in found.failures} >= {"stuck units", "rest on the median input"}


def test_gates_from_an_int8_table_fail(long_memory_task, defect):
    planted = defect(long_memory_task)
    for gate in planted.outputs_of("Sigmoid"):
        planted.narrow(gate, 1 / 256, 255)
    found = judge(planted.twins(), long_memory_task.judged, SHORTER).judgement
    assert found.verdict == "fail"
    assert verdicts(found)["task metric rmse"] == "fail"


def test_rec_passes_on_spiky_sensors(wear_task):
    found = judge(wear_task.twins, wear_task.judged, SETTINGS).judgement
    assert found.verdict == "pass", found.checks


def test_one_scale_for_x_and_h_fails_on_spiky_sensors(wear_task, defect):
    shared = float(max(np.abs(s).max() for s in wear_task.judged.sequences)) / 127
    planted = defect(wear_task).narrow("x", shared)
    planted.narrow("state_00_h", shared, readers=("QuantizeLinear",))
    found = judge(planted.twins(), wear_task.judged, SETTINGS).judgement
    assert found.verdict == "fail", found.checks
    assert verdicts(found)["streamed SQNR"] == "fail"
