"""The step written out in numpy, fp32: what one does without a library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, StatePassing
from quantization.benchmark.latency.weights import Weights

Arrays = dict[str, Float32]
States = list[Float32]


def version() -> str:
    """Return the library's version."""
    return f"numpy {np.__version__}"


def _sigmoid(a: Float32) -> Float32:
    """Overwrite with the logistic function."""
    np.negative(a, a)
    np.exp(a, a)
    a += 1
    return np.reciprocal(a, a)


def _gru(x: Float32, states: States, w: Arrays) -> States:
    (h,) = states
    n = h.shape[-1]
    gi, gh = x @ w["w_ih"], h @ w["w_hh"]
    gi += w["b_ih"]
    gh += w["b_hh"]
    gi[..., : 2 * n] += gh[..., : 2 * n]
    rz = _sigmoid(gi[..., : 2 * n])
    new = gh[..., 2 * n :]
    new *= rz[..., :n]
    new += gi[..., 2 * n :]
    np.tanh(new, new)
    change = h - new
    change *= rz[..., n:]
    change += new
    return [change]


def _lstm(x: Float32, states: States, w: Arrays) -> States:
    h, c = states
    n = h.shape[-1]
    gates = x @ w["w_ih"]
    gates += h @ w["w_hh"]
    gates += w["bias"]
    g = np.tanh(gates[..., 2 * n : 3 * n])
    gates = _sigmoid(gates)
    g *= gates[..., :n]
    new_c = gates[..., n : 2 * n] * c
    new_c += g
    new_h = np.tanh(new_c)
    new_h *= gates[..., 3 * n :]
    return [new_h, new_c]


def _rnn(x: Float32, states: States, w: Arrays) -> States:
    gates = x @ w["w_ih"]
    gates += states[0] @ w["w_hh"]
    gates += w["bias"]
    return [np.tanh(gates, gates)]


_STEPS: dict[str, Callable[[Float32, States, Arrays], States]] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN_TANH": _rnn,
}


class NumpyRunner(StatePassing):
    """Multiplies a row by matrices laid out for it."""

    def __init__(self, weights: Weights, n_streams: int, n_rows: int) -> None:
        super().__init__(n_streams, n_rows)
        self._cell = _STEPS[weights.cell]
        self._layers = [_prepared(weights.layer(k)) for k in range(weights.n_layers)]
        self._head, self._bias = weights.arrays["head"], weights.arrays["head_bias"]
        self._n_parts = len(weights.state_names) // weights.n_layers
        self._shape = (n_rows, weights.n_hidden)
        one = (weights.n_hidden,)
        self._own = [[np.zeros(one, np.float32)] * self._n_parts for _ in self._layers]

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        y, self._own = self.advance(sample, self._own)
        return y

    def start(self) -> Any:
        """Make states of zeros."""
        return [[np.zeros(self._shape, np.float32)] * self._n_parts for _ in self._layers]

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step of every layer."""
        new = []
        for layer, before in zip(self._layers, states, strict=True):
            new.append(self._cell(x, before, layer))
            x = new[-1][0]
        return x @ self._head + self._bias, new


def _prepared(layer: Arrays) -> Arrays:
    # A transposed view: BLAS then reads the rows of a gate as they lie.
    matrices = {name: layer[name].T for name in ("w_ih", "w_hh")}
    biases = {name: layer[name] for name in ("b_ih", "b_hh")}
    return {**matrices, **biases, "bias": layer["b_ih"] + layer["b_hh"]}


def forms() -> Iterator[Form]:
    """List the forms."""
    yield Form("numpy fp32", Form.FP32_DB, NumpyRunner, ROW_COUNTS)
