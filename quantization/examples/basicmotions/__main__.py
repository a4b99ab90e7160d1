"""Train the activity of BasicMotions. Settings come from held-out training clips alone."""

from __future__ import annotations

import numpy as np
import torch

from firmware_bridge.sample import Float32
from quantization.examples.basicmotions import BasicMotions
from quantization.examples.network import run_whole, save
from quantization.examples.training import Recordings, Settings, parse_seed, train

N_FOLDS = 4
CANDIDATES = (
    Settings(n_epochs=60, learning_rate=1e-2, batch_size=10),
    Settings(n_epochs=60, learning_rate=1e-2, batch_size=10, dropout=0.3),
    Settings(n_epochs=150, learning_rate=1e-2, batch_size=10, dropout=0.3),
    Settings(n_epochs=150, learning_rate=4e-3, batch_size=10, dropout=0.3),
)


def worn_otherwise(x: Float32, rng: np.random.Generator) -> Float32:
    """Return the clip ``(n_steps, 6)`` as another wearer might have made it, begun elsewhere."""
    gain = np.repeat(rng.uniform(0.7, 1.4, 2), 3) * rng.uniform(0.9, 1.1, 6)
    return (np.roll(x, rng.integers(len(x)), axis=0) * gain).astype(np.float32)


def train_clips(recordings: Recordings, settings: Settings, seed: int) -> torch.nn.Module:
    """Train with the cross-entropy of every step."""
    return train(
        BasicMotions(),
        recordings,
        torch.nn.functional.cross_entropy,
        settings,
        seed=seed,
        augment=worn_otherwise,
    )


def held_out_score(recordings: Recordings, settings: Settings, seed: int) -> tuple[float, float]:
    """Return accuracy and mean log-likelihood of the last step over held-out folds."""
    n_right, likelihoods = 0, []
    everything = range(len(recordings.sequences))
    for fold in range(N_FOLDS):  # the clips are sorted by class: every fold has all of them
        held_out = [i for i in everything if i % N_FOLDS == fold]
        rest = [i for i in everything if i % N_FOLDS != fold]
        network = train_clips(recordings.subset(rest), settings, seed)
        for i, y in zip(
            held_out,
            run_whole(network, recordings.subset(held_out).sequences),
            strict=True,
        ):
            truth = recordings.targets[i][-1]
            n_right += int(y[-1].argmax() == truth)
            likelihoods.append(y[-1, truth] - np.logaddexp.reduce(y[-1]))
    return n_right / len(recordings.sequences), float(np.mean(likelihoods))


def choose(recordings: Recordings, seed: int) -> Settings:
    """Print the held-out score of every candidate and return the best one."""
    scores = []
    for settings in CANDIDATES:
        scores.append(held_out_score(recordings, settings, seed))
        print(
            f"held-out accuracy {scores[-1][0]:.3f}, log-likelihood {scores[-1][1]:.3f}  {settings}"
        )
    return CANDIDATES[max(range(len(CANDIDATES)), key=scores.__getitem__)]


def main() -> None:
    """Choose, train on all training clips, evaluate the test clips once."""
    seed = parse_seed(__doc__ or "")
    example = BasicMotions()
    recordings = Recordings(example.sequences("train"), example.targets("train"))
    settings = choose(recordings, seed)
    network = train_clips(recordings, settings, seed)
    save(example, network)
    score = example.metric(run_whole(network, example.sequences("test")), "test")
    print(f"test {score}  seed {seed}  {settings}")


if __name__ == "__main__":
    main()
