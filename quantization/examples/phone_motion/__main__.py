"""Train the activity from a phone. Settings come from a subject who is not in the test."""

from __future__ import annotations

import numpy as np
import torch

from firmware_bridge.sample import Float32
from quantization.examples.metrics import accuracy
from quantization.examples.network import run_whole, save
from quantization.examples.phone_motion import PhoneMotion
from quantization.examples.training import Recordings, Settings, parse_seed, train

CANDIDATES = (
    Settings(n_epochs=40, learning_rate=5e-3, batch_size=8),
    Settings(n_epochs=40, learning_rate=5e-3, batch_size=8, dropout=0.3),
    Settings(n_epochs=80, learning_rate=5e-3, batch_size=8, dropout=0.3),
    Settings(n_epochs=80, learning_rate=5e-3, batch_size=8, dropout=0.3, weight_decay=0.05),
)

# A phone goes into a pocket four ways: screen in or out, upside up or down.
WAYS_ROUND = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
TILT_RAD = 0.15


def carried_otherwise(x: Float32, rng: np.random.Generator) -> Float32:
    """Return the recording ``(n_steps, 6)`` with the phone put otherwise into the pocket."""
    a, b, c = rng.normal(0.0, TILT_RAD, 3)
    tilt = np.linalg.qr(np.eye(3) + np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]]))[0]
    tilt = tilt * np.sign(np.diag(tilt))
    rotation = tilt * WAYS_ROUND[rng.integers(4)]
    turned = x.reshape(-1, 2, 3) @ rotation
    return (turned.reshape(-1, 6) * rng.uniform(0.9, 1.1)).astype(np.float32)


def train_subjects(recordings: Recordings, settings: Settings, seed: int) -> torch.nn.Module:
    """Train with the cross-entropy of every sample."""
    return train(
        PhoneMotion(),
        recordings,
        torch.nn.functional.cross_entropy,
        settings,
        seed=seed,
        augment=carried_otherwise,
    )


def choose(example: PhoneMotion, recordings: Recordings, seed: int) -> Settings:
    """Print the score of every candidate on the validation subject and return the best one."""
    scores = []
    for settings in CANDIDATES:
        network = train_subjects(recordings, settings, seed)
        outputs = run_whole(network, example.sequences("validation"))
        scores.append(example.metric(outputs, "validation")["accuracy"])
        print(f"validation accuracy {scores[-1]:.4f}  {settings}", flush=True)
    return CANDIDATES[int(np.argmax(scores))]


def main() -> None:
    """Choose, train on all subjects but the test's, evaluate the test subject once."""
    seed = parse_seed(__doc__ or "")
    example = PhoneMotion()
    parts = {
        split: Recordings(example.sequences(split), example.targets(split))
        for split in ("train", "validation")
    }
    settings = choose(example, parts["train"], seed)
    everything = Recordings(
        [x for part in parts.values() for x in part.sequences],
        [y for part in parts.values() for y in part.targets],
    )
    network = train_subjects(everything, settings, seed)
    save(example, network)
    score = example.metric(run_whole(network, example.sequences("test")), "test")
    truth = np.concatenate(example.targets("test"))
    majority = np.bincount(np.concatenate(list(everything.targets))).argmax()
    baseline = accuracy(np.full_like(truth, majority), truth)
    print(f"test {score}  seed {seed}  {settings}; always the commonest class: {baseline:.4f}")


if __name__ == "__main__":
    main()
