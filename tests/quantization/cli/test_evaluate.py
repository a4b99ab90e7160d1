from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edge_gru.bundle import Bundle
from edge_gru.cli import main
from quantization import quantize
from quantization.cli.evaluate import evaluate


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def data(sequences, tmp_path):
    np.savez(tmp_path / "data.npz", *sequences)
    return tmp_path / "data.npz"


@pytest.fixture
def bundle(gru_file, write, sequences):
    return quantize(write(gru_file), sequences, name="pump")


@pytest.fixture
def path(bundle, tmp_path):
    return bundle.save(tmp_path / "pump.egb")


def test_verb_is_listed_and_is_ours(run):
    assert "evaluate" in run("--help").stdout
    assert main.get_command(None, "evaluate") is evaluate


def test_a_bundle_passes_on_data_like_its_own(run, path, data, tmp_path):
    result = run("evaluate", path, "--data", data, "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "pump, recipe rec: gate pass" in result.stdout
    assert "stuck units" in result.stdout
    assert "judge: " in result.stderr
    assert (tmp_path / "report" / "report.html").stat().st_size > 5000


def test_json_is_all_that_is_on_stdout(run, path, bundle, data):
    report = json.loads(run("evaluate", path, "--data", data, "--steps", 4000, "--json").stdout)
    assert report["bundle"] == str(path)
    assert report["bundle_hash"] == bundle.hash
    assert report["gate"]["verdict"] == "warn"  # too few steps


def test_targets_and_metric(run, path, bundle, sequences, data, tmp_path):
    with bundle.open("reference", precision="fp32") as engine:
        targets = []
        for sequence in sequences:
            engine.reset()
            targets.append(np.stack([engine.step(x) for x in sequence]) + 1)
    np.savez(tmp_path / "targets.npz", *targets)
    files = ("--data", data, "--targets", tmp_path / "targets.npz")
    result = run("evaluate", path, *files, "--metric", "rmse", "--json")
    task = json.loads(result.stdout)["gate"]["task"]
    assert task["fp32"] == pytest.approx(1, abs=1e-4)
    assert task["n_sequences"] == 2
    worse = run("evaluate", path, *files, "--metric", "rmse", "--tolerance", "-1")
    assert worse.exit_code == 1
    assert "fail: task metric rmse" in worse.stdout


def test_one_label_a_recording(run, path, data, tmp_path):
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    result = run(
        *("evaluate", path, "--data", data, "--targets", tmp_path / "labels.npy"),
        *("--metric", "accuracy", "--steps", 4000, "--json"),
    )
    assert json.loads(result.stdout)["gate"]["task"]["n_sequences"] == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--metric", "rmse"], "got metric without targets"),
        (["--precision", "int1"], "got 'int1'"),
        (["--data", "none.npz"], "cannot read none.npz"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(run, path, data, arguments, reason):
    result = run("evaluate", path, "--data", data, *arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr


def test_columns_in_another_order_are_refused(run, path, sequences, tmp_path):
    rows = "\n".join(",".join(f"{v:.6f}" for v in row) for row in sequences[0])
    (tmp_path / "new.csv").write_text(f"ch1,ch0,ch2\n{rows}\n")
    result = run("evaluate", path, "--data", tmp_path / "new.csv")
    assert result.exit_code == 2
    assert "expected the bundle's channels ch0, ch1, ch2, got ch1, ch0, ch2" in result.stderr


def test_quantize_refuses_reports_and_packs_when_told_to(run, gru_file, write, data, tmp_path):
    model, bundle, folder = write(gru_file), tmp_path / "m.egb", tmp_path / "report"
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    arguments = (
        *("quantize", model, "--calibration", data, "-o", bundle, "--report", folder),
        *("--targets", tmp_path / "labels.npy", "--metric", "rmse", "--tolerance", "-1"),
    )
    np.save(tmp_path / "labels.npy", np.zeros((2, 2)))
    refused = run(*arguments)
    assert refused.exit_code == 2, refused.output
    assert "does not pass the gate: task metric rmse" in refused.stderr
    assert not bundle.exists()
    assert json.loads((folder / "report.json").read_text())["gate"]["verdict"] == "fail"
    accepted = run(*arguments, "--accept-failure")
    assert accepted.exit_code == 0, accepted.output
    assert "WARNING: did not pass: task metric rmse" in run("inspect", bundle).stdout


def test_a_bundle_without_fp32_has_nothing_to_compare_with(run, bundle, data, tmp_path):
    precisions = {"int8": bundle.manifest.precisions["int8"]}
    manifest = msgspec.structs.replace(bundle.manifest, precisions=precisions)
    path = Bundle.pack(manifest, bundle.parts).save(tmp_path / "only.egb")
    result = run("evaluate", path, "--data", data)
    assert result.exit_code == 2
    assert "expected a bundle with fp32" in result.stderr
