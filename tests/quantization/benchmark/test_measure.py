from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch

from quantization.benchmark.accuracy import measure, peers
from quantization.benchmark.accuracy.network import NetworkSpec, RecurrentNetwork
from quantization.benchmark.accuracy.subjects import Subject
from quantization.calibrate import check_sequences
from quantization.metrics import METRICS
from quantization.twins import twins_of

pytestmark = pytest.mark.torch
N_STEPS = 2000


def subject(cell="GRU", n_layers=1):
    torch.manual_seed(0)
    network = RecurrentNetwork(NetworkSpec(cell, 8, n_layers), 3, 2).eval()
    rng = np.random.default_rng(0)
    calibration, test = rng.normal(0, 1, (2, 4, 200, 3)).astype(np.float32)
    targets = [rng.normal(0, 1, (200, 2)).astype(np.float32) for _ in test]
    return Subject("tiny", network, list(calibration), list(test), targets, METRICS["rmse"])


@pytest.fixture(scope="module")
def tiny():
    return subject()


@pytest.fixture(scope="module")
def rec(tiny):
    return measure.made_by(measure.work_on(tiny), "rec")


def test_a_row_says_what_a_recipe_costs(tiny):
    work = measure.work_on(tiny)
    fine, coarse = (measure.measured(tiny, work, r, N_STEPS) for r in ("rec", "w4"))
    assert (fine.model, fine.form, fine.engine) == ("tiny", "rec", "onnxruntime")
    assert fine.sqnr_db > coarse.sqnr_db + 10
    assert fine.sqnr_db_least <= fine.sqnr_db
    assert fine.metric == "rmse"
    assert fine.metric_worsening == pytest.approx(fine.metric_value / fine.metric_fp32 - 1)
    assert fine.n_steps >= N_STEPS
    assert fine.size_bytes != fine.size_fp32_bytes


def test_the_calibration_alone_is_seen(tiny, rec):
    other = replace(tiny, test=tiny.calibration, targets=None, metric=None)
    again = measure.made_by(measure.work_on(other), "rec")
    assert again.parts["weights.safetensors"] == rec.parts["weights.safetensors"]


def test_the_test_sequences_alone_judge(tiny, rec):
    found = measure.judged(tiny, twins_of(rec), N_STEPS).judgement
    assert found.stream.data_sha256 == check_sequences(tiny.test, None).sha256
    assert found.stream.resets is False
    cleared = measure.judged(replace(tiny, resets=True), twins_of(rec), N_STEPS).judgement
    assert cleared.stream.resets is True


@pytest.mark.parametrize("engine", ["reference", "onnxruntime"])
def test_an_engine_is_judged_by_itself(tiny, rec, engine):
    twins = measure.on_engine(twins_of(rec), engine)
    with twins.fp32(1) as right, twins.candidate(1) as candidate:
        assert (right.name, candidate.name) == (engine, engine)
        assert (right.precision, candidate.precision) == ("fp32", "int8")
    found = measure.judged(tiny, twins, N_STEPS)
    assert measure.row_of(tiny, "rec", found, measure.Sizes.of(rec), engine).sqnr_db > 40


def test_decisions_that_change_are_counted(tiny, rec):
    twins = twins_of(rec)
    assert measure.decisions_changed(tiny, replace(twins, candidate=twins.fp32)) == 0
    broken = replace(twins, candidate=lambda n: Negated(twins.fp32(n)))
    assert measure.decisions_changed(tiny, broken) == len(tiny.test)


class Negated:
    def __init__(self, engine):
        self.engine = engine

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.close()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def step_batch(self, x):
        return -self.engine.step_batch(x)


@pytest.mark.parametrize(("cell", "n_layers"), [("GRU", 1), ("GRU", 2), ("LSTM", 2), ("RNN", 2)])
def test_a_module_is_stepped_with_its_states_in_the_right_places(cell, n_layers):
    made = subject(cell, n_layers)
    twins = twins_of(measure.made_by(measure.work_on(made), "fp32"))
    x = np.stack(made.test)
    with twins.fp32(4) as right:
        stepped = peers._TorchEngine(twins.source, made.model, 4)
        for t in range(50):
            np.testing.assert_allclose(
                stepped.step_batch(x[:, t]), right.step_batch(x[:, t]), atol=1e-5
            )


@pytest.fixture(scope="module")
def found_peers(tiny, rec):
    return {p.name: p for p in peers.peers_of(twins_of(rec), tiny.model, tiny.calibration)}


def test_every_tool_is_there_or_says_why(found_peers):
    assert len(found_peers) == 6
    for peer in found_peers.values():
        assert peer.opener is not None or peer.remark
    assert "carried state is INT8" in found_peers["ORT static default, step graph"].remark
    assert "1 of 1 recurrent products" in found_peers["ORT static default, step graph"].remark


def test_peers_are_worse_than_rec_and_not_broken(tiny, rec, found_peers):
    twins = twins_of(rec)
    own = measure.judged(tiny, twins, N_STEPS).deviations["int8"].sqnr_db
    for name in ("ORT static default, step graph", "torch quantize_dynamic"):
        judged = measure.judged(tiny, peers.with_peer(twins, found_peers[name].opener), N_STEPS)
        assert 10 < judged.deviations["int8"].sqnr_db < own


def test_a_python_without_modelopt_is_told(tiny, rec, monkeypatch, tmp_path):
    empty = tmp_path / "python"
    empty.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'modelopt'\" >&2\nexit 1\n"
    )
    empty.chmod(0o755)
    monkeypatch.setenv(peers.MODELOPT_VARIABLE, str(empty))
    twins = twins_of(rec)
    found = peers._modelopt(twins, peers.feeds_along(twins, tiny.calibration))
    assert found.opener is None
    assert peers.MODELOPT_VARIABLE in found.remark


def test_feeds_are_the_float_states_before_each_sample(tiny, rec):
    twins = twins_of(rec)
    feeds = peers.feeds_along(twins, tiny.calibration)
    n_steps = len(tiny.calibration[0])
    assert set(feeds) == {"x", "state_00_h"}
    np.testing.assert_array_equal(feeds["x"], np.concatenate(tiny.calibration))
    starts = feeds["state_00_h"][::n_steps]
    assert not starts.any()
    assert np.abs(feeds["state_00_h"][1:n_steps]).min(axis=1).all()
