from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from edge_gru.bundle import Bundle
from edge_gru.engines import measure
from edge_gru.engines.reference import ReferenceEngine
from edge_gru.manifest import (
    Alert,
    InputRange,
    Manifest,
    PrecisionInfo,
    Program,
    Recipe,
    StateInfo,
    StepNode,
)
from edge_gru.state import State
from firmware_bridge.sample import Schema

N_HIDDEN = 4
N_GOLDEN = 8


def pack_gru(schema: Schema, *, seed: int = 0, **changes: object) -> Bundle:
    """Pack a small GRU, y = its state, that only the reference engine can run."""
    rng = np.random.default_rng(seed)
    n_in = schema.n_channels
    shapes = {"w_ih": (12, n_in), "w_hh": (12, N_HIDDEN), "b_ih": (12,), "b_hh": (12,)}
    weights = {
        f"gru.{name}": rng.normal(0, 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    node = StepNode("GRU", ("x", "state_00_h"), ("state_00_h_out",), {"cell": "gru"})
    manifest = Manifest(
        name="tiny",
        producer={"edge-gru": "test"},
        schema=schema,
        outputs=tuple(f"y{i}" for i in range(N_HIDDEN)),
        labels=(),
        normalisation=None,
        states=(StateInfo("state_00_h", N_HIDDEN, 1.0),),
        recipe=Recipe("fp32"),
        n_warmup=3,
        precisions={"fp32": PrecisionInfo({}, 1e-6, 100.0)},
        default_precision="fp32",
        program=Program((node,), "state_00_h_out", 17),
        input_range=InputRange((-1.0,) * n_in, (1.0,) * n_in),
        alerts=(),
        calibration_sha256="",
        parts={},
    )
    manifest = msgspec.structs.replace(manifest, **changes)
    parts = {"weights.safetensors": safetensors.numpy.save(weights)}
    parts["golden.safetensors"] = safetensors.numpy.save(_golden(manifest, parts, rng))
    return Bundle.pack(manifest, parts)


def _golden(
    manifest: Manifest, parts: dict[str, bytes], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    engine = ReferenceEngine(Bundle.pack(manifest, parts).source, n_streams=1, precision="fp32")
    x = rng.normal(size=(N_GOLDEN, manifest.n_in)).astype(np.float32)
    h = rng.uniform(-1, 1, size=(N_GOLDEN, N_HIDDEN)).astype(np.float32)
    after = []
    for k in range(N_GOLDEN):
        engine.load_state(0, State(engine.model_hash, 0, {"state_00_h": h[k]}))
        after.append(engine.step(x[k]))
    engine.reset()
    stream = np.stack([engine.step(row) for row in x])
    vectors = {"step.x": x, "step.state_00_h": h, "stream.x": x}
    for precision in manifest.precisions:  # fp32's answers for all: right for fp32 alone
        vectors[f"step.{precision}.y"] = np.stack(after)
        vectors[f"step.{precision}.state_00_h_out"] = np.stack(after)
        vectors[f"stream.{precision}.y"] = stream
    return vectors


@pytest.fixture
def schema() -> Schema:
    return Schema.of([("vibration", "g"), ("current", "A")], rate_hz=200.0)


@pytest.fixture
def pack() -> Callable[..., Bundle]:
    return pack_gru


@pytest.fixture
def bundle(schema: Schema) -> Bundle:
    return pack_gru(schema, alerts=(Alert("high", "y.y0", 0.5, 0.25, 0.05),))


@pytest.fixture
def bundle_path(bundle: Bundle, tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "tiny.egb")


sys.path.insert(0, str(Path(__file__).parent))
doubles = importlib.import_module("doubles")


@pytest.fixture
def slow_build(monkeypatch: pytest.MonkeyPatch) -> doubles.SlowBuild:
    """An engine that needs a build is in the table; this lets its builds end, or fail."""
    build = doubles.SlowBuild()
    build.install(monkeypatch)
    return build


@pytest.fixture
def slow_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it takes here, the engine that needs a build is measured as the fastest."""

    def times_us(engines, samples, build=None):
        slow = doubles.NAME
        return {key: [1.0 if e.name == slow else 9.0] for key, e in engines.items()}

    monkeypatch.setattr(measure, "times_us", times_us)


@pytest.fixture
def pausing_link() -> type[doubles.PausingLink]:
    """A link for the loop that delivers a script of items and conditions."""
    return doubles.PausingLink


@pytest.fixture(scope="module")
def small() -> Bundle:
    """A bundle of few bytes: what its parts hold does not matter here."""
    manifest = Manifest(
        name="small",
        producer={"edge-gru": "test"},
        schema=Schema.of(["a"]),
        outputs=("y0",),
        labels=(),
        normalisation=None,
        states=(StateInfo("state_00_h", 1, 1.0),),
        recipe=Recipe("fp32"),
        n_warmup=3,
        precisions={"fp32": PrecisionInfo({"step": "a.bin"}, 1e-6, 100.0)},
        default_precision="fp32",
        program=Program((), "state_00_h", 17),
        input_range=InputRange((-1.0,), (1.0,)),
        alerts=(),
        calibration_sha256="",
        parts={},
    )
    return Bundle.pack(manifest, {"a.bin": b"first part", "b.bin": bytes(range(40))})
