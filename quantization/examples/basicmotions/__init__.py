"""Activity from a smart watch: BasicMotions of the UEA archive, ten seconds at 10 Hz each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from firmware_bridge.sample import Float32, Schema
from quantization.examples.example import Architecture, Example, Targets, check_split, data_folder
from quantization.examples.metrics import accuracy
from quantization.examples.ts_file import read_clips

RATE_HZ = 10.0


class BasicMotions(Example):
    """Scores the activity so far; the decision is that of the last step.

    Splits are ``train`` and ``test``.
    """

    name = "basicmotions"
    outputs = ("standing", "running", "walking", "badminton")
    labels = ("Standing", "Running", "Walking", "Badminton")
    task_metric = "accuracy"
    more_is_better = True
    resets = True
    architecture = Architecture(n_hidden=32)

    def schema(self) -> Schema:
        """Return accelerometer and gyroscope; the archive states no units."""
        return Schema.of(["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"], rate_hz=RATE_HZ)

    def sequences(self, split: str) -> list[Float32]:
        """Return one recording ``(100, 6)`` per clip."""
        return [x for x, _ in _clips(split)]

    def targets(self, split: str) -> list[Targets]:
        """Return the class of the clip at every step."""
        return [np.full(len(x), self.labels.index(label), np.int64) for x, label in _clips(split)]

    def metric(self, outputs: Sequence[Float32], split: str) -> Mapping[str, float]:
        """Return the accuracy of the decisions at the last step of each clip."""
        truth = np.array([target[-1] for target in self.targets(split)])
        return {"accuracy": accuracy(np.array([y[-1].argmax() for y in outputs]), truth)}


def _clips(split: str) -> list[tuple[Float32, str]]:
    check_split(split, ("train", "test"))
    return read_clips(data_folder("basicmotions") / f"BasicMotions_{split.upper()}.ts")
