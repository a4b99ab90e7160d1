"""Programs of torch.export whose loop over time was unrolled: one turn is the step, or a reason."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from edge_gru.errors import ModelError
from firmware_bridge.sample import Schema
from quantization import pack, quantize
from quantization.calibrate import Calibration
from quantization.evaluate import run_stream
from quantization.importers.proof import prove
from quantization.quantized import Quantized
from quantization.recipe import RECIPES

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # of torch.export
torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")

from torch import nn  # noqa: E402 - after the check for torch

from quantization.importers.source import import_model  # noqa: E402

N_IN, N_STEPS = 3, 9


class Loop(nn.Module):
    """A cell in a loop over time, batch first, and a head on every step."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(N_IN, 6), nn.Linear(6, 2)
        self.start = nn.Parameter(torch.linspace(-2, 2, 6)[None])

    def first(self, x):
        return torch.zeros(len(x), 6)

    def between(self, h):
        return h

    def seen(self, x, t):
        return x[:, t]

    def forward(self, x):
        h, rows = self.first(x), []
        for t in range(x.shape[1]):
            h = self.cell(self.seen(x, t), self.between(h))
            rows.append(h)
        return self.head(torch.stack(rows, 1))


class Learned(Loop):
    def first(self, x):
        return self.start.expand(len(x), -1)


class LastRow(Loop):
    def forward(self, x):
        return super().forward(x)[:, -1]


class Unbound(Loop):
    def forward(self, x):
        h, rows = self.first(x), []
        for row in x.unbind(1):
            h = self.cell(row, h)
            rows.append(self.head(h)[:, None])
        return torch.cat(rows, 1)


class TimeFirst(Loop):
    def forward(self, x):
        h, rows = torch.zeros(x.shape[1], 6), []
        for t in range(len(x)):
            h = self.cell(x[t], h)
            rows.append(self.head(h))
        return torch.stack(rows)


class Encoded(Loop):
    """Layers on the whole sequence before the loop."""

    def forward(self, x):
        return super().forward(torch.tanh(2 * x))


class Decayed(Loop):
    def between(self, h):
        return 0.9 * h


class Window(Loop):
    def seen(self, x, t):
        return x[:, t] - x[:, max(t - 1, 0)]


class EveryOther(Loop):
    """Two cells that take turns: no turn of all steps is like another."""

    def __init__(self):
        super().__init__()
        self.other = nn.GRUCell(N_IN, 6)

    def forward(self, x):
        h, rows = self.first(x), []
        for t in range(x.shape[1]):
            h = (self.other if t % 2 else self.cell)(x[:, t], h)
            rows.append(h)
        return self.head(torch.stack(rows, 1))


class FirstRow(Loop):
    def forward(self, x):
        return super().forward(x)[:, 0]


class Remembered(Loop):
    """The output reads the h of the step before."""

    def forward(self, x):
        h, rows = self.first(x), []
        for t in range(x.shape[1]):
            before, h = h, self.cell(x[:, t], h)
            rows.append(self.head(h) + self.head(before))
        return torch.stack(rows, 1)


def opened(model):
    description = pack.Description("loop", Schema.unnamed(N_IN), RECIPES["fp32"], ("a", "b"))
    calibration = Calibration((np.zeros((9, N_IN), np.float32),))
    return pack.draft(model, description, calibration, Quantized()).open("reference", "fp32")


def saved(module, folder):
    size = (N_STEPS, 4, N_IN) if isinstance(module, TimeFirst) else (4, N_STEPS, N_IN)
    program = torch.export.export(module.eval(), (torch.zeros(size),))
    torch.export.save(program, folder / "loop.pt2")
    return str(folder / "loop.pt2")


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", [Loop, Learned, LastRow, Unbound, TimeFirst, Encoded])
def test_one_turn_is_the_step(kind, tmp_path):
    module = kind()
    x = np.random.default_rng(0).normal(size=(60, N_IN)).astype(np.float32)
    imported = import_model(saved(module, tmp_path), N_IN)
    assert imported.original.window_steps == N_STEPS  # the program takes no other length
    axis = 1 if kind is TimeFirst else 0
    with opened(imported.model) as engine, torch.no_grad():
        proof = prove(imported.original, partial(run_stream, engine), [x], imported.suspects)
        assert proof.n_steps == N_STEPS
        engine.reset(0)
        got = np.stack([engine.step(row) for row in x])
        whole = module(torch.from_numpy(np.expand_dims(x, axis))).numpy()
    whole = whole[0] if whole.ndim == 2 or axis == 0 else whole[:, 0]
    got = got if whole.ndim == 2 else got[-1]
    assert np.abs(got - whole).max() <= 1e-6


def test_step_holds_one_turn_and_nothing_of_the_others(tmp_path):
    program = import_model(saved(Encoded(), tmp_path), N_IN).model.program
    assert [node.op for node in program.nodes] == ["Mul", "Tanh", "GRU", "MatMul", "Add"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Decayed, "step by step it differs"),
        (Window, r"needs more of the others than the states of its cells.*give file\.py:factory"),
        (EveryOther, r"unrolled: give file\.py:factory instead"),
        (FirstRow, r"needs more of the others.*give file\.py:factory"),
        (Remembered, r"needs more of the others.*give file\.py:factory"),
    ],
)
def test_loop_that_hands_on_more_than_its_states_is_refused(kind, reason, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, N_IN)).astype(np.float32)
    with pytest.raises(ModelError, match=reason):
        quantize(saved(kind(), tmp_path), [x], recipe="fp32")  # refused before anything is judged
