"""torch on the CPU: its recurrent modules and cells, fp32 and quantized dynamically."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, Runner, StatePassing
from quantization.benchmark.latency.weights import Weights
from quantization.benchmark.native import N_OUT

_MODULES = {
    "GRU": (nn.GRU, nn.GRUCell),
    "LSTM": (nn.LSTM, nn.LSTMCell),
    "RNN_TANH": (nn.RNN, nn.RNNCell),
}
_NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}


def version() -> str:
    """Return the library's version."""
    return f"torch {torch.__version__}"


def _linear_of(weights: Weights) -> nn.Linear:
    head = nn.Linear(weights.n_hidden, N_OUT)
    head.weight.data = torch.from_numpy(weights.arrays["head"].T.copy())
    head.bias.data = torch.from_numpy(weights.arrays["head_bias"])
    return head


class Layers(nn.Module):  # type: ignore[misc]  # torch is not followed
    """nn.GRU, nn.LSTM or nn.RNN over time and all layers, and the head."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        kind, _ = _MODULES[weights.cell]
        self.layers = kind(weights.n_in, weights.n_hidden, weights.n_layers)
        self.head = _linear_of(weights)
        named = {
            f"{_NAMES[name]}_l{k}": torch.from_numpy(value)
            for k in range(weights.n_layers)
            for name, value in weights.layer(k).items()
        }
        self.layers.load_state_dict(named)

    def forward(self, x: Any, states: Any) -> Any:
        """Run ``(t, k, n_in)``."""
        h, states = self.layers(x, states)
        return self.head(h), states


class Cells(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A cell a layer, and the head."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        _, kind = _MODULES[weights.cell]
        self.cells = nn.ModuleList()
        for k in range(weights.n_layers):
            cell = kind(weights.n_hidden if k else weights.n_in, weights.n_hidden)
            arrays = {_NAMES[n]: torch.from_numpy(v) for n, v in weights.layer(k).items()}
            cell.load_state_dict(arrays)
            self.cells.append(cell)
        self.head = _linear_of(weights)
        self._has_c = weights.cell == "LSTM"

    def forward(self, x: Any, states: Any) -> Any:
        """Run one step of ``(k, n_in)``."""
        new = []
        for cell, before in zip(self.cells, states, strict=True):
            new.append(cell(x, before))
            x = new[-1][0] if self._has_c else new[-1]
        return self.head(x), new


class TorchRunner(StatePassing):
    """Calls a module in inference mode with tensors that share numpy's memory."""

    def __init__(
        self, make: Callable[[Weights], nn.Module], weights: Weights, n_streams: int, n_rows: int
    ) -> None:
        super().__init__(n_streams, n_rows)
        torch.set_num_threads(1)
        self._module = make(weights).eval()
        self._is_cells = isinstance(self._module, Cells)
        self._shape = (weights.n_layers, n_rows, weights.n_hidden)
        self._has_c = weights.cell == "LSTM"
        self._own = self.start()

    def start(self) -> Any:
        """Make states of zeros, as the module takes them."""
        h = torch.zeros(self._shape)
        both = (h, torch.zeros(self._shape))
        if not self._is_cells:
            return both if self._has_c else h
        return [tuple(part) for part in zip(*both, strict=True)] if self._has_c else list(h)

    def laid_out(self, x: Float32) -> list[Any]:
        """Make a tensor of each sample."""
        rows = torch.from_numpy(np.ascontiguousarray(x))
        shape = (1, -1) if self._is_cells else (1, 1, -1)
        return [row.view(shape) for row in rows]

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        with torch.inference_mode():
            y, self._own = self._module(sample, self._own)
        return y

    def steps(self, samples: Any) -> None:
        """Step through samples, all in one inference mode."""
        module, states = self._module, self._own
        with torch.inference_mode():
            for sample in samples:
                _, states = module(sample, states)
        self._own = states

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step."""
        with torch.inference_mode():
            rows = torch.from_numpy(x)
            y, states = self._module(rows if self._is_cells else rows[None], states)
            return y.numpy().reshape(len(x), N_OUT), states

    def run_sequence(self, x: Float32) -> Float32:
        """Run one stream in one call."""
        if self._is_cells:
            return super().run_sequence(x)
        with torch.inference_mode():
            y, self._own = self._module(torch.from_numpy(x)[:, None], self._own)
            return y.numpy()[:, 0]


def _quantized(make: Callable[[Weights], nn.Module], weights: Weights) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to another package
        kinds = {nn.Linear, *(kind for pair in _MODULES.values() for kind in pair)}
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(make(weights).eval(), kinds)
    return quantized


def forms() -> Iterator[Form]:
    """List the forms."""

    def form(name: str, floor_db: float, make: Callable[[Weights], nn.Module], **more: Any) -> Form:
        opened: Callable[[Weights, int, int], Runner] = partial(TorchRunner, make)
        return Form(name, floor_db, opened, ROW_COUNTS, **more)

    # nn.RNN has no dynamic form
    int8: dict[str, Any] = {"cells": ("GRU", "LSTM")}
    yield form("torch recurrent op fp32", Form.FP32_DB, Layers)
    yield form("torch cells fp32", Form.FP32_DB, Cells)
    layers_int8, cells_int8 = partial(_quantized, Layers), partial(_quantized, Cells)
    yield form("torch recurrent op dynamic int8", Form.INT8_DB, layers_int8, **int8)
    yield form("torch cells dynamic int8", Form.INT8_DB, cells_int8, **int8)
