from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

import edge_gru
from edge_gru.errors import ConfigError, DataError, ModelError
from edge_gru.manifest import Alert, Normalisation
from firmware_bridge.sample import Schema
from quantization import quantize

SCHEMA = Schema.of([("vibration", "g"), ("temperature", "degC"), "current"], rate_hz=50.0)


def report(bundle):
    return json.loads(bundle.parts["report.json"])


def test_bundle_says_what_it_is(gru_file, write, sequences):
    bundle = quantize(
        write(gru_file),
        sequences,
        schema=SCHEMA,
        name="pump",
        labels=("ok", "worn"),
        alerts=[Alert("wear", "y.worn", 0.8, 0.5, 1.0)],
    )
    manifest = bundle.manifest
    assert manifest.schema == SCHEMA
    assert (manifest.name, manifest.outputs, manifest.labels) == (
        "pump",
        ("ok", "worn"),
        ("ok", "worn"),
    )
    assert manifest.recipe.name == "rec"
    assert manifest.default_precision == "int8"
    assert set(manifest.precisions) == {"fp32", "fp16", "int8"}
    assert manifest.n_warmup is not None
    assert manifest.input_range.maximum[0] == max(s[:, 0].max() for s in sequences)
    assert not [name for name in bundle.parts if name.endswith((".pkl", ".pt", ".plan"))]


def test_names_may_be_left_out(gru_file, write, sequences):
    manifest = quantize(write(gru_file), sequences).manifest
    assert manifest.schema == Schema.unnamed(3)
    assert manifest.outputs == ("y0", "y1")


def test_same_input_gives_the_same_bytes(gru_file, write, sequences):
    path = write(gru_file)
    first, second = (quantize(path, sequences).to_bytes() for _ in range(2))
    assert first == second
    other = quantize(path, [sequence + 1 for sequence in sequences])
    assert other.to_bytes() != first


def test_recipe_decides_what_the_bundle_serves(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences, recipe="fp32")
    assert bundle.manifest.default_precision == "fp32"
    assert "int8" not in bundle.manifest.precisions


def test_rec_costs_little_and_the_report_says_where(gru_file, write, sequences):
    found = report(quantize(write(gru_file), sequences))
    assert found["deviation_from_fp32"]["int8"]["sqnr_db"] > 40
    assert found["deviation_from_fp32"]["int8"]["sqnr_db"] < 90
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows["gru_00.w_hh"]["dtype"] == "int8"
    assert rows["gru_00.w_hh"]["sqnr_db"] > 35
    assert rows["gru_00.w_ih"]["dtype"] == "float32"
    assert rows["state_00_h"]["dtype"] == "float32"


def test_normalisation_is_applied_as_the_trainer_did(gru_file, write, sequences):
    mean, scale = (5.0, -300.0, 9000.0), (2.0, 40.0, 17.0)
    physical = [s * np.float32(scale) + np.float32(mean) for s in sequences]
    bundle = quantize(
        write(gru_file), physical, normalisation=Normalisation(mean=mean, scale=scale)
    )
    plain = quantize(write(gru_file), sequences)
    with bundle.open("onnxruntime", precision="fp32") as a, plain.open("reference") as b:
        for row in physical[0]:
            normalised = (row - np.float32(mean)) / np.float32(scale)
            assert np.abs(a.step(row) - b.step(normalised)).max() < 2e-2
    assert report(bundle)["proof"]["largest_difference"] <= 1e-6
    assert bundle.manifest.normalisation.mean == mean


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        (
            {"recipe": "magic"},
            ConfigError,
            "fp32, auto or a .toml file, got 'magic'",
        ),
        ({"labels": ("a",)}, ConfigError, "expected 2 distinct labels"),
        ({"outputs": ("a", "a")}, ConfigError, "expected 2 distinct outputs"),
        ({"alerts": [Alert("w", "y.z", 1.0, 0.5)]}, ConfigError, "expected an output of y0, y1"),
        ({"schema": Schema.of(["a", "b"])}, DataError, r"of 2 channels \(a, b\), got 3"),
        (
            {"normalisation": Normalisation((0.0,), (1.0,))},
            ModelError,
            "each of 3 channels, got 1 and 1",
        ),
        (
            {"normalisation": Normalisation((0.0,) * 3, (1.0, 0.0, 1.0))},
            ModelError,
            "positive scales",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(
    gru_file, write, sequences, changes, error, reason
):
    with pytest.raises(error, match=reason):
        quantize(write(gru_file), sequences, **changes)


def test_progress_is_told_to_the_end_of_every_stage(gru_file, write, sequences):
    seen: dict[str, list[tuple[int, int]]] = {}
    quantize(
        write(gru_file),
        sequences,
        progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    assert list(seen) == ["import", "prove", "round", "judge", "warm-up", "pack"]
    for steps in seen.values():
        assert steps[-1][0] == steps[-1][1]
        assert all(a[0] < b[0] for a, b in pairwise(steps))


def test_saved_bundle_runs_as_in_the_readme(gru_file, write, sequences, tmp_path):
    quantize(write(gru_file), sequences).save(tmp_path / "pump.egb")
    bundle = edge_gru.load(tmp_path / "pump.egb")
    with bundle.open("auto", streams=1) as engine:
        assert engine.step(sequences[0][0]).shape == (2,)


def test_an_onnx_file_is_quantized_without_torch(gru_file, write, sequences, tmp_path):
    path = write(gru_file)
    np.save(tmp_path / "calibration.npy", sequences[0])
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnxscript'] = None\n"
        "import numpy as np; from quantization import quantize\n"
        f"quantize({str(path)!r}, [np.load({str(tmp_path / 'calibration.npy')!r})])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_report_says_what_tensorrt_would_make_of_the_graphs(gru_file, write, sequences):
    path = write(gru_file)
    assert report(quantize(path, sequences))["tensorrt_lint"] == []
    model = onnx.load(path)
    model.opset_import[0].version = 21
    model.graph.node.append(helper.make_node("Celu", ["y"], ["z"], name="odd"))
    model.graph.output[0].name = "z"
    onnx.save(model, path)
    found = report(quantize(path, sequences))["tensorrt_lint"]
    assert found[0] == "fp16.onnx: graph: expected opset 20 or older, got 21"


def test_weights_that_are_not_finite_are_named(gru_file, write, sequences):
    gru_file.weights["r"][0, 3, 2] = np.nan
    with pytest.raises(ModelError, match=r"got NaN or Inf in gru_00.w_hh"):
        quantize(write(gru_file), sequences)
