"""What the proof lets through, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from edge_gru.errors import ModelError
from quantization.importers.proof import prove

ONE_BIT = 2**-23


class Steep:
    """Answers with a sine of the input times a gain, which makes its last bit large."""

    window_steps = None

    def __init__(self, gain, *, last_only=False):
        self.gain, self.last_only = np.asarray(gain, np.float64), last_only

    def run(self, sequence):
        y = np.sin(self.gain * sequence[:, 0])[:, None].astype(np.float32)
        return y[-1] if self.last_only else y

    def streamed(self, share):
        """Run step by step what should be the same model, its input off by a share of it."""
        return lambda x: Steep(self.gain).run(x.astype(np.float64) * (1 + share))


X = np.linspace(1.0, 1.01, 64, dtype=np.float32)[:, None]


@pytest.mark.parametrize("last_only", [False, True])
def test_noise_that_the_model_amplifies_itself_is_let_through(last_only):
    model = Steep(1000, last_only=last_only)
    found = prove(model, model.streamed(2 * ONE_BIT), [X], ())
    assert 2e-5 < found.largest_difference < 1e-3


def test_more_than_the_last_bit_explains_is_refused():
    model = Steep(1000)
    with pytest.raises(ModelError, match="is no stream"):
        prove(model, model.streamed(8 * ONE_BIT), [X], ())


def test_a_steady_model_is_held_to_the_tight_tolerance():
    model = Steep(1)
    with pytest.raises(ModelError, match="at step 1;"):
        prove(model, model.streamed(1e-4), [X], ())


def test_noise_may_grow_as_far_as_the_model_lets_it():
    model = Steep(np.linspace(1, 1e5, len(X)))
    found = prove(model, model.streamed(ONE_BIT), [X], ())
    assert found.largest_difference > 1e-3


def test_a_model_of_noise_alone_is_refused():
    model = Steep(1e5)
    with pytest.raises(ModelError, match="is no stream"):
        prove(model, model.streamed(ONE_BIT), [X], ())


def test_noise_of_later_steps_excuses_no_earlier_one():
    model = Steep(np.linspace(1, 1000, len(X)))
    wrong = Steep(model.gain).run(X)
    wrong[1] += 3e-5
    with pytest.raises(ModelError, match="at step 2;"):
        prove(model, lambda _: wrong, [X], ())


def test_of_long_recordings_the_beginnings_are_proven():
    model = Steep(1.0)
    long = np.zeros((150_000, 1), np.float32)
    found = prove(model, model.run, [long, long, X], ())
    assert found.n_steps == 2 * (200_000 // 3) + len(X)
