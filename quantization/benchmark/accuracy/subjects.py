"""Trained networks with the streams that they are calibrated on, and others that judge them."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from firmware_bridge.sample import Float32
from quantization.benchmark.accuracy.cache import trained
from quantization.benchmark.accuracy.network import (
    HiddenOutputs,
    NetworkSpec,
    TrainingStreams,
)
from quantization.benchmark.accuracy.streams import (
    long_memory,
    plucked_strings,
    run_to_failure,
)
from quantization.examples import EXAMPLES
from quantization.examples.example import Targets, data_folder
from quantization.examples.ts_file import read_clips
from quantization.metrics import METRICS, Metric

_N_UNITS = 64
_N_LARGE_UNITS = 256
_N_TRAINING_STREAMS, _N_TRAINING_STEPS = 48, 4000
_N_CALIBRATION_STREAMS, _N_CALIBRATION_STEPS = 12, 4000
_N_TEST_STREAMS, _N_TEST_STEPS = 24, 5000
_TRAINING_SEED, _CALIBRATION_SEED, _TEST_SEED = 1000, 4321, 9999
_NO_LABEL = -1
_PHONE_SPLITS = ("train", "validation", "test")
_HELD_OUT_EVERY = 5
_N_AUDIO_STREAMS, _N_AUDIO_STEPS = 8, 11_025


@dataclass(frozen=True)
class Subject:
    """A trained network, and disjoint sequences ``(n_steps, n_in)`` for it.

    ``calibration`` is all that quantization sees; ``test`` with ``targets`` is judged on. The
    state is carried on where sequences join unless it ``resets``. With ``calibration_targets`` the
    metric decides when it is quantized, too. ``remark`` says what the network is
    worth, where no metric does.
    """

    name: str
    model: nn.Module
    calibration: Sequence[Float32]
    test: Sequence[Float32]
    targets: Sequence[Targets] | None = None
    metric: Metric | None = None
    calibration_targets: Sequence[Targets] | None = None
    resets: bool = False
    remark: str = ""


def long_memory_network(cell: str = "GRU", seed: int = 0) -> Subject:
    """LM: a flip-flop and an average over 300 steps."""
    spec = NetworkSpec(cell, _N_UNITS, seed=seed, n_epochs=24, window_steps=200, slow_start=True)
    return _synthetic("lm", long_memory, spec)


def run_to_failure_network(cell: str = "GRU", seed: int = 0) -> Subject:
    """RTF: remaining life from 14 sensors, four of them with spikes of 25 sigma."""
    rate = 2e-3 if cell == "RNN" else 4e-3
    spec = NetworkSpec(cell, _N_UNITS, seed=seed, n_epochs=14, learning_rate=rate)
    return _synthetic("rtf", run_to_failure, spec)


def _synthetic(
    task: str, make: Callable[[int, int, int], tuple[Float32, Float32]], spec: NetworkSpec
) -> Subject:
    x, y = make(_N_TRAINING_STEPS, _N_TRAINING_STREAMS, _TRAINING_SEED + spec.seed)
    network = trained(f"{task}-{spec.cell}-{spec.seed}", spec, TrainingStreams(x, y))
    calibration, _ = make(_N_CALIBRATION_STEPS, _N_CALIBRATION_STREAMS, _CALIBRATION_SEED)
    test, targets = make(_N_TEST_STEPS, _N_TEST_STREAMS, _TEST_SEED)
    name = f"{task.upper()} {spec.cell} seed {spec.seed}"
    return Subject(name, network, list(calibration), list(test), list(targets), METRICS["rmse"])


def japanese_vowels_network(seed: int = 0) -> Subject:
    """JV: which of nine speakers utters, told at the end of each utterance, without a pause.

    Utterances are joined in seeded random orders, the state carried on from one to the next.
    """
    folder = data_folder("japanese_vowels")
    train, test = (read_clips(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST"))
    speakers = sorted({label for _, label in train})
    clips = [[(x, speakers.index(label)) for x, label in part] for part in (train, test)]
    spec = NetworkSpec("GRU", _N_UNITS, seed=seed, n_epochs=12, window_steps=60, learning_rate=3e-3)
    joins = [_joined(clips[0], [_TRAINING_SEED, seed, k]) for k in range(_N_TRAINING_STREAMS)]
    x, y = (np.stack(arrays) for arrays in zip(*joins, strict=True))
    network = trained(f"jv-GRU-{seed}", spec, TrainingStreams(x, y, len(speakers)))
    order = np.random.default_rng(_CALIBRATION_SEED).permutation(len(train))
    groups = np.array_split(order, _N_CALIBRATION_STREAMS)
    calibration = [np.concatenate([train[k][0] for k in group]) for group in groups]
    judged = [_joined(clips[1], [_TEST_SEED, k], ends_only=True) for k in range(_N_TEST_STREAMS)]
    return Subject(
        f"JV GRU seed {seed}", network, calibration,
        [x for x, _ in judged], [y for _, y in judged], METRICS["accuracy"],
    )  # fmt: skip


def _joined(
    clips: Sequence[tuple[Float32, int]], seed: Sequence[int], *, ends_only: bool = False
) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Join all clips in a seeded order: samples, and the class at every step, or at ends alone."""
    order = np.random.default_rng(seed).permutation(len(clips)).tolist()
    labels = []
    for k in order:
        x, label = clips[k]
        labels.append(np.full(len(x), _NO_LABEL if ends_only else label, np.int64))
        labels[-1][-1] = label
    return np.concatenate([clips[k][0] for k in order]), np.concatenate(labels)


