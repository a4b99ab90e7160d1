from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import edge_gru
from edge_gru.cli import main


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def files(gru_file, write, sequences, tmp_path):
    lines = [",".join(f"{v:.6f}" for v in row) for row in sequences[0]]
    csv = tmp_path / "healthy.csv"
    csv.write_text("\n".join(["vibration [g],temperature [degC],current [A]", *lines]))
    return write(gru_file), csv


def test_csv_with_a_header_becomes_a_bundle_with_its_channels(run, files, tmp_path):
    model, csv = files
    result = run("quantize", model, "--calibration", csv, "--rate", 100, "-o", tmp_path / "m.egb")
    assert result.exit_code == 0, result.output
    schema = edge_gru.load(tmp_path / "m.egb").manifest.schema
    assert schema.names == ("vibration", "temperature", "current")
    assert schema.channels[0].unit == "g"
    assert schema.rate_hz == 100
    assert "step graph against the model" in result.stdout
    assert "prove: 1 of 1" in result.stderr


def test_json_report_is_all_that_is_on_stdout(run, files, tmp_path, sequences):
    np.savez(tmp_path / "c.npz", *sequences)
    result = run(
        *("quantize", files[0], "--calibration", tmp_path / "c.npz", "-o", tmp_path / "m.egb"),
        *("--channels", "a [g],b,c", "--labels", "ok,worn", "--json"),
    )
    report = json.loads(result.stdout)
    bundle = edge_gru.load(tmp_path / "m.egb")
    assert report["hash"] == bundle.hash
    assert report["proof"]["n_sequences"] == 2
    assert bundle.manifest.labels == ("ok", "worn")
    assert bundle.manifest.schema.channels[0].unit == "g"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--recipe", "magic"], "expected a recipe"),
        (["--channels", "a,b"], "2 channels (a, b), got 3"),
        (["--channels", "a,a,b"], "expected distinct channel names"),
        (["--rate", "-1"], "positive rate_hz"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(run, files, tmp_path, arguments, reason):
    model, csv = files
    result = run("quantize", model, "--calibration", csv, "-o", tmp_path / "m.egb", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("edge-gru: error: ")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "m.egb").exists()


def test_nan_in_calibration_is_located(run, files, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b,c\n1,2,3\n1,nan,3\n")
    result = run(
        "quantize", files[0], "--calibration", tmp_path / "bad.csv", "-o", tmp_path / "m.egb"
    )
    assert result.exit_code == 2
    assert "got nan in sequence 0, step 1, channel b" in result.stderr


def test_folder_that_does_not_exist_leaves_nothing_behind(run, files, tmp_path):
    model, csv = files
    result = run("quantize", model, "--calibration", csv, "-o", tmp_path / "none" / "m.egb")
    assert result.exit_code == 2
    assert "choose a folder that exists" in result.stderr


def test_report_that_cannot_be_written_is_known_before_the_work(run, files, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    output = tmp_path / "x.egb"
    model, csv = files
    result = run("quantize", model, "--calibration", csv, "-o", output, "--report", blocked)
    assert result.exit_code == 2
    assert "cannot write the report" in result.stderr
    assert "prove" not in result.stderr
    assert not output.exists()
