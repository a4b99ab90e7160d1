"""The training loop: seeded, blind to padding, and carrying the state over its windows."""

import numpy as np
import pytest

from firmware_bridge.sample import Schema
from quantization.examples.example import Architecture, Example

torch = pytest.importorskip("torch", reason="needs torch")
network_module = pytest.importorskip("quantization.examples.network", reason="needs torch")
training = pytest.importorskip("quantization.examples.training", reason="needs torch")

pytestmark = pytest.mark.torch


class Toy(Example):
    """Two channels in, a running sum out."""

    name = "toy"
    outputs = ("sum",)
    task_metric = "rmse"
    more_is_better = False
    architecture = Architecture(n_hidden=8)

    def schema(self):
        return Schema.of(["a", "b"])

    def sequences(self, split):
        rng = np.random.default_rng(3)
        return [rng.normal(5.0, 2.0, (n, 2)).astype(np.float32) for n in (40, 25, 33, 7)]

    def targets(self, split):
        return [np.tanh(np.cumsum(x[:, 0] - 5) / 4).astype(np.float32) for x in self.sequences("")]

    def metric(self, outputs, split):
        return {}


def squared(outputs, targets):
    return torch.mean((outputs[:, 0] - targets) ** 2)


def toy_recordings():
    return training.Recordings(Toy().sequences(""), Toy().targets(""))


def trained(seed=0, recordings=None, **settings):
    settings = training.Settings(
        **{"n_epochs": 4, "learning_rate": 1e-2, "batch_size": 2, **settings}
    )
    return training.train(Toy(), recordings or toy_recordings(), squared, settings, seed=seed)


def parameters(network):
    return torch.cat([p.detach().ravel() for p in network.parameters()])


def test_equal_seeds_give_equal_parameters_and_others_do_not():
    assert torch.equal(parameters(trained(dropout=0.2)), parameters(trained(dropout=0.2)))
    assert not torch.equal(parameters(trained()), parameters(trained(seed=1)))


def test_training_lowers_the_loss():
    def error(network):
        outputs = network_module.run_whole(network, Toy().sequences(""))
        return np.mean((np.concatenate(outputs)[:, 0] - np.concatenate(Toy().targets(""))) ** 2)

    assert error(trained(n_epochs=60)) < 0.5 * error(trained(n_epochs=4, learning_rate=1e-9))


def test_windows_carry_the_state_and_cover_every_valid_step_once():
    torch.manual_seed(0)
    network = network_module.build(Toy())
    recordings = toy_recordings()
    seen = []

    def collect(outputs, targets):
        seen.append((outputs.detach(), targets))
        return squared(outputs, targets)

    arguments = (network, recordings.sequences, recordings.targets, collect)
    rng = np.random.default_rng(0)

    def windows(n_steps):
        return training._parts(*arguments, training.Settings(1, 1e-3, window_steps=n_steps), rng)

    whole = next(windows(1000)).item()
    whole_steps = torch.cat([y for y, _ in seen]).ravel().sort().values
    seen.clear()
    parts = [part.item() for part in windows(11)]
    windowed_steps = torch.cat([y for y, _ in seen]).ravel().sort().values
    assert len(parts) == 4
    assert len(windowed_steps) == sum(map(len, recordings.sequences))
    torch.testing.assert_close(windowed_steps, whole_steps, rtol=0, atol=1e-6)
    weights = [len(targets) for _, targets in seen]
    assert np.average(parts, weights=weights) == pytest.approx(whole, rel=1e-5)


def test_normalisation_is_inside_the_network():
    network = network_module.build(Toy())
    network.normalise_for(Toy().sequences(""))
    steps = np.concatenate(Toy().sequences(""))
    np.testing.assert_allclose(network.mean, steps.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(network.scale, steps.std(axis=0), rtol=1e-5)


def test_normalisation_is_of_the_training_recordings():
    network = trained(recordings=toy_recordings().subset([0]))
    np.testing.assert_allclose(network.mean, Toy().sequences("")[0].mean(axis=0), rtol=1e-5)


def test_streaming_equals_the_whole_recording():
    network = trained()
    x = Toy().sequences("")[0]
    whole = network_module.run_whole(network, [x])[0]
    np.testing.assert_allclose(network_module.run_streamed(network, x), whole, rtol=0, atol=1e-6)


def test_restarted_states_are_kept_or_anothers_or_zero():
    state = torch.arange(1.0, 3001.0).repeat(2, 1)[..., None].repeat(1, 1, 3)
    found = training._restarted(state, 0.6, np.random.default_rng(0))
    kept = (found == state).all(dim=(0, 2))
    zero = (found == 0).all(dim=(0, 2))
    assert kept.float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert zero.float().mean().item() == pytest.approx(0.2, abs=0.05)
    assert torch.equal(found[0], found[1])
    assert set(found.unique().tolist()) <= {0.0, *state.unique().tolist()}
