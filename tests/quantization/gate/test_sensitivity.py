from __future__ import annotations

import numpy as np
import pytest

from quantization.gate import GateSettings, judge
from quantization.sensitivity import sensitivity


@pytest.fixture(scope="module")
def rows(wear_task):
    evidence = judge(wear_task.twins, wear_task.judged, GateSettings(n_steps=20_000))
    found = sensitivity(wear_task.twins, evidence.stream, evidence.samples)
    return {(row.kind, row.tensor): row for row in found}, evidence


def test_every_tensor_that_could_be_narrowed_is_there_once_and_sorted(rows):
    found, _ = rows
    kinds = [kind for kind, _ in found]
    assert (kinds.count("weight"), kinds.count("operand"), kinds.count("gate")) == (3, 3, 2)
    costs = [row.sqnr_db for row in found.values()]
    assert costs == sorted(costs)


def test_spiky_inputs_cost_the_most_and_the_operand_of_rec_little(rows):
    found, _ = rows
    first = next(iter(found.values()))
    assert (first.kind, first.tensor) == ("operand", "x into gru_00.w_ih")
    assert found["operand", "state_00_h into gru_00.w_hh"].grid == "int8, 1/127, fixed"
    assert found["operand", "state_00_h into gru_00.w_hh"].sqnr_db > first.sqnr_db + 15


def test_rec_is_the_sum_of_its_two_tensors(rows):
    found, evidence = rows
    noise = sum(
        10 ** (-found[kind, name].sqnr_db / 10)
        for kind, name in (
            ("weight", "gru_00.w_hh"), ("operand", "state_00_h into gru_00.w_hh")
        )
    )  # fmt: skip
    assert evidence.deviations["int8"].sqnr_db == pytest.approx(-10 * np.log10(noise), abs=6)
