"""Activity from a phone in the pocket, a label per sample: sp-sw-har, about 100 Hz, with gaps.

The recordings are from the GeoTec group (CC BY 4.0); five subjects, and the test subject is one
that training never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from firmware_bridge.sample import Float32, Float64, Schema
from quantization.examples.example import (
    Architecture,
    Example,
    Targets,
    check_split,
    concatenated,
    data_folder,
)
from quantization.examples.metrics import accuracy, macro_f1

RATE_HZ = 102.5  # mean of the recordings; single intervals are 0 to 154 ms
SUBJECTS = {"train": ("s01", "s02", "s03"), "validation": ("s04",), "test": ("s05",)}
_N_SENSORS, _TIMESTAMP, _LABEL = 6, 6, 7


class PhoneMotion(Example):
    """Scores what the wearer does at every sample.

    Splits are ``train``, ``validation`` and ``test``, each of other subjects.
    """

    name = "phone_motion"
    outputs = ("seated", "standing_up", "walking", "turning", "sitting_down")
    labels = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
    resets = True  # trained on recordings from a fresh start: it was never shown how to run on
    task_metric = "accuracy"
    more_is_better = True
    architecture = Architecture(n_hidden=48)

    def schema(self) -> Schema:
        """Return accelerometer and gyroscope of the phone."""
        return Schema.of(
            [
                ("acc_x", "m/s^2"),
                ("acc_y", "m/s^2"),
                ("acc_z", "m/s^2"),
                ("gyro_x", "rad/s"),
                ("gyro_y", "rad/s"),
                ("gyro_z", "rad/s"),
            ],
            rate_hz=RATE_HZ,
        )

    def sequences(self, split: str) -> list[Float32]:
        """Return one recording per execution, as it was recorded: nothing is resampled."""
        return [
            np.loadtxt(path, np.float32, delimiter=",", skiprows=1, usecols=range(_N_SENSORS))
            for path in _files(split)
        ]

    def times_s(self, split: str) -> list[Float64]:
        """Return the phone's time of every sample, from 0 at the start of each recording."""
        stamps_ms = [
            np.loadtxt(path, delimiter=",", skiprows=1, usecols=_TIMESTAMP)
            for path in _files(split)
        ]
        return [(t - t[0]) / 1000 for t in stamps_ms]

    def targets(self, split: str) -> list[Targets]:
        """Return the class of every sample."""
        labels = [
            np.loadtxt(path, str, delimiter=",", skiprows=1, usecols=_LABEL)
            for path in _files(split)
        ]
        return [np.array([self.labels.index(label) for label in part]) for part in labels]

    def metric(self, outputs: Sequence[Float32], split: str) -> Mapping[str, float]:
        """Return accuracy and macro-F1 over all samples."""
        targets = self.targets(split)
        truth = np.concatenate(targets)
        predicted = concatenated(outputs, len(targets)).argmax(axis=1)
        return {
            "accuracy": accuracy(predicted, truth),
            "macro_f1": macro_f1(predicted, truth, len(self.labels)),
        }


def _files(split: str) -> list[Path]:
    check_split(split, tuple(SUBJECTS))
    folder = data_folder("sp_sw_har")
    return [
        path for subject in SUBJECTS[split] for path in sorted((folder / subject).glob("*_sp.csv"))
    ]
