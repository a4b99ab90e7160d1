from __future__ import annotations

import numpy as np
import pytest

from edge_gru.engines.base import EngineSource, HostStateEngine
from edge_gru.manifest import InputRange
from quantization import quantize
from quantization.comparison import compare, run_sequences
from quantization.evaluate import run_stream
from quantization.stream import JoinedStream
from quantization.twins import twins_of


@pytest.fixture
def twins(gru_file, write, sequences):
    return twins_of(quantize(write(gru_file), sequences).source)


@pytest.fixture
def stream(sequences):
    return JoinedStream(sequences, 3, 500, has_holds=False, held=np.zeros(3, np.float32))


class Offset(HostStateEngine):
    """What fp32 answers, and a constant more."""

    def __init__(self, inner, offset):
        super().__init__(EngineSource(inner.manifest, {}), inner.n_streams)
        self._inner, self._offset = inner, np.float32(offset)

    def _advance(self, x, states):
        y, new = self._inner._advance(x, states)
        return y + self._offset, new


def test_the_same_engine_does_not_differ(twins, stream):
    found = compare(twins.fp32, {"same": twins.fp32}, stream).deviations["same"]
    assert found.sqnr_db == found.sqnr_db_middle == np.inf
    assert found.largest == 0
    assert found.n_steps == 1500


def test_known_noise_is_measured(twins, stream):
    others = {"off": lambda n: Offset(twins.fp32(n), 0.01)}
    comparison = compare(twins.fp32, others, stream)
    found, std = comparison.deviations["off"], comparison.output_std
    assert found.sqnr_db == pytest.approx(10 * np.log10((std**2).sum() / 2e-4), abs=0.01)
    assert found.sqnr_db_by_output == pytest.approx(10 * np.log10(std**2 / 1e-4), abs=0.01)
    assert found.sqnr_db_middle == pytest.approx(found.sqnr_db, abs=0.01)
    assert found.largest == pytest.approx(0.01, rel=1e-3)
    assert found.largest_std == pytest.approx(0.01 / std.min(), rel=1e-3)
    assert found.last_over_first == pytest.approx(1, rel=1e-3)
    expected = np.sqrt(np.mean(1e-4 / std**2))
    assert found.over_time_std == pytest.approx([expected] * 100, rel=1e-3)


def test_streams_are_those_of_single_steps(twins, stream):
    found = compare(twins.fp32, {"int8": twins.candidate}, stream)
    samples = np.concatenate([block for block, _ in stream.blocks()])
    outputs = {}
    for name, opener in (("fp32", twins.fp32), ("int8", twins.candidate)):
        with opener(1) as engine:
            outputs[name] = [run_stream(engine, samples[:, k]) for k in range(3)]
    noise = np.sum((np.stack(outputs["int8"]).astype(float) - outputs["fp32"]) ** 2)
    variance = np.var(np.concatenate(outputs["fp32"]), axis=0, dtype=float).sum()
    expected = 10 * np.log10(variance * 1500 / noise)
    assert found.deviations["int8"].sqnr_db == pytest.approx(expected, abs=0.5)
    assert found.samples.x.shape[0] == len(found.samples.fp32["state_00_h"]) > 1000


def test_outputs_that_are_not_finite_leave_nothing(twins, stream):
    others = {"nan": lambda n: Offset(twins.fp32(n), np.nan)}
    found = compare(twins.fp32, others, stream).deviations["nan"]
    assert found.sqnr_db == found.sqnr_db_middle == -999
    assert found.largest_std == np.inf


def test_a_state_is_cleared_where_a_sequence_begins(twins, sequences):
    stream = JoinedStream(
        sequences[:1], 1, 120, has_holds=False, held=np.zeros(3, np.float32), resets=True
    )
    begins = np.concatenate([begin for _, begin in stream.blocks()])[:, 0]
    assert np.flatnonzero(begins).tolist() == [0, 40, 80]
    seen = []

    class Spy(Offset):
        def _clear(self, rows):
            seen.append(rows)
            super()._clear(rows)

    compare(twins.fp32, {"spy": lambda n: Spy(twins.fp32(n), 0)}, stream)
    assert len(seen) == 3


def test_sequences_of_any_length_run_at_once_as_alone(twins):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 3)).astype(np.float32) for n in (*range(2, 40), 39, 2)]
    told = []
    found = run_sequences(twins.fp32, sequences, lambda *where: told.append(where))
    with twins.fp32(1) as engine:
        for sequence, y in zip(sequences, found, strict=True):
            assert np.abs(run_stream(engine, sequence) - y).max() < 1e-6
    assert told == [("task", 32, 40), ("task", 40, 40)]


def test_limits_of_the_grid_of_x_are_counted(twins, stream):
    limit = InputRange((-1e9, 0.0, -1.0), (1e9, 0.0, 1.0))
    share = compare(twins.fp32, {}, stream, input_limit=limit).share_beyond
    assert share[0] == 0
    assert share[1] == 1
    assert 0.2 < share[2] < 0.45
