from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.cells import CELLS
from edge_gru.engines.select import open_engine
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import GateResult, Program, StateInfo, StepNode
from firmware_bridge.sample import Schema
from quantization import pack, quantize, step_graph
from quantization.calibrate import Calibration
from quantization.gate import GateSettings
from quantization.quantized import Quantized
from quantization.recipe import RECIPES
from quantization.split import split
from quantization.step_model import StepModel
from quantization.work import Work

N_IN, N_HIDDEN, N_OUT = 3, 8, 2


def two_layer_gru(seed: int = 0) -> onnx.ModelProto:
    """Two GRUs of one width, so that swapped states would fit, and a linear head; batch first."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.6, shape).astype(np.float32)

    constants = {"axis_1": np.array([1])}
    nodes = [helper.make_node("Transpose", ["x"], ["below_0"], perm=[1, 0, 2])]
    for layer, width in enumerate((N_IN, N_HIDDEN)):
        weights = [f"w_{layer}", f"r_{layer}", f"b_{layer}"]
        shapes = [(24, width), (24, N_HIDDEN), (48,)]
        constants |= {name: normal(1, *s) for name, s in zip(weights, shapes, strict=True)}
        inputs, y = [f"below_{layer}", *weights], f"y_{layer}"
        gru = {"hidden_size": N_HIDDEN, "linear_before_reset": 1}
        nodes.append(helper.make_node("GRU", inputs, [y], **gru))
        nodes.append(helper.make_node("Squeeze", [y, "axis_1"], [f"below_{layer + 1}"]))
    constants |= {"head_w": normal(N_HIDDEN, N_OUT), "head_b": normal(N_OUT)}
    nodes += [
        helper.make_node("Transpose", ["below_2"], ["top"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["top", "head_w"], ["head"]),
        helper.make_node("Add", ["head", "head_b"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "gru",
        [value("x", TensorProto.FLOAT, ["batch", "time", N_IN])],
        [value("y", TensorProto.FLOAT, ["batch", "time", N_OUT])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    return proto


def quantized(folder: Path, seed: int = 0) -> Bundle:
    path = folder / f"gru_{seed}.onnx"
    onnx.save(two_layer_gru(seed), path)
    x = np.random.default_rng(seed + 1).normal(size=(200, N_IN))
    return quantize(path, calibration=[x])


def bundle_of(
    kind: str, seed: int = 0, recipe: str = "rec-nearest", n_hidden: int = N_HIDDEN
) -> Bundle:
    """Two cells of one kind and width, so that swapped states would fit, and a linear head.

    An LSTM has learned starts.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"head": rng.normal(0, 0.5, (n_hidden, N_OUT))}
    nodes, states, below, width = [], [], "x", N_IN
    for layer in range(2):
        cell, names = f"cell_{layer}", [f"state_{layer:02d}_{s}" for s in CELLS[kind].states]
        n_rows = len(CELLS[kind].gates) * n_hidden
        shapes = {"w_ih": (n_rows, width), "w_hh": (n_rows, n_hidden), "w_hr": (n_hidden,) * 2}
        shapes |= {"b_ih": (n_rows,), "b_hh": (n_rows,)}
        for name, shape in shapes.items():
            weights[f"{cell}.{name}"] = rng.normal(0, 0.7 / np.sqrt(n_hidden), shape)
        for name, bound in zip(names, CELLS[kind].bounds.values(), strict=True):
            states.append(StateInfo(name, n_hidden, bound, has_initial=kind == "LSTM"))
            if kind == "LSTM":
                weights[f"{name}.initial"] = rng.uniform(-1, 1, n_hidden)
        new = tuple(f"{name}_out" for name in names)
        nodes.append(StepNode(kind, (below, *names), new, {"cell": cell}))
        below, width = new[0], n_hidden
    nodes.append(StepNode("MatMul", (below, "head"), ("top",)))
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    model = StepModel(Program(tuple(nodes), "top", 17), weights, tuple(states), N_IN, N_OUT)
    data = Calibration((rng.normal(size=(200, N_IN)).astype(np.float32),))
    description = pack.Description("net", Schema.unnamed(N_IN), RECIPES[recipe], ("y0", "y1"))
    work = Work(model, description, data, split(data), GateSettings())
    made = pack.draft(model, description, data, work.narrow(RECIPES[recipe]).quantized)
    return pack.finish(made, pack.golden_vectors(made, data, model), {}, 3, GateResult("pass"))


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    return functools.cache(bundle_of)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return quantized(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return quantized(tmp_path_factory.mktemp("other"), seed=7)


def open_or_skip(name: str, bundle: Bundle, precision: str | None, n_streams: int = 1) -> Engine:
    """Open an engine; skip where its library is not installed, and for no other reason."""
    try:
        return open_engine(name, bundle.source, n_streams=n_streams, precision=precision)
    except EngineUnavailableError as error:
        if isinstance(error.__cause__, ImportError):
            pytest.skip(str(error))
        raise


sys.path.insert(0, str(Path(__file__).parent / "tensorrt"))
fakes = importlib.import_module("fake_gpu")


@pytest.fixture
def gpu() -> Iterator[fakes.FakeGpu]:
    """A fake GPU, which must be left as it was found."""
    with fakes.fake_gpu() as gpu:
        yield gpu


@pytest.fixture(autouse=True)
def _gpu_for_tensorrt(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Let the suites over all engines run TensorRT on a fake, or on a board's own if told so.

    They share their plans: what is built, and when, has tests of its own.
    """
    callspec = getattr(request.node, "callspec", None)
    names = [v for v in callspec.params.values() if isinstance(v, str)] if callspec else []
    if "tensorrt" not in names or os.environ.get("EDGE_GRU_REAL_GPU"):
        yield
        return
    plans = tmp_path_factory.getbasetemp() / "plans"
    monkeypatch.setenv("EDGE_GRU_TENSORRT_CACHE", str(plans))
    gpu = request.getfixturevalue("gpu")
    yield
    assert gpu.cuda.faults == []


@pytest.fixture
def samples() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(40, N_IN)).astype(np.float32)


@pytest.fixture
def opened(bundle: Bundle) -> Callable[..., Engine]:
    def open_named(name: str, precision: str | None = None, n_streams: int = 1) -> Engine:
        return open_or_skip(name, bundle, precision, n_streams)

    return open_named


@pytest.fixture
def with_weights(
    bundle: Bundle,
) -> Callable[[Callable[[dict[str, np.ndarray]], None]], EngineSource]:
    """The bundle's parts with other weights: in the tensors, and in graphs built from them."""

    def changed(change: Callable[[dict[str, np.ndarray]], None]) -> EngineSource:
        manifest = bundle.manifest
        weights = safetensors.numpy.load(bundle.parts["weights.safetensors"])
        change(weights)
        model = StepModel(manifest.program, weights, manifest.states, manifest.n_in, manifest.n_out)
        parts = {**bundle.parts, "weights.safetensors": safetensors.numpy.save(weights)}
        for info in manifest.precisions.values():
            for part in set(info.graphs.values()):
                form = {"cpu": part.endswith("_cpu.onnx"), "active": part.endswith("_active.onnx")}
                quantized = Quantized(info.products, {}, info.joint)
                proto = step_graph.build(model, quantized, **form)
                parts[part] = proto.SerializeToString()
        return EngineSource(manifest, parts)

    return changed
