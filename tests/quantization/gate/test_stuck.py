from __future__ import annotations

import numpy as np
import pytest

from quantization.comparison import compare
from quantization.stream import JoinedStream, median_input
from quantization.stuck import _from_gates, _from_settling, stuck_test, time_constants


@pytest.fixture(scope="module")
def looked(long_memory_task):
    twins, sequences = long_memory_task.twins, long_memory_task.judged.sequences
    held = median_input(sequences)
    stream = JoinedStream(sequences, 8, 4000, has_holds=False, held=held)
    return twins, held, compare(twins.fp32, {"int8": twins.candidate}, stream)


def test_time_constants_from_the_gates_are_those_that_were_built(looked):
    twins, _, found = looked
    steps = np.array(_from_gates(twins, found.samples)["state_00_h"])
    assert steps[:8] == pytest.approx([20, 38.6, 74.6, 143.9, 300, 536, 1036, 2000], rel=0.15)


def test_letting_go_measures_the_same_where_there_is_no_gate(looked):
    twins, held, found = looked
    settled = np.array(_from_settling(twins, found.samples, held)["state_00_h"])
    gates = np.array(_from_gates(twins, found.samples)["state_00_h"])
    assert settled[1:6] == pytest.approx(gates[1:6], rel=0.3)


def test_where_gates_are_not_known_it_is_told(looked, monkeypatch):
    twins, held, found = looked
    monkeypatch.setattr("quantization.stuck._RETENTION", {})
    tau = time_constants(twins, found.samples, held)
    assert tau.measured == "settling"
    assert 500 < tau.largest < 3000


def test_rec_moves_and_an_int8_state_does_not(looked, long_memory_task, defect):
    twins, held, found = looked
    tau = time_constants(twins, found.samples, held)
    good = stuck_test(twins, found.samples, held, tau, found.output_std)
    assert (good.n_stuck, good.n_steps) == (0, 6000)
    assert good.largest_std < 0.05
    planted = defect(long_memory_task).narrow("state_00_h_out", 1 / 127).twins()
    bad = stuck_test(planted, found.samples, held, tau, found.output_std)
    assert bad.n_moving == good.n_moving
    assert bad.share > 0.3
    assert bad.largest_std > 0.15


def test_a_finer_state_is_stuck_less(looked, long_memory_task, defect):
    twins, held, found = looked
    tau = time_constants(twins, found.samples, held)
    shares = []
    for steps in (127, 2047, 32767):
        planted = defect(long_memory_task).narrow("state_00_h_out", 1 / steps, steps).twins()
        shares.append(stuck_test(planted, found.samples, held, tau, found.output_std).share)
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 0.01
