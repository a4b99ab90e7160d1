from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from edge_gru.bundle import Bundle
from firmware_bridge.sample import Schema

RATE_HZ = 1000
N_CHANNELS = 8

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def fast_bundle() -> Bundle:
    torch = pytest.importorskip("torch", reason="quantizing a torch module needs torch")
    from quantization import quantize  # noqa: PLC0415 - needs onnx, which a device has not

    torch.manual_seed(0)
    model = torch.nn.GRU(N_CHANNELS, 64, batch_first=True)
    calibration = np.random.default_rng(0).normal(size=(2, 200, N_CHANNELS))
    schema = Schema.unnamed(N_CHANNELS, rate_hz=RATE_HZ)
    return quantize(model, list(calibration), recipe="rec", schema=schema)


@pytest.mark.parametrize("duration_s", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kilohertz_of_eight_channels_is_one_prediction_per_sample(
    live, fast_bundle, tmp_path, duration_s
):
    bundle_path = fast_bundle.save(tmp_path / "fast.egb")
    n_samples = duration_s * RATE_HZ
    samples = np.random.default_rng(1).normal(size=(n_samples, N_CHANNELS)).astype(np.float32)
    recording = tmp_path / "recording.csv"
    np.savetxt(recording, samples, fmt="%.9g", delimiter=",")
    # A process of its own, as a board is a machine of its own: here it would wait for this test.
    board = live("simulate", recording, "--rate", RATE_HZ, "--link", tmp_path / "board")
    port = board.process.stdout.readline().strip()
    options = ("--engine", "onnxruntime", "--precision", "int8", "--json")
    running = live("run", bundle_path, "--port", port, *options)
    # The board goes with its last sample.
    running.read_until(lambda event: event["kind"] == "link" and not event["up"])
    summary = json.loads(running.end(signal.SIGTERM).splitlines()[-1])
    assert board.process.stderr.read() == f"sent {n_samples} samples, 0 found no reader\n"
    assert [event["sample_seq"] for event in running.predictions] == list(range(n_samples))
    assert summary["n_samples"] == summary["n_predictions"] == n_samples
    assert summary["lost_samples"] == summary["overrun_samples"] == summary["frames_bad"] == 0
    with fast_bundle.open("onnxruntime", precision="int8") as engine:
        expected = np.stack([engine.step(row) for row in samples])
    streamed = np.array([list(event["y"].values()) for event in running.predictions], np.float32)
    np.testing.assert_array_equal(streamed, expected)
