"""Train the remaining life of FD001. Settings come from held-out training engines alone."""

from __future__ import annotations

import numpy as np
import torch

from quantization.examples.cmapss_fd001 import CAP_CYCLES, CmapssFd001
from quantization.examples.network import GruNetwork, run_whole, save
from quantization.examples.training import Recordings, Settings, parse_seed, train

N_HELD_OUT = 25
FIRST_SCORED_CYCLE = 30  # the test recordings are not shorter
CANDIDATES = (
    Settings(n_epochs=30, learning_rate=4e-3),
    Settings(n_epochs=30, learning_rate=4e-3, dropout=0.3),
    Settings(n_epochs=60, learning_rate=4e-3),
    Settings(n_epochs=60, learning_rate=4e-3, dropout=0.3),
    Settings(n_epochs=60, learning_rate=8e-3, dropout=0.3),
    Settings(n_epochs=60, learning_rate=4e-3, dropout=0.3, weight_decay=0.05),
)


def loss_of_share(outputs: torch.Tensor, cycles: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the share of the cap that is left."""
    return torch.mean((outputs[:, 0] - cycles / CAP_CYCLES) ** 2)


def train_engines(recordings: Recordings, settings: Settings, seed: int) -> GruNetwork:
    """Train on shares of the cap, then let the head say cycles."""
    network = train(CmapssFd001(), recordings, loss_of_share, settings, seed=seed)
    with torch.no_grad():
        network.head.weight.mul_(CAP_CYCLES)
        network.head.bias.mul_(CAP_CYCLES)
    return network


def rmse_everywhere(network: GruNetwork, recordings: Recordings) -> float:
    """Return the RMSE in cycles over every cycle that a test recording could end with."""
    outputs = run_whole(network, recordings.sequences)
    errors = [
        (y[:, 0] - target)[FIRST_SCORED_CYCLE:]
        for y, target in zip(outputs, recordings.targets, strict=True)
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def choose(recordings: Recordings, seed: int) -> Settings:
    """Print the held-out error of every candidate and return the best one."""
    order = np.random.default_rng(seed).permutation(len(recordings.sequences)).tolist()
    held_out = recordings.subset(order[:N_HELD_OUT])
    rest = recordings.subset(order[N_HELD_OUT:])
    scores = []
    for settings in CANDIDATES:
        scores.append(rmse_everywhere(train_engines(rest, settings, seed), held_out))
        print(f"held-out RMSE {scores[-1]:6.2f}  {settings}", flush=True)
    return CANDIDATES[int(np.argmin(scores))]


def main() -> None:
    """Choose, train on all training engines, evaluate the test engines once."""
    seed = parse_seed(__doc__ or "")
    example = CmapssFd001()
    recordings = Recordings(example.sequences("train"), example.targets("train"))
    settings = choose(recordings, seed)
    network = train_engines(recordings, settings, seed)
    save(example, network)
    score = example.metric(run_whole(network, example.sequences("test")), "test")
    print(f"test {score}  seed {seed}  {settings}")


if __name__ == "__main__":
    main()
