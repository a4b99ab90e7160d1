"""The one network of the examples, its checkpoints, and running it over recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from firmware_bridge.sample import Float32
from quantization.examples.example import Architecture, Example


class GruNetwork(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Normalises physical units, then GRU layers, one linear layer, and perhaps a sigmoid.

    ``forward`` takes ``(n_batch, n_steps, n_in)`` and returns ``(n_batch, n_steps, n_out)``.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, n_in: int, n_out: int, architecture: Architecture, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        n_hidden, n_layers = architecture.n_hidden, architecture.n_layers
        self.register_buffer("mean", torch.zeros(n_in))
        self.register_buffer("scale", torch.ones(n_in))
        between = dropout if n_layers > 1 else 0.0
        self.gru = nn.GRU(n_in, n_hidden, n_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(n_hidden, n_out)
        self.squash = nn.Sigmoid() if architecture.squashed else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of every step; the state starts from zero."""
        return self.advance(x, None)[0]

    def advance(
        self, x: torch.Tensor, state: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output of every step and the state behind them, given the one before."""
        h, state = self.gru((x - self.mean) / self.scale, state)
        return self.squash(self.head(self.dropout(h))), state

    def normalise_for(self, sequences: Sequence[Float32]) -> None:
        """Take mean and deviation of every channel from training recordings."""
        steps = np.concatenate(list(sequences)).astype(np.float64)
        self.mean.copy_(torch.from_numpy(steps.mean(axis=0)))
        self.scale.copy_(torch.from_numpy(steps.std(axis=0)))


def build(example: Example, *, dropout: float = 0.0) -> GruNetwork:
    """Return the untrained network of an example."""
    n_in, n_out = example.schema().n_channels, len(example.outputs)
    return GruNetwork(n_in, n_out, example.architecture, dropout=dropout)


def load_trained(example: Example) -> GruNetwork:
    """Return the trained network of an example, in evaluation mode."""
    network = build(example)
    network.load_state_dict(torch.load(example.checkpoint, weights_only=True))
    return network.eval()


def save(example: Example, network: GruNetwork) -> None:
    """Write the checkpoint of an example."""
    example.checkpoint.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), example.checkpoint)


def run_whole(network: nn.Module, sequences: Sequence[Float32]) -> list[Float32]:
    """Run each recording ``(n_steps, n_in)`` at once; return the outputs ``(n_steps, n_out)``."""
    network.eval()
    with torch.no_grad():
        return [network(torch.from_numpy(x)[None])[0].numpy() for x in sequences]


def run_streamed(network: GruNetwork, sequence: Float32) -> Float32:
    """Run a recording one sample at a time, the state carried along."""
    network.eval()
    state = None
    outputs = []
    with torch.no_grad():
        for sample in torch.from_numpy(sequence):
            y, state = network.advance(sample[None, None], state)
            outputs.append(y[0, 0].numpy())
    return np.stack(outputs)
