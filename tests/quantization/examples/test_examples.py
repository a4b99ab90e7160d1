"""What holds for every example without recordings and without torch."""

import os
import subprocess
import sys

import numpy as np
import pytest

from quantization.examples import EXAMPLES
from quantization.examples.example import DATA_VARIABLE, data_folder
from quantization.examples.metrics import accuracy, macro_f1

MAX_CHECKPOINT_BYTES = 300_000


def test_table_holds_the_examples_under_their_names():
    assert list(EXAMPLES) == ["basicmotions", "cmapss_fd001", "phone_motion", "pump"]
    assert all(name == example.name for name, example in EXAMPLES.items())


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda e: e.name)
def test_outputs_are_named_and_labels_belong_to_them(example):
    assert len(set(example.outputs)) == len(example.outputs) > 0
    if example.labels:
        assert [label.lower() for label in example.labels] == list(example.outputs)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda e: e.name)
def test_checkpoint_is_small(example):
    assert 0 < example.checkpoint.stat().st_size < MAX_CHECKPOINT_BYTES


def test_data_and_metrics_do_not_load_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from quantization.examples import EXAMPLES\n"
        "pump = EXAMPLES['pump']; print(pump.schema().names, pump.scenarios('test')[0].rate_hz)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "vib_x" in done.stdout


def test_missing_recordings_are_explained(monkeypatch, tmp_path):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match=r"EDGE_GRU_DATA .* not set"):
        data_folder("basicmotions")
    monkeypatch.setitem(os.environ, DATA_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"basicmotions.* correct EDGE_GRU_DATA"):
        EXAMPLES["basicmotions"].sequences("train")


def test_accuracy_counts_right_decisions():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_macro_f1_weighs_classes_alike():
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert macro_f1(predicted, truth, 2) == pytest.approx((6 / 7 + 0) / 2)
    assert macro_f1(truth, truth, 2) == 1.0


def test_macro_f1_of_a_class_nobody_saw_is_zero():
    assert macro_f1(np.array([0]), np.array([0]), 2) == 0.5
