from __future__ import annotations

import numpy as np
import pytest

from quantization import quantize
from quantization.calibrate import check_sequences
from quantization.evaluate import measure_warmup, run_stream


def leak(gru_file, u: float):
    """A GRU that forgets the share ``u`` of every unit at each step, and nothing else."""
    gru_file.weights = {k: np.zeros_like(v) for k, v in gru_file.weights.items()}
    gru_file.weights["b"][0, :5] = np.log((1 - u) / u)  # z
    gru_file.weights["w"][0, 10:, 0] = 1  # n follows x
    gru_file.weights["head"][:] = 0.5
    return gru_file


@pytest.mark.parametrize("u", [0.05, 0.2])
def test_warmup_of_a_leak_is_its_time_constant(gru_file, write, u):
    x = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    bundle = quantize(write(leak(gru_file, u)), [x])
    # States differ by about 2 at most and must come within 1 % of the output's deviation.
    n_steps = np.log(0.01) / np.log(1 - u)
    assert 0.6 * n_steps <= bundle.manifest.n_warmup <= 1.6 * n_steps


def test_memory_that_never_fades_has_no_warmup(gru_file, write):
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    bundle = quantize(write(leak(gru_file, 1e-7)), [x], accept_failure=True)
    assert bundle.manifest.n_warmup is None


def test_run_stream_starts_from_zero_each_time(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences)
    with bundle.open("reference") as engine:
        first = run_stream(engine, sequences[0])
        run_stream(engine, sequences[1])
        assert np.array_equal(run_stream(engine, sequences[0]), first)


def test_warmup_leaves_the_engine_clear(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences)
    with bundle.open("reference", streams=3) as engine:
        measure_warmup(engine, check_sequences(sequences, None))
        expected = run_stream(engine, sequences[0])
        engine.reset()
        assert np.array_equal(engine.step(sequences[0][0]), expected[0])
