"""The networks of the evidence: recurrent layers and one linear layer, trained statefully."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

_log = logging.getLogger(__name__)

States: TypeAlias = Any  # a tensor, or the pair h, c of an LSTM
_NO_LABEL = -1
_MOST_STEPS = 1000.0  # the slowest unit of a network that begins with slow ones


@dataclass(frozen=True)
class NetworkSpec:
    """A network and how it is trained.

    ``slow_start``: the units begin with time constants spread from 1 to 1,000 steps, without which
    a memory of hundreds of steps is not learned. ``warm_up_share``: of the training, in which the
    learning rate rises to ``learning_rate``, before it falls to zero along a cosine.
    """

    cell: str
    n_hidden: int
    n_layers: int = 1
    seed: int = 0
    n_epochs: int = 20
    window_steps: int = 100
    learning_rate: float = 4e-3
    slow_start: bool = False
    warm_up_share: float = 0.05
    weight_decay: float = 0.0
    batch_size: int = 48


@dataclass(frozen=True)
class TrainingStreams:
    """Streams of one length: ``x`` ``(n_streams, n_steps, n_in)``, and their targets.

    ``y`` holds values ``(n_streams, n_steps, n_out)``, or of ``n_classes`` the index of the right
    one ``(n_streams, n_steps)``, -1 where there is none.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[Any]
    n_classes: int = 0

    @property
    def n_out(self) -> int:
        """How many outputs the network needs."""
        return self.n_classes or int(self.y.shape[2])


class RecurrentNetwork(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Normalises, then ``rec`` and ``head``.

    ``forward`` takes ``(n_batch, n_steps, n_in)`` and returns ``(n_batch, n_steps, n_out)``, from
    a zero state.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, spec: NetworkSpec, n_in: int, n_out: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_in))
        self.register_buffer("scale", torch.ones(n_in))
        layer = getattr(nn, spec.cell)
        self.rec = layer(n_in, spec.n_hidden, spec.n_layers, batch_first=True)
        self.head = nn.Linear(spec.n_hidden, n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of every step."""
        return self.advance(x, None)[0]

    def advance(self, x: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        """Return the output of every step and the states behind them, given those before."""
        h, states = self.rec((x - self.mean) / self.scale, states)
        return self.head(h), states


class HiddenOutputs(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A trained network without its head: the outputs are the h of its last layer."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.register_buffer("mean", network.mean)
        self.register_buffer("scale", network.scale)
        self.rec = network.rec

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return h of every step."""
        return self.rec((x - self.mean) / self.scale)[0]


def train(spec: NetworkSpec, streams: TrainingStreams) -> RecurrentNetwork:
    """Train with the state carried over windows; equal arguments, equal network on one machine."""
    torch.set_num_threads(1)
    torch.manual_seed(spec.seed)
    network = RecurrentNetwork(spec, streams.x.shape[2], streams.n_out)
    flat = streams.x.reshape(-1, streams.x.shape[2]).astype(np.float64)
    network.mean.copy_(torch.from_numpy(flat.mean(axis=0)))
    network.scale.copy_(torch.from_numpy(np.maximum(flat.std(axis=0), 1e-6)))
    if spec.slow_start:
        _slow_down(network.rec, spec)
    optimizer = torch.optim.AdamW(
        network.parameters(), spec.learning_rate, weight_decay=spec.weight_decay
    )
    n_streams, n_steps, _ = streams.x.shape
    n_updates = -(-n_steps // spec.window_steps) * -(-n_streams // spec.batch_size)  # an epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(spec, n_updates))
    for epoch in range(spec.n_epochs):
        total = 0.0
        for loss in _losses(network, streams, spec):
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() / n_updates
        _log.info("%s seed %d epoch %d: loss %.5f", spec.cell, spec.seed, epoch, total)
    return network.eval()


def _rate(spec: NetworkSpec, n_updates_an_epoch: int) -> Callable[[int], float]:
    n_updates = spec.n_epochs * n_updates_an_epoch
    n_rising = max(1, round(spec.warm_up_share * n_updates))

    def factor(k: int) -> float:
        if k < n_rising:
            return (k + 1) / n_rising
        return 0.5 * (1 + math.cos(math.pi * (k - n_rising) / max(1, n_updates - n_rising)))

    return factor


def _losses(
    network: RecurrentNetwork, streams: TrainingStreams, spec: NetworkSpec
) -> Iterator[torch.Tensor]:
    for first in range(0, len(streams.x), spec.batch_size):
        batch = slice(first, first + spec.batch_size)
        x, y = torch.from_numpy(streams.x[batch]), torch.from_numpy(streams.y[batch])
        states = None
        for start in range(0, x.shape[1], spec.window_steps):
            window = slice(start, start + spec.window_steps)
            outputs, states = network.advance(x[:, window], states)
            states = _detached(states)
            yield _loss(outputs, y[:, window], is_class=streams.n_classes > 0)


def _loss(outputs: torch.Tensor, truth: torch.Tensor, *, is_class: bool) -> torch.Tensor:
    if not is_class:
        return nn.functional.mse_loss(outputs, truth)
    flat, labels = outputs.flatten(0, 1), truth.flatten()
    # A window may have no label at all, and of nothing there is no mean.
    total = nn.functional.cross_entropy(flat, labels, ignore_index=_NO_LABEL, reduction="sum")
    return total / max(1, int((labels != _NO_LABEL).sum()))


def _detached(states: States) -> States:
    return tuple(s.detach() for s in states) if isinstance(states, tuple) else states.detach()


def _slow_down(rec: nn.Module, spec: NetworkSpec) -> None:
    """Spread the time constants of a GRU's or LSTM's units evenly on a logarithmic scale."""
    n = spec.n_hidden
    gate = slice(n, 2 * n)  # z of a GRU, the forget gate of an LSTM
    with torch.no_grad():
        for k in range(spec.n_layers):
            b_ih, b_hh = getattr(rec, f"bias_ih_l{k}"), getattr(rec, f"bias_hh_l{k}")
            b_ih[gate] = torch.rand(n) * math.log(_MOST_STEPS)
            b_hh[gate] = 0
            if spec.cell == "LSTM":  # the input gate opens as little as the forget gate forgets
                b_ih[:n] = -b_ih[gate]
                b_hh[:n] = 0
