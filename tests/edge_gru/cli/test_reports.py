from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from edge_gru.bundle import Bundle
from edge_gru.manifest import GateResult, PrecisionInfo, ProductForm, Program, StepNode
from firmware_bridge.port import PortInfo


def test_inspect_shows_what_is_in_a_bundle(call, bundle_path, bundle):
    text = call("inspect", bundle_path).stdout
    for part in ("tiny", bundle.hash, "200 Hz", "vibration", "state_00_h", "3 samples"):
        assert part in text
    for info in bundle.manifest.parts.values():
        assert info.sha256 in text
    assert "high (y.y0 > 0.5)" in text
    assert "gru.w_hh" in text
    assert "float32" in text
    assert "Engines" not in text


def test_inspect_draws_the_step(call, bundle_path):
    text = call("inspect", bundle_path, "--graph").stdout
    assert "y (y0, y1, y2, y3)" in text
    assert "state_00_h_out = GRU [gru.b_hh 12 float32" in text
    assert text.index("x (vibration, current)") < text.index("state_00_h (4), carried")
    assert text.count("= GRU") == 1
    assert "Precisions" not in text


def test_inspect_draws_a_chain_of_any_length(call, pack, schema, tmp_path):
    nodes = [StepNode("GRU", ("x", "state_00_h"), ("state_00_h_out",), {"cell": "gru"})]
    nodes += [StepNode("Abs", ("state_00_h_out",), ("a0",))]
    nodes += [StepNode("Abs", (f"a{k}",), (f"a{k + 1}",)) for k in range(300)]
    path = pack(schema, program=Program(tuple(nodes), "a300", 17)).save(tmp_path / "long.egb")
    result = call("inspect", path, "--graph")
    assert result.exit_code == 0
    assert result.stdout.count("Abs") == 301


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        (None, "never judged"),
        (GateResult("pass"), "pass"),
        (GateResult("warn", ("largest deviation: 0.3",)), "warn: largest deviation: 0.3"),
        (GateResult("fail", ("stuck units: 80 %",)), "WARNING: did not pass: stuck units: 80 %"),
    ],
)
def test_inspect_says_what_the_gate_said(call, pack, schema, tmp_path, gate, text):
    path = pack(schema, gate=gate).save(tmp_path / "judged.egb")
    (line,) = [s for s in call("inspect", path).stdout.splitlines() if s.startswith("gate")]
    assert line.split(maxsplit=1)[1].strip() == text


def test_inspect_json_is_the_manifest_and_more(call, bundle_path, bundle):
    report = json.loads(call("inspect", bundle_path, "--json").stdout)
    assert report["manifest"] == json.loads(msgspec.json.encode(bundle.manifest))
    assert report["model_hash"] == bundle.hash
    assert report["n_bytes"] == bundle_path.stat().st_size
    assert {"name": "gru.w_hh", "type": "float32", "shape": [12, 4]} in report["tensors"]
    assert "engines" not in report


def test_inspect_measures_engines_when_asked(call, bundle_path):
    report = json.loads(call("inspect", bundle_path, "--engines", "--json").stdout)
    rows = {row["engine"]: row for row in report["engines"]}
    assert rows["reference"]["usable"]
    assert rows["reference"]["p50_us"] > 0
    assert not rows["onnxruntime"]["usable"]
    assert rows["onnxruntime"]["reason"]


def test_verify_passes_a_good_bundle(call, bundle_path):
    result = call("verify", bundle_path)
    assert result.exit_code == 0
    assert "pass" in result.stdout
    assert "not here: " in result.stdout


@pytest.fixture
def dishonest_path(pack, schema, tmp_path):
    bundle, other = pack(schema, seed=0), pack(schema, seed=1)
    parts = {**bundle.parts, "golden.safetensors": other.parts["golden.safetensors"]}
    return Bundle.pack(bundle.manifest, parts).save(tmp_path / "dishonest.egb")


def test_verify_fails_when_an_engine_answers_otherwise(call, dishonest_path):
    result = call("verify", dishonest_path, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["passed"]
    verdicts = {row["engine"]: row["verdict"] for row in report["results"]}
    assert verdicts.pop("native") in ("fail", "not here")  # without a compiler there is none
    assert verdicts == {"reference": "fail", "onnxruntime": "not here", "tensorrt": "not here"}
    assert report["results"][0]["golden"]["step_error"] > 0.01


def test_verify_fails_when_one_precision_of_two_does(call, pack, schema, tmp_path):
    narrowed = {"gru.w_hh": ProductForm("fp16", "fp16")}
    precisions = {
        "fp16": PrecisionInfo({}, 1e-6, 100.0, narrowed),
        "fp32": PrecisionInfo({}, 1e-6, 100.0),
    }
    path = pack(schema, precisions=precisions).save(tmp_path / "half.egb")
    result = call("verify", path, "--engine", "reference", "--json")
    assert result.exit_code == 1
    verdicts = {row["precision"]: row["verdict"] for row in json.loads(result.stdout)["results"]}
    assert verdicts == {"fp16": "fail", "fp32": "pass"}


def test_verify_one_engine(call, bundle_path):
    report = json.loads(call("verify", bundle_path, "--engine", "reference", "--json").stdout)
    assert [(row["engine"], row["verdict"]) for row in report["results"]] == [("reference", "pass")]


def test_verify_engine_that_is_not_there_is_an_error(call, bundle_path):
    result = call("verify", bundle_path, "--engine", "abacus")
    assert result.exit_code == 2
    known = "auto, reference, native, onnxruntime, tensorrt"
    assert f"expected an engine of {known}, got 'abacus'" in result.stderr


@pytest.mark.parametrize("verb", ["inspect", "verify"])
@pytest.mark.parametrize("damage", ["truncated", "tampered", "text"])
def test_damaged_bundle_is_one_sentence(call, bundle_path, verb, damage):
    content = bytearray(bundle_path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "tampered":
        content[content.index(b"stream.x") + 2000 - 1500] ^= 1
    else:
        content = bytearray(b"hello")
    bundle_path.write_bytes(content)
    result = call(verb, bundle_path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"edge-gru: error: {bundle_path}: ")
    assert result.stderr.count("\n") == 1


PORTS = [
    PortInfo("/dev/ttyACM0", "Pump board", "/dev/serial/by-id/usb-Pump", "/dev/by-path/1", "A1"),
    PortInfo("/dev/ttyS0"),
]


def test_ports_shows_the_names_that_stay(call, monkeypatch):
    monkeypatch.setattr("edge_gru.cli.ports.list_ports", lambda: PORTS)
    text = call("ports").stdout
    for part in ("/dev/ttyACM0", "Pump board", "by-id/usb-Pump", "/dev/by-path/1", "A1", "ttyS0"):
        assert part in text
    report = json.loads(call("ports", "--json").stdout)
    assert report[0]["by_id"] == "/dev/serial/by-id/usb-Pump"
    assert report[1]["serial_number"] is None


def test_no_ports_says_so(call, monkeypatch):
    monkeypatch.setattr("edge_gru.cli.ports.list_ports", list)
    assert "no serial port found" in call("ports").stdout
    assert json.loads(call("ports", "--json").stdout) == []


@pytest.mark.parametrize(("where", "reason"), [("/dev/full", "No space left"), (None, "a closed")])
def test_output_that_takes_nothing_is_one_sentence(bundle_path, where, reason):
    redirection = ">&-" if where is None else f"> {where}"
    command = f"{sys.executable} -c 'from edge_gru.cli import main; main()'"
    done = subprocess.run(
        ["sh", "-c", f"{command} inspect {bundle_path} {redirection}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("edge-gru: error: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
