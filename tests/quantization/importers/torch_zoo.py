"""Torch models of every kind of cell, with how they run from a given state."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

N_IN, N_HIDDEN = 3, 6
LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "GRU": nn.GRU,
    "LSTM": nn.LSTM,
    "LSTM, projected": lambda *a, **k: nn.LSTM(*a, proj_size=4, **k),
    "RNN, tanh": nn.RNN,
    "RNN, relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "GRUCell": nn.GRUCell,
    "LSTMCell": nn.LSTMCell,
    "RNNCell, tanh": nn.RNNCell,
    "RNNCell, relu": lambda *a, **k: nn.RNNCell(*a, nonlinearity="relu", **k),
}


class Sequence(nn.Module):
    """A recurrent module, a norm and a head; the state goes in and out."""

    def __init__(self, layer: nn.RNNBase):
        super().__init__()
        width = layer.proj_size or layer.hidden_size
        self.layer, self.norm, self.head = layer, nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, x, state=None):
        y, state = self.layer(x, state)
        return self.head(torch.tanh(self.norm(y))), state


class Loop(nn.Module):
    """Two cells in a loop over time, one on the other."""

    def __init__(self, cell: Callable[..., nn.RNNCellBase], bias: bool):
        super().__init__()
        self.below = cell(N_IN, N_HIDDEN, bias=bias)
        self.above = cell(N_HIDDEN, 5, bias=bias)

    def forward(self, x, lower=None, upper=None):
        rows = []
        for t in range(x.shape[1]):
            lower = self.below(x[:, t], lower)
            upper = self.above(_h(lower), upper)
            rows.append(_h(upper))
        return torch.stack(rows, 1)


class LoopOfLayers(nn.Module):
    """Layers called for one step at a time."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(N_IN, N_HIDDEN, 2, batch_first=True), nn.Linear(N_HIDDEN, 2)

    def forward(self, x, state=None):
        rows = []
        for t in range(x.shape[1]):
            y, state = self.gru(x[:, t : t + 1], state)
            rows.append(y)
        return self.head(torch.cat(rows, 1))


class Mixed(nn.Module):
    """Recurrent modules of several kinds, layers between them, and a skip over one."""

    def __init__(self):
        super().__init__()
        self.lstm, self.between = nn.LSTM(N_IN, 8, batch_first=True), nn.Linear(8, 5)
        self.gru, self.rnn = nn.GRU(5, 5, 2, batch_first=True), nn.RNN(5, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x, a=None, b=None, c=None):
        y = torch.relu(self.between(self.lstm(x, a)[0]))
        y = self.gru(y, b)[0] + y
        return torch.sigmoid(self.head(self.rnn(y, c)[0]))


class Learned(nn.Module):
    """Starts that were trained, one for each layer."""

    def __init__(self, layer: nn.RNNBase):
        super().__init__()
        self.layer = layer
        n = 2 if isinstance(layer, nn.LSTM) else 1
        sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size][:n]
        self.starts = nn.ParameterList(torch.randn(layer.num_layers, 1, size) for size in sizes)

    def forward(self, x):
        n_rows = x.shape[0] if self.layer.batch_first else x.shape[1]
        starts = tuple(s.expand(-1, n_rows, -1).contiguous() for s in self.starts)
        return self.layer(x, starts if len(starts) > 1 else starts[0])[0]


def _h(state: Any) -> torch.Tensor:
    return state[0] if isinstance(state, tuple) else state


def _states_of(layer: nn.Module, left: list[np.ndarray]) -> Any:
    """Take the states of one module off the list of all, in the form that the module takes."""
    tensors = [torch.from_numpy(value) for value in left]
    n = 2 if isinstance(layer, (nn.LSTM, nn.LSTMCell)) else 1
    if isinstance(layer, nn.RNNCellBase):
        del left[:n]
        return tuple(t[None] for t in tensors[:2]) if n == 2 else tensors[0][None]
    del left[: n * layer.num_layers]
    parts = tuple(
        torch.stack(tensors[k : n * layer.num_layers : n])[:, None].contiguous() for k in range(n)
    )
    return parts if n == 2 else parts[0]


def _run(module: nn.Module, x: np.ndarray, states: list[np.ndarray]) -> np.ndarray:
    layers = [m for m in module.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]
    is_batch_first = getattr(layers[0], "batch_first", True)
    left = list(states)
    arguments = [_states_of(layer, left) for layer in layers]
    return _rows(module, x, is_batch_first, arguments)


def _rows(module: nn.Module, x: np.ndarray, is_batch_first: bool, arguments: list[Any]):
    axis = 0 if is_batch_first else 1
    with torch.no_grad():
        y = module.eval()(torch.from_numpy(np.expand_dims(x, axis)), *arguments)
    return np.take((y[0] if isinstance(y, tuple) else y).numpy(), 0, axis)


def _module_case(case: type, module: nn.Module) -> Any:
    return case(lambda _: module, lambda x, s: _run(module, x, s), N_IN)


def _program_case(case: type, module: nn.Module) -> Any:
    def make(folder: Path) -> Path:
        program = torch.export.export(module.eval(), (torch.zeros(4, 9, N_IN),))
        torch.export.save(program, folder / "model.pt2")
        return folder / "model.pt2"

    return case(make, lambda x, s: _run(module, x, s), N_IN)


