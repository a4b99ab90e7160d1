"""Random recurrent networks in torch, as people stack them: drawn by hypothesis, or by a seed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn


def _load(name: str) -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


torch_zoo = _load("torch_zoo")
N_IN = torch_zoo.N_IN

LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": nn.Linear,
    "norm": lambda n, _: nn.LayerNorm(n),
    "relu": lambda *_: nn.ReLU(),
    "tanh": lambda *_: nn.Tanh(),
    "gelu": lambda *_: nn.GELU(),
    "elu": lambda *_: nn.ELU(),
    "dropout": lambda *_: nn.Dropout(0.4),
    "hardsigmoid": lambda *_: nn.Hardsigmoid(),
}
HEADS: dict[str, Callable[[], nn.Module]] = {
    "plain": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(-1),
    "log_softmax": lambda: nn.LogSoftmax(-1),
}


@dataclass(frozen=True)
class Block:
    """A recurrent module, whether it is skipped over, and the layers above it."""

    kind: str
    n_hidden: int
    n_layers: int
    has_bias: bool
    is_skipped: bool
    above: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    encoder: tuple[str, ...]
    blocks: tuple[Block, ...]
    head: str
    batch_first: bool
    seed: int


class Net(nn.Module):
    """Up to three recurrent modules, whose states go in one by one."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.encoder, width = _layers(recipe.encoder, N_IN)
        self.blocks, self.above = nn.ModuleList(), nn.ModuleList()
        for block in recipe.blocks:
            layer = torch_zoo.LAYERS[block.kind](
                width, block.n_hidden, block.n_layers,
                bias=block.has_bias, batch_first=recipe.batch_first,
            )  # fmt: skip
            for weight in layer.parameters():
                nn.init.normal_(weight, 0, 0.25)
            width = layer.proj_size or layer.hidden_size
            above, width = _layers(block.above, width)
            self.blocks.append(layer)
            self.above.append(above)
        self.top, self.head = nn.Linear(width, 2), HEADS[recipe.head]()

    def forward(self, x, a=None, b=None, c=None):
        y = self.encoder(x)
        for block, layer, above, state in zip(
            self.recipe.blocks, self.blocks, self.above, (a, b, c), strict=False
        ):
            z = above(layer(y, state)[0])
            y = z + y if block.is_skipped and z.shape == y.shape else z
        return self.head(self.top(y))


def _layers(names: tuple[str, ...], width: int) -> tuple[nn.Sequential, int]:
    layers = []
    for k, name in enumerate(names):
        n_out = 3 + (width + k) % 5 if name == "linear" else width
        layers.append(LAYERS[name](width, n_out))
        width = n_out
    return nn.Sequential(*layers), width


blocks = st.builds(
    Block,
    kind=st.sampled_from(sorted(torch_zoo.LAYERS)),
    n_hidden=st.integers(5, 9),
    n_layers=st.integers(1, 3),
    has_bias=st.booleans(),
    is_skipped=st.booleans(),
    above=st.lists(st.sampled_from(sorted(LAYERS)), max_size=2).map(tuple),
)
recipes = st.builds(
    Recipe,
    encoder=st.lists(st.sampled_from(sorted(LAYERS)), max_size=3).map(tuple),
    blocks=st.lists(blocks, min_size=1, max_size=3).map(tuple),
    head=st.sampled_from(sorted(HEADS)),
    batch_first=st.booleans(),
    seed=st.integers(0, 2**16),
)


def by_seed(seed: int) -> Recipe:
    """The same kind of recipe, drawn without hypothesis, for the table."""
    rng = np.random.default_rng(seed)

    def some(names: Any, most: int) -> tuple[str, ...]:
        return tuple(str(name) for name in rng.choice(sorted(names), rng.integers(0, most + 1)))

    drawn = tuple(
        Block(
            kind=str(rng.choice(sorted(torch_zoo.LAYERS))),
            n_hidden=int(rng.integers(5, 10)),
            n_layers=int(rng.integers(1, 4)),
            has_bias=bool(rng.integers(2)),
            is_skipped=bool(rng.integers(2)),
            above=some(LAYERS, 2),
        )
        for _ in range(rng.integers(1, 4))
    )
    head = str(rng.choice(sorted(HEADS)))
    return Recipe(some(LAYERS, 3), drawn, head, bool(rng.integers(2)), seed)


def case_of(case: type, recipe: Recipe) -> Any:
    module = Net(recipe).eval()
    return torch_zoo._module_case(case, module)