def example_network(name: str) -> Subject:
    """One of the trained examples, judged on its test recordings by its own metric."""
    example = EXAMPLES[name]

    def score(outputs: Sequence[Float32], _: Sequence[Targets]) -> float:
        return example.metric(outputs, "test")[example.task_metric]

    return Subject(
        name,
        example.load_trained(),
        example.sequences("train"),
        example.sequences("test"),
        example.targets("test"),
        Metric(example.task_metric, score, example.more_is_better),
        resets=example.resets,
    )


def large_network(cell: str, n_layers: int = 1) -> Subject:
    """256 units a layer, trained on the activity recordings of a phone; their h is the output.

    Every fifth recording, of all subjects, is held out and judges.
    """
    phone = EXAMPLES["phone_motion"]
    recordings = [x for part in _PHONE_SPLITS for x in phone.sequences(part)]
    labels = [y for part in _PHONE_SPLITS for y in phone.targets(part)]
    is_test = [k % _HELD_OUT_EVERY == 0 for k in range(len(recordings))]
    known = [k for k, held_out in enumerate(is_test) if not held_out]
    spec = NetworkSpec(
        cell, _N_LARGE_UNITS, n_layers, n_epochs=15, window_steps=50, learning_rate=1e-3,
        weight_decay=1e-2, batch_size=12,
    )  # fmt: skip
    longest = max(map(len, recordings))
    x = np.stack([_padded(recordings[k], longest, mode="edge") for k in known])
    y = np.stack([_padded(labels[k], longest, constant_values=_NO_LABEL) for k in known])
    streams = TrainingStreams(x, y, len(phone.labels))
    network = trained(f"phone-{cell}-{_N_LARGE_UNITS}x{n_layers}", spec, streams)
    test = [k for k, held_out in enumerate(is_test) if held_out]
    share = _share_right(network, [recordings[k] for k in test], [labels[k] for k in test])
    return Subject(
        f"{cell}({_N_LARGE_UNITS})" + (f" x {n_layers}" if n_layers > 1 else ""),
        HiddenOutputs(network),
        [recordings[k] for k in known],
        [recordings[k] for k in test],
        resets=True,
        remark=f"with its head, {share:.1%} of held-out samples get the right activity",
    )


def _padded(values: npt.NDArray[Any], n_steps: int, **how: Any) -> npt.NDArray[Any]:
    return np.pad(values, [(0, n_steps - len(values))] + [(0, 0)] * (values.ndim - 1), **how)


def _share_right(
    network: nn.Module, sequences: Sequence[Float32], truth: Sequence[Targets]
) -> float:
    found = np.concatenate([_whole(network, x).argmax(axis=1) for x in sequences])
    return float(np.mean(found == np.concatenate(list(truth))))


class AmplifierNetwork(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A guitar amplifier, sample by sample: ``y = lin(rec(x)) + x``."""

    def __init__(self, cell: str, n_hidden: int) -> None:
        super().__init__()
        self.rec = getattr(nn, cell)(1, n_hidden, batch_first=True)
        self.lin = nn.Linear(n_hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of every sample."""
        return self.lin(self.rec(x)[0]) + x


def amplifier_network(name: str) -> tuple[Subject, Subject]:
    """Third-party weights, calibrated on plucked strings; judged on others, and on a recording.

    The network's own fp32 output is the target: the metric is the error-to-signal ratio that
    quantization makes. The recording is a click that dies away, and then silence.
    """
    folder = data_folder("amp_models")
    described = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    shape = described["model_data"]
    network = AmplifierNetwork(shape["unit_type"], shape["hidden_size"])
    weights = described["state_dict"]
    network.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    network.eval()
    calibration, plucked = (
        list(plucked_strings(_N_AUDIO_STEPS, _N_AUDIO_STREAMS, seed))
        for seed in (_CALIBRATION_SEED, _TEST_SEED)
    )
    label = f"{name} {shape['unit_type']}({shape['hidden_size']})"
    strings, click = (
        Subject(
            f"{label}, {what}",
            network,
            calibration,
            test,
            [_whole(network, x) for x in test],
            METRICS["esr"],
            calibration_targets=[_whole(network, x) for x in calibration],
        )
        for what, test in (
            ("strings", plucked), ("click", [_read_audio(folder / "guitar_44k1.wav")])
        )
    )  # fmt: skip
    return strings, click


def _read_audio(path: Path) -> Float32:
    with wave.open(str(path)) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")
    return (samples[:, None] / np.float32(32768)).astype(np.float32)


def _whole(network: nn.Module, sequence: Float32) -> npt.NDArray[Any]:
    with torch.no_grad():
        return network(torch.from_numpy(sequence)[None])[0].numpy()
