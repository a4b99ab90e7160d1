from __future__ import annotations

import json

import numpy as np
import pytest

from quantization import quantize
from quantization.operands import limited

SLOW_DRIFT = np.cumsum(np.random.default_rng(1).normal(0, 0.2, (6, 400, 3)), axis=1)


@pytest.fixture
def long_sequences():
    return [np.sin(sequence).astype(np.float32) for sequence in SLOW_DRIFT]


def sqnr(bundle):
    return json.loads(bundle.parts["report.json"])["deviation_from_fp32"]["int8"]["sqnr_db"]


def test_rec_is_never_much_worse_than_nearest_and_says_what_it_took(
    gru_file, write, long_sequences
):
    path = write(gru_file)
    nearest = quantize(path, long_sequences, recipe="rec-nearest")
    chosen = quantize(path, long_sequences)
    names = json.loads(chosen.parts["report.json"])["rounding"]
    assert json.loads(nearest.parts["report.json"])["rounding"] == {"gru_00.w_hh": "nearest"}
    if names == {"gru_00.w_hh": "nearest"}:
        assert chosen.parts["weights.safetensors"] == nearest.parts["weights.safetensors"]
    else:
        assert names == {"gru_00.w_hh": "gptq"}
        assert sqnr(chosen) > sqnr(nearest) - 1.0


def test_no_more_steps_are_used_than_wanted():
    kept = limited([np.zeros((6, 1)), np.zeros((6, 1)), np.zeros((6, 1))], 8)
    assert [len(s) for s in kept] == [6, 2]
