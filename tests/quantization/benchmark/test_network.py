from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch

from quantization.benchmark.accuracy import cache
from quantization.benchmark.accuracy.network import (
    HiddenOutputs,
    NetworkSpec,
    RecurrentNetwork,
    TrainingStreams,
    train,
)

pytestmark = pytest.mark.torch
SPEC = NetworkSpec("GRU", 4, n_epochs=2, window_steps=10, batch_size=2)


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


def streams(n_classes=0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (3, 25, 2)).astype(np.float32)
    if n_classes:
        return TrainingStreams(x, rng.integers(-1, n_classes, (3, 25)), n_classes)
    return TrainingStreams(x, x[:, :, :1] - 3)


def weights(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def assert_same(a, b):
    for name, value in weights(a).items():
        np.testing.assert_array_equal(value, weights(b)[name], err_msg=name)


def test_equal_arguments_give_equal_networks():
    first = train(SPEC, streams())
    assert_same(first, train(SPEC, streams()))
    other = train(replace(SPEC, seed=1), streams())
    assert not np.array_equal(weights(first)["head.weight"], weights(other)["head.weight"])


def test_training_learns():
    spec = replace(SPEC, n_epochs=60, learning_rate=2e-2)
    x, y = streams().x, streams().y
    network = train(spec, streams())
    with torch.no_grad():
        error = network(torch.from_numpy(x)).numpy() - y
    assert np.mean(error**2) < 0.3 * np.var(y)


def test_inputs_are_normalised_from_the_training_streams():
    network = train(SPEC, streams())
    flat = streams().x.reshape(-1, 2)
    np.testing.assert_allclose(network.mean.numpy(), flat.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(network.scale.numpy(), flat.std(axis=0), rtol=1e-5)


def test_steps_without_a_label_teach_nothing():
    labelled = streams(n_classes=3)
    blank = TrainingStreams(labelled.x, np.full_like(labelled.y, -1), 3)
    spec = replace(SPEC, n_epochs=1)
    torch.manual_seed(spec.seed)
    untrained = RecurrentNetwork(spec, 2, 3)
    untrained.mean.copy_(train(spec, blank).mean)
    untrained.scale.copy_(train(spec, blank).scale)
    assert_same(train(spec, blank), untrained)


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_windows_carry_the_state(cell):
    network = RecurrentNetwork(NetworkSpec(cell, 4, 2), 2, 1)
    x = torch.randn(1, 12, 2)
    with torch.no_grad():
        first, states = network.advance(x[:, :5], None)
        second, _ = network.advance(x[:, 5:], states)
        torch.testing.assert_close(torch.cat([first, second], 1), network(x))


def test_training_carries_the_state_and_no_gradient_over_windows(monkeypatch):
    starts, advance = [], RecurrentNetwork.advance

    def looked(self, x, states):
        starts.append(states)
        return advance(self, x, states)

    monkeypatch.setattr(RecurrentNetwork, "advance", looked)
    train(replace(SPEC, n_epochs=1), streams())
    is_start = [state is None for state in starts]
    assert is_start == [True, False, False] * 2  # two batches of three windows
    assert not any(state.requires_grad for state in starts if state is not None)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_a_slow_start_spreads_the_time_constants(cell):
    spec = NetworkSpec(cell, 64, slow_start=True, n_epochs=0)
    rec = train(spec, streams()).rec
    kept = torch.sigmoid((rec.bias_ih_l0 + rec.bias_hh_l0)[64:128]).detach().numpy()
    steps = 1 / (1 - kept)
    assert steps.min() < 10
    assert 300 < steps.max() < 1002


def test_hidden_outputs_are_those_before_the_head():
    network = train(SPEC, streams())
    x = torch.from_numpy(streams().x)
    with torch.no_grad():
        torch.testing.assert_close(network.head(HiddenOutputs(network)(x)), network(x))


def test_a_network_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    first = cache.trained("tiny", SPEC, streams())
    monkeypatch.setattr(cache, "train", None)
    again = cache.trained("tiny", SPEC, streams())
    assert_same(first, again)
    assert not again.training
    assert [p.suffix for p in cache.cache_folder().iterdir()] == [".pt"]


@pytest.mark.parametrize(
    "other",
    [
        (replace(SPEC, n_epochs=3), streams()),
        (SPEC, streams(seed=1)),
        (SPEC, TrainingStreams(streams().x, streams().y + 1)),
    ],
    ids=["settings", "inputs", "targets"],
)
def test_other_settings_or_data_are_another_network(tmp_path, monkeypatch, other):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    cache.trained("tiny", SPEC, streams())
    cache.trained("tiny", *other)
    assert len(list(cache.cache_folder().iterdir())) == 2