def _exported_case(case: type, module: nn.Module, *, dynamo: bool) -> Any:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        x = torch.zeros(2, 9, N_IN)
        axes = {"x": {0: "batch", 1: "time"}} if not dynamo else None
        torch.onnx.export(
            Plain(module),
            (x,),
            path,
            input_names=["x"],
            dynamo=dynamo,
            dynamic_axes=axes,
            opset_version=None if dynamo else 14,
            **({"verbose": False} if dynamo else {}),
        )
        return path

    return case(make, lambda x, s: _run(module, x, s), N_IN)


class Step(nn.Module):
    """Two cells and a head, one step: x (B, n) and states in, y and states out."""

    def __init__(self, cell: Callable[..., nn.RNNCellBase], bias: bool):
        super().__init__()
        self.below = cell(N_IN, N_HIDDEN, bias=bias)
        self.above = cell(N_HIDDEN, 5, bias=bias)
        self.head = nn.Linear(5, 2)


class StepOfH(Step):
    def forward(self, x, h_0, h_1):
        h_0 = self.below(x, h_0)
        h_1 = self.above(h_0, h_1)
        return self.head(torch.tanh(h_1)), h_0, h_1


class StepOfHC(Step):
    def forward(self, x, h_0, c_0, h_1, c_1):
        h_0, c_0 = self.below(x, (h_0, c_0))
        h_1, c_1 = self.above(h_0, (h_1, c_1))
        return self.head(torch.tanh(h_1)), h_0, c_0, h_1, c_1


def _step_case(case: type, module: Step, *, dynamo: bool) -> Any:
    """A step that torch's exporter writes out in plain operators."""
    sizes = [N_HIDDEN, N_HIDDEN, 5, 5] if isinstance(module, StepOfHC) else [N_HIDDEN, 5]
    letters = ["h_0", "c_0", "h_1", "c_1"] if isinstance(module, StepOfHC) else ["h_0", "h_1"]

    def make(folder: Path) -> Path:
        inputs = (torch.randn(1, N_IN), *(torch.randn(1, size) for size in sizes))
        torch.onnx.export(
            module.eval(),
            inputs,
            folder / "model.onnx",
            input_names=["x", *(f"{name}_in" for name in letters)],
            output_names=["y", *(f"{name}_out" for name in letters)],
            dynamo=dynamo,
            opset_version=None if dynamo else 17,
            **({"verbose": False} if dynamo else {}),
        )
        return folder / "model.onnx"

    def run(x: np.ndarray, states: list[np.ndarray]) -> np.ndarray:
        tensors = [torch.from_numpy(value)[None] for value in states]
        rows = []
        with torch.no_grad():
            for row in torch.from_numpy(x):
                y, *tensors = module(row[None], *tensors)
                rows.append(y[0].numpy())
        return np.stack(rows)

    return case(make, run, N_IN)


class Plain(nn.Module):
    """A module with x in and y out."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x):
        y = self.module(x)
        return y[0] if isinstance(y, tuple) else y


def cases(case: type) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    firsts = itertools.cycle((True, False))
    for (name, layer), n_layers, bias in itertools.product(
        LAYERS.items(), (1, 2, 3, 4), (True, False)
    ):
        built = layer(N_IN, N_HIDDEN, n_layers, bias=bias, batch_first=next(firsts))
        text = f"torch nn.{name}, {n_layers} layers{'' if bias else ', no bias'}"
        found[text] = _module_case(case, Sequence(built))
    for (name, cell), bias in itertools.product(CELLS.items(), (True, False)):
        text = f"torch nn.{name} in a loop{'' if bias else ', no bias'}"
        found[text] = _module_case(case, Loop(cell, bias))
    for name, cell in CELLS.items():
        found[f"torch .pt2 of an unrolled loop, nn.{name}"] = _program_case(case, Loop(cell, True))
    found["torch .pt2 of an unrolled loop, 2 x nn.GRU and a head after it"] = _program_case(
        case, LoopOfLayers()
    )
    found["torch LSTM, Linear, 2 x GRU with a skip, RNN"] = _module_case(case, Mixed())
    for name, layer in LAYERS.items():
        built = Learned(layer(N_IN, N_HIDDEN, 2, batch_first=True))
        found[f"torch nn.{name}, learned start of each layer"] = case(
            lambda _, m=built: m,
            lambda x, _, m=built: _rows(m, x, True, []),
            N_IN,
            has_own_start=True,
        )
        module = Sequence(layer(N_IN, N_HIDDEN, 2, batch_first=True))
        found[f"torch .pt2 of nn.{name}"] = _program_case(case, module)
    for (name, cell), dynamo in itertools.product(CELLS.items(), (True, False)):
        step = (StepOfHC if name == "LSTMCell" else StepOfH)(cell, bias=dynamo)
        text = f"onnx step written out by torch's {'' if dynamo else 'old '}exporter, nn.{name}"
        found[text] = _step_case(case, step, dynamo=dynamo)
    for name in ("GRU", "LSTM"):
        module = Sequence(LAYERS[name](N_IN, N_HIDDEN, 2, batch_first=True))
        found[f"onnx by torch's exporter, nn.{name}"] = _exported_case(case, module, dynamo=True)
    for name in ("GRU", "LSTM", "RNN, tanh", "RNN, relu"):
        module = Sequence(LAYERS[name](N_IN, N_HIDDEN, 2, batch_first=True))
        found[f"onnx by torch's old exporter, nn.{name}"] = _exported_case(
            case, module, dynamo=False
        )
    return found
