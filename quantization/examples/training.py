"""One seeded training loop for all examples: whole recordings, a loss at every step."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from firmware_bridge.sample import Float32
from quantization.examples.example import Example, Targets
from quantization.examples.network import GruNetwork, build

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Augment = Callable[[Float32, np.random.Generator], Float32]


@dataclass(frozen=True)
class Settings:
    """What held-out recordings choose; ``window_steps`` bounds how far gradients go back in time.

    The state is carried over the windows of a recording, but for ``restart_share`` of the windows,
    which begin at zero or in another recording's state: a device may be switched on at any time,
    and what it says must soon rest on what it has seen since.
    """

    n_epochs: int
    learning_rate: float
    dropout: float = 0.0
    batch_size: int = 16
    weight_decay: float = 0.0
    window_steps: int = 1000
    restart_share: float = 0.0


@dataclass(frozen=True)
class Recordings:
    """Sequences ``(n_steps, n_in)`` with a target for every step."""

    sequences: Sequence[Float32]
    targets: Sequence[Targets]

    def subset(self, indices: Iterable[int]) -> Recordings:
        """Return some of the recordings."""
        chosen = list(indices)
        return Recordings([self.sequences[i] for i in chosen], [self.targets[i] for i in chosen])


def train(
    example: Example,
    recordings: Recordings,
    loss: Loss,
    settings: Settings,
    *,
    seed: int,
    augment: Augment | None = None,
) -> GruNetwork:
    """Train a network; equal arguments give equal parameters on one machine.

    Args:
        example: Gives the shape of the network.
        recordings: What to learn from.
        loss: Mean loss of outputs ``(k, n_out)`` and targets ``(k,)``.
        settings: How long, how fast.
        seed: Of the parameters, the order and the augmentation.
        augment: Changes a recording each time it is shown.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build(example, dropout=settings.dropout).train()
    network.normalise_for(recordings.sequences)
    n_batches = -(-len(recordings.sequences) // settings.batch_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=n_batches * settings.n_epochs, pct_start=0.1
    )
    for _ in range(settings.n_epochs):
        order = rng.permutation(len(recordings.sequences))
        for indices in np.array_split(order, n_batches):
            batch = recordings.subset(indices)
            shown = [x if augment is None else augment(x, rng) for x in batch.sequences]
            for part in _parts(network, shown, batch.targets, loss, settings, rng):
                optimizer.zero_grad()
                part.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
            schedule.step()
    return network.eval()


def _parts(
    network: GruNetwork,
    sequences: Sequence[Float32],
    targets: Sequence[Targets],
    loss: Loss,
    settings: Settings,
    rng: np.random.Generator,
) -> Iterator[torch.Tensor]:
    """Yield the loss of each window of a batch, padding left out."""
    x, y = _padded(sequences), _padded(targets)
    n_steps = torch.tensor([len(sequence) for sequence in sequences])
    valid = torch.arange(x.shape[1]) < n_steps[:, None]
    state = None
    for start in range(0, x.shape[1], settings.window_steps):
        window = slice(start, start + settings.window_steps)
        if state is not None and settings.restart_share:
            state = _restarted(state, settings.restart_share, rng)
        outputs, state = network.advance(x[:, window], state)
        yield loss(outputs[valid[:, window]], y[:, window][valid[:, window]])
        state = state.detach()


def _restarted(state: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Replace a share of the states ``(n_layers, n_batch, n_hidden)``: a third of it by zeros."""
    n_batch = state.shape[1]
    drawn = torch.from_numpy(rng.random(n_batch))[None, :, None]
    foreign = state[:, torch.from_numpy(rng.permutation(n_batch))]
    state = torch.where(drawn < share, foreign, state)
    return torch.where(drawn < share / 3, torch.zeros_like(state), state)


def _padded(arrays: Sequence[Targets]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([torch.from_numpy(a) for a in arrays], batch_first=True)


def parse_seed(description: str) -> int:
    """Read the command line of a training script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="of parameters and order (default 0)")
    return parser.parse_args().seed
