"""The proof: the trained model on whole sequences against the step graph, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_gru.errors import ModelError
from quantization.progress import Progress, silent

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TOLERANCE = 1e-5
_N_PREFIXES = 6
_N_STEPS, _LEAST_STEPS_EACH = 200_000, 1000  # of all sequences, and of each
# A network that amplifies rounding parts from itself: two orders of summing, equal in all else,
# were up to 2.3 times as far apart as the last bit of x moves the model.
_RESPONSES = 4.0
_LAST_BIT = np.float32(2**-23)
_MOST_TOLERANCES = 100.0


class Original(Protocol):
    """A trained model as its framework runs it."""

    @property
    def window_steps(self) -> int | None:
        """The one length of sequence that the model takes; None: any."""

    def run(self, sequence: Float32) -> Float32:
        """Run a whole sequence: ``(T, n_in)`` -> ``(T, n_out)``, or ``(n_out,)`` of the last step.

        Raises:
            ModelError: the model does not take a sequence of this length.
        """


class Proof:
    """How far the step graph was from the model, and on how much data."""

    def __init__(self) -> None:
        self.n_sequences = 0
        self.n_steps = 0
        self.largest_difference = 0.0
        self.largest_output = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the figures for a report."""
        return {
            "n_sequences": self.n_sequences,
            "n_steps": self.n_steps,
            "largest_difference": self.largest_difference,
            "largest_output": self.largest_output,
        }


def prove(
    original: Original,
    stream: Callable[[Float32], Float32],
    sequences: Sequence[Float32],
    suspects: Sequence[str],
    progress: Progress = silent,
) -> Proof:
    """Compare a model with its step graph on whole sequences, each from where the model starts.

    ``stream`` runs the step graph: ``(T, n_in)`` -> ``(T, n_out)``. A model that yields the last
    step alone is compared at several lengths. Of long recordings the beginnings are taken, in all
    some 200,000 steps: what looks ahead or back shows there too.

    A network may amplify the rounding of float32 beyond the tolerance. So where they differ by
    more, that is held against how far the model itself moves when x does by its last bit: up to
    that step, since what is wrong shows long before noise has grown.

    Raises:
        ModelError: they differ by more than 1e-5 of ``max(1, max|y|)`` and by more than such noise;
            says where, and why if a node of the graph is known to look over time.
    """
    proof = Proof()
    n_each = max(_LEAST_STEPS_EACH, _N_STEPS // max(len(sequences), 1))
    for k, whole in enumerate(sequences):
        sequence = np.array(whole[: original.window_steps or n_each])
        _compare(proof, original, stream(sequence), sequence, suspects)
        proof.n_sequences += 1
        proof.n_steps += len(sequence)
        progress("prove", k + 1, len(sequences))
    return proof


def _compare(
    proof: Proof, original: Original, got: Float32, sequence: Float32, suspects: Sequence[str]
) -> None:
    expected = original.run(sequence)
    if expected.ndim == 2:
        _judge(proof, expected, got, 1, suspects, partial(_response, original, sequence, expected))
        return
    n_steps = len(sequence)
    lengths = [n_steps]
    if original.window_steps is None:
        lengths = sorted(set(np.linspace(1, n_steps, _N_PREFIXES, dtype=int).tolist()))
    for length in lengths:
        prefix = sequence[:length]
        row = (expected if length == n_steps else original.run(prefix))[None]
        response = partial(_response, original, prefix, row)
        _judge(proof, row, got[length - 1 : length], length, suspects, response)


def _response(original: Original, sequence: Float32, expected: Float32) -> Float64:
    """How far the outputs move, at most up to each step, when x does by its last bit.

    Up, down, and up or down at random: constants and noise do not excite a network alike.
    """
    last_bit = _LAST_BIT * np.maximum(1, np.abs(sequence).max(axis=0))
    signs = np.random.default_rng(0).choice([-1, 1], sequence.shape)
    moved = [
        original.run((sequence + change).astype(np.float32)).reshape(expected.shape)
        for change in (last_bit, -last_bit, last_bit * signs)
    ]
    apart = np.abs(np.stack(moved).astype(np.float64) - expected).max(axis=(0, 2))
    return np.maximum.accumulate(apart)


def _noise(response: Float64, tolerance: float) -> Float64:
    """What rounding explains at each step: all that it grows to, if it begins small."""
    noise = np.maximum(_RESPONSES * response, tolerance)
    most = _MOST_TOLERANCES * tolerance
    return np.minimum(noise, most) if noise[0] > most else noise


def _judge(
    proof: Proof,
    expected: Float32,
    got: Float32,
    first_step: int,
    suspects: Sequence[str],
    response: Callable[[], Float64],
) -> None:
    if expected.shape != got.shape:
        raise ModelError(
            f"expected outputs of shape {got.shape} from the model, got {expected.shape}; "
            "expected one output per step, or one for the last step"
        )
    difference = np.abs(expected.astype(np.float64) - got).max(axis=1)
    largest = float(np.abs(expected).max())
    tolerance = TOLERANCE * max(1.0, largest)
    wrong = ~(difference <= tolerance)  # also finds NaN
    if wrong.any():
        wrong = ~(difference <= _noise(response(), tolerance))
    if wrong.any():
        k = int(wrong.argmax())
        reason = "; ".join(suspects) or (
            "it looks at more than the present sample and its recurrent state (pooling over "
            "time, a window, the first step)"
        )
        raise ModelError(
            f"the model is no stream: run step by step it differs by {difference[k]:.3g} from "
            f"the whole sequence at step {first_step + k}; {reason}"
        )
    proof.largest_difference = max(proof.largest_difference, float(difference.max()))
    proof.largest_output = max(proof.largest_output, largest)
