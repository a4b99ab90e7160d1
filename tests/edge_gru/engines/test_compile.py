"""The verbs compile, inspect --engines and run on a fake GPU."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from click.testing import CliRunner

from edge_gru.cli import main
from edge_gru.cli.compile import verdict
from edge_gru.engines import measure
from edge_gru.engines.choices import recall
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.measure import Measurement
from edge_gru.engines.select import open_engine
from edge_gru.service import EngineEvent, PredictionEvent, Service, make_config
from firmware_bridge.sample import SampleBlock

PASSED = GoldenResult("any", "int8", 1, 0.0, 1.0, 100.0, 30.0)


def row(engine: str, precision: str, p50_us: float) -> Measurement:
    return Measurement(engine, precision, p50_us, 2 * p50_us, PASSED)


@pytest.fixture
def path(bundle, tmp_path):
    return bundle.save(tmp_path / "model.egb")


@pytest.fixture
def call():
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def times(monkeypatch):
    """Decide how long a step takes by engine and precision, 9 us where nothing is said."""
    said: dict[str, float] = {}

    def times_us(engines, samples, build=None):
        return {k: [said.get(f"{e.name} {e.precision}", 9.0)] for k, e in engines.items()}

    monkeypatch.setattr(measure, "times_us", times_us)
    return said


def test_compile_builds_proves_and_measures(call, path, gpu, times, bundle):
    times |= {
        "tensorrt int8": 60.0,
        "tensorrt fp16": 50.0,
        "native int8": 5.0,
        "onnxruntime int8": 5.0,
    }
    result = call("compile", path, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert [plan["precision"] for plan in report["plans"]] == ["int8", "fp16", "fp32"]
    assert all(plan["was_built"] and plan["n_bytes"] > 0 for plan in report["plans"])
    assert gpu.trt.n_builds == 3
    rows = [(r["engine"], r["precision"]) for r in report["engines"] if r["usable"]]
    assert rows[-3:] == [("tensorrt", name) for name in ("int8", "fp16", "fp32")]
    assert any("INT8 is slower than FP16 here: 60 us against 50 us" in s for s in report["verdict"])
    assert "tensorrt int8: Build" in result.stderr
    kept = recall(bundle.hash, None)
    assert kept.is_whole
    assert kept.engine in ("native", "onnxruntime")
    again = json.loads(call("compile", path, "--json").stdout)
    assert not any(plan["was_built"] for plan in again["plans"])
    assert gpu.trt.n_builds == 3
    forced = json.loads(call("compile", path, "--precision", "fp16", "--force", "--json").stdout)
    assert [plan["was_built"] for plan in forced["plans"]] == [True]
    assert gpu.trt.n_builds == 4


def test_compile_takes_what_it_is_told_to(call, path, gpu, bundle):
    result = call("compile", path, "--precision", "int8, fp16", "--streams", 3)
    assert result.exit_code == 0
    assert gpu.trt.n_builds == 2
    for title in ("TensorRT plans", "Engines", "fastest here: "):
        assert title in result.stdout
    assert "fp32" not in result.stdout.partition("TensorRT plans")[2].partition("Engines")[0]
    call("compile", path, "--precision", "int8", "--streams", 2)
    assert recall(bundle.hash, "int8") is None  # several streams are another question
    wrong = call("compile", path, "--precision", "int4")
    assert wrong.exit_code == 2
    assert "expected one of the precisions" in wrong.stderr


def test_a_plan_that_cannot_be_built_is_told_and_counts(call, path, gpu):
    gpu.trt.fail_name = "Builder.build_serialized_network"
    result = call("compile", path, "--precision", "int8", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    (plan,) = report["plans"]
    assert not plan["was_built"]
    assert "cannot build the int8 graph" in plan["reason"]
    assert [r["engine"] for r in report["engines"] if r["usable"]] != []


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_compile_without_tensorrt_says_what_to_install(call, path):
    result = call("compile", path)
    assert result.exit_code == 2
    assert "python3-libnvinfer" in result.stderr


def test_the_verdict_names_the_fastest_and_what_does_not_pay():
    rows = [
        row("native", "int8", 5.0),
        row("tensorrt", "int8", 61.0),
        row("tensorrt", "fp16", 48.0),
    ]
    fastest, slower, gpu = verdict(rows, "int8")
    assert fastest == "fastest here: native int8, 5 us a step"
    assert slower.startswith("INT8 is slower than FP16 here: 61 us against 48 us")
    assert gpu == "the GPU does not pay here: tensorrt fp16 takes 48 us"
    rows = [
        row("native", "int8", 500.0),
        row("tensorrt", "int8", 40.0),
        row("tensorrt", "fp16", 48.0),
    ]
    assert list(verdict(rows, "int8")) == ["fastest here: tensorrt int8, 40 us a step"]
    assert list(verdict([], "int8")) == []


def test_inspect_shows_the_kept_table_and_measures_when_asked(call, path, gpu, times):
    first = json.loads(call("inspect", path, "--engines", "--json").stdout)
    assert first["engines_measured"] is None
    assert gpu.trt.n_builds == 0
    (last,) = [r for r in first["engines"] if r["engine"] == "tensorrt"]
    assert last["reason"] == "needs a build: edge-gru compile"
    times["native int8"] = 1.5
    kept = json.loads(call("inspect", path, "--engines", "--json").stdout)
    assert kept["engines"] == first["engines"]
    assert kept["engines_measured"] is not None
    call("compile", path)
    whole = json.loads(call("inspect", path, "--engines", "--json").stdout)
    of_tensorrt = [r["precision"] for r in whole["engines"] if r["engine"] == "tensorrt"]
    assert of_tensorrt == ["int8", "fp16", "fp32"]
    times["tensorrt fp16"] = 2.5
    anew = json.loads(call("inspect", path, "--measure", "--json").stdout)
    assert anew["engines_measured"] is None
    assert 2.5 in [r["p50_us"] for r in anew["engines"]]
    text = call("inspect", path, "--graph", "--engines").stdout
    assert "carried on in float32" in text
    assert "--measure does it anew" in text


def test_auto_opens_tensorrt_once_it_was_measured_as_the_fastest(call, path, gpu, times, bundle):
    with open_engine("auto", bundle.source) as engine:
        assert engine.name != "tensorrt"
    assert gpu.trt.n_builds == 0
    times["tensorrt fp16"] = 0.5
    call("compile", path)
    with open_engine("auto", bundle.source) as engine:
        assert (engine.name, engine.precision) == ("tensorrt", "fp16")


class Kept:
    """A sink that keeps events."""

    n_dropped = 0

    def __init__(self) -> None:
        self.events = []

    def write(self, event) -> None:
        self.events.append(event)

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.mark.parametrize(
    "settings", [{"engine": "tensorrt", "precision": "fp32"}, {"engine": "auto"}]
)
def test_run_serves_on_the_cpu_and_then_on_tensorrt(
    path, gpu, times, bundle, settings, pausing_link
):
    times["tensorrt fp32"] = 0.5
    x = np.random.default_rng(4).normal(size=(60, bundle.manifest.n_in)).astype(np.float32)

    def block(first, end):
        seq = np.arange(first, end)
        return SampleBlock(100.0 + seq / 100.0, seq, x[first:end], 101.0)

    sink = Kept()
    link = pausing_link(block(0, 25), lambda: sink.of(EngineEvent), block(25, 60))
    config = make_config({"bundle": str(path), "port": "/dev/x", "rate_hz": 100.0, **settings})
    Service(config, [sink], link_factory=lambda *_: link).run()
    (event,) = sink.of(EngineEvent)
    assert event.engine == "tensorrt-fp32"
    predictions = sink.of(PredictionEvent)
    assert [p.engine for p in predictions] == [event.previous] * 25 + ["tensorrt-fp32"] * 35
    before, precision = event.previous.split("-")
    with open_engine(before, bundle.source, precision=precision) as engine:
        first = engine.run_sequence(x[:25])
        state = engine.save_state(0)
    with open_engine("reference", bundle.source, precision="fp32") as engine:
        engine.load_state(0, state)
        second = engine.run_sequence(x[25:])
    got = np.array([list(p.y.values()) for p in predictions], np.float32)
    np.testing.assert_allclose(got, np.concatenate([first, second]), rtol=0, atol=1e-5)
