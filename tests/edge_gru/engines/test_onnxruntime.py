from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.onnxruntime import OnnxRuntimeEngine
from edge_gru.engines.select import open_engine
from edge_gru.errors import BundleError, EngineUnavailableError
from edge_gru.state import State

onnxruntime = pytest.importorskip("onnxruntime", reason="engine onnxruntime is not installed")
module = pytest.importorskip("edge_gru.engines.onnxruntime")

Tensors = dict[str, np.ndarray]


def optimised(bundle: Bundle, precision: str, folder: Path) -> onnx.GraphProto:
    """The graph that onnxruntime makes of a step graph with the engine's own options."""
    options = module.session_options(1)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    part = bundle.manifest.precisions[precision].graphs["cpu"]
    onnxruntime.InferenceSession(bundle.parts[part], options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


def test_int8_runs_an_integer_product(bundle: Bundle, tmp_path: Path) -> None:
    ops = [node.op_type for node in optimised(bundle, "int8", tmp_path).node]
    assert (
        sum(op in ("MatMulInteger", "MatMulIntegerToFloat") for op in ops) == 3
    )  # h, h above, its x
    assert "DequantizeLinear" not in ops  # it would widen all weights in every step
    assert (
        ops.count("MatMul") + ops.count("Gemm") + ops.count("FusedMatMul") == 2
    )  # x of the first, head


def test_int8_weights_are_uint8_that_no_kernel_saturates(bundle: Bundle, tmp_path: Path) -> None:
    graph = optimised(bundle, "int8", tmp_path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type.startswith("MatMulInteger"):
            _, weight, zero_h, zero_w = (constants.get(name) for name in node.input[:4])
            assert weight.dtype == np.uint8
            assert zero_h == zero_w == 128


def test_fp32_runs_the_gru_operator(bundle: Bundle, tmp_path: Path) -> None:
    ops = [node.op_type for node in optimised(bundle, "fp32", tmp_path).node]
    assert ops.count("GRU") == 2
    assert not {"Sigmoid", "Tanh", "MatMulInteger"} & set(ops)


def at_the_ends(weights: Tensors) -> None:
    """All INT8 weights at their largest, so that sums of neighbours pass 16 bits."""
    for name in [name for name in weights if name.endswith(".w_hh_q")]:
        signs = np.where(np.arange(len(weights[name])) % 3, 1, -1)[:, None]
        weights[name] = np.broadcast_to(127 * signs, weights[name].shape).astype(np.int8)
        weights[f"{name.removesuffix('_q')}_scale"][:] = 0.05 / 127


def saturated_step(name: str, source: EngineSource) -> np.ndarray:
    ones = {info.name: np.ones(info.size, np.float32) for info in source.manifest.states}
    with open_engine(name, source, precision="int8") as engine:
        engine.load_state(0, State(engine.model_hash, 0, ones))
        y = engine.step(np.zeros(engine.n_in, np.float32))
        return np.concatenate([y, *engine.save_state().values.values()])


def test_int8_sums_do_not_saturate(with_weights: Callable[..., EngineSource]) -> None:
    source = with_weights(at_the_ends)
    got, expected = saturated_step("onnxruntime", source), saturated_step("reference", source)
    np.testing.assert_allclose(got, expected, atol=1e-5)


_SCRIPT = """
import json, sys
import numpy as np
import edge_gru

bundle = edge_gru.load(sys.argv[1])
with bundle.open("onnxruntime", precision="int8") as engine:
    ones = {s.name: np.ones(s.size, np.float32) for s in bundle.manifest.states}
    engine.load_state(0, edge_gru.State(engine.model_hash, 0, ones))
    y = engine.step(np.zeros(engine.n_in, np.float32))
    print(json.dumps(np.concatenate([y, *engine.save_state().values.values()]).tolist()))
"""


@pytest.mark.skipif(
    not shutil.which("qemu-x86_64") or platform.machine() != "x86_64",
    reason="needs qemu-x86_64 (qemu-user) to be a CPU without VNNI",
)
def test_int8_sums_do_not_saturate_without_vnni(
    with_weights: Callable[..., EngineSource], tmp_path: Path
) -> None:
    source = with_weights(at_the_ends)
    unlisted = msgspec.structs.replace(source.manifest, parts={})
    path = Bundle.pack(unlisted, source.parts).save(tmp_path / "ends.egb")
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", _SCRIPT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    expected = saturated_step("reference", source)  # on the CPU that is here: BLAS is not the point
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)


def test_without_a_precision_it_keeps_the_faster_of_two(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for faster in ("int8", "fp32"):
        monkeypatch.setattr(
            module, "_fastest", lambda steps, name=faster: {**steps, "": 0} and name
        )
        with bundle.open("onnxruntime") as engine:
            assert engine.precision == faster


@pytest.mark.parametrize(
    ("int8_s", "fp32_s", "chosen"), [(1.0, 1.0, "int8"), (1.05, 1.0, "int8"), (1.2, 1.0, "fp32")]
)
def test_fp32_must_be_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, int8_s: float, fp32_s: float, chosen: str
) -> None:
    now_s = 0.0

    class Step:
        def __init__(self, cost_s: float) -> None:
            self.cost_s = cost_s

        def run(self) -> None:
            nonlocal now_s
            now_s += self.cost_s

    monkeypatch.setattr(module.time, "perf_counter", lambda: now_s)
    assert module._fastest({"int8": Step(int8_s), "fp32": Step(fp32_s)}) == chosen


def test_bundle_of_one_precision_opens_with_it(bundle: Bundle) -> None:
    only = {"int8": bundle.manifest.precisions["int8"]}
    manifest = msgspec.structs.replace(bundle.manifest, precisions=only)
    with open_engine("onnxruntime", EngineSource(manifest, bundle.parts)) as engine:
        assert engine.precision == "int8"


def edited(bundle: Bundle, change: Callable[[onnx.ModelProto], None]) -> EngineSource:
    part = bundle.manifest.precisions["fp32"].graphs["cpu"]
    proto = onnx.load_from_string(bundle.parts[part])
    change(proto)
    return EngineSource(bundle.manifest, {**bundle.parts, part: proto.SerializeToString()})


def wider_output(proto: onnx.ModelProto) -> None:
    last = next(node for node in proto.graph.node if "y" in node.output)
    last.output[0] = "narrow"
    proto.graph.node.append(helper.make_node("Concat", ["narrow", "narrow"], ["y"], axis=1))
    output = next(value for value in proto.graph.output if value.name == "y")
    output.type.tensor_type.shape.dim[1].dim_param = "any"


def renamed_state(proto: onnx.ModelProto) -> None:
    proto.graph.input[1].name = "memory"
    for node in proto.graph.node:
        node.input[:] = ["memory" if name == "state_00_h" else name for name in node.input]


def fixed_batch(proto: onnx.ModelProto) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Nonsense"


def integer_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32


@pytest.mark.parametrize(
    "change", [wider_output, renamed_state, fixed_batch, unknown_operator, integer_input]
)
def test_graph_that_does_not_fit_is_refused_when_opened(
    bundle: Bundle,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[onnx.ModelProto], None],
) -> None:
    with pytest.raises(EngineUnavailableError, match=r"cannot run the fp32 graph .*pack the model"):
        open_engine("onnxruntime", edited(bundle, change), precision="fp32")
    assert capfd.readouterr() == ("", "")  # the sentence says it all


@pytest.mark.parametrize("data", [b"", b"no graph", b"\xff" * 100])
def test_bytes_that_are_no_graph_are_refused(bundle: Bundle, data: bytes) -> None:
    parts = {**bundle.parts, bundle.manifest.precisions["fp32"].graphs["cpu"]: data}
    with pytest.raises(EngineUnavailableError, match="cannot run the fp32 graph"):
        open_engine("onnxruntime", EngineSource(bundle.manifest, parts), precision="fp32")


def test_missing_graph_is_named(bundle: Bundle) -> None:
    part = bundle.manifest.precisions["int8"].graphs["cpu"]
    parts = {name: data for name, data in bundle.parts.items() if name != part}
    with pytest.raises(BundleError, match=part):
        open_engine("onnxruntime", EngineSource(bundle.manifest, parts), precision="int8")


def test_precision_without_a_cpu_graph_is_refused(bundle: Bundle) -> None:
    bare = {"fp32": msgspec.structs.replace(bundle.manifest.precisions["fp32"], graphs={})}
    manifest = msgspec.structs.replace(bundle.manifest, precisions=bare, default_precision="fp32")
    with pytest.raises(EngineUnavailableError, match="no cpu graph of precision 'fp32'"):
        open_engine("onnxruntime", EngineSource(manifest, bundle.parts))


def test_more_threads_answer_the_same(bundle: Bundle, samples: np.ndarray) -> None:
    engines: list[Engine] = [
        module.OnnxRuntimeEngine(bundle.source, n_streams=1, precision="int8", n_threads=n)
        for n in (1, 2)
    ]
    for x in samples:
        np.testing.assert_allclose(engines[0].step(x), engines[1].step(x), atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_row_of_a_batch_answers_as_it_does_alone(bundle: Bundle, precision: str) -> None:
    """onnxruntime 1.23 gets every 32nd row of an integer product wrong on CPUs with AMX."""
    n = 100
    x = np.random.default_rng(0).normal(size=(n, bundle.manifest.n_in)).astype(np.float32)
    with (
        bundle.open("onnxruntime", streams=n, precision=precision) as together,
        bundle.open("onnxruntime", precision=precision) as alone,
    ):
        got = together.step_batch(x)
        for k in range(n):
            alone.reset()
            np.testing.assert_allclose(got[k], alone.step(x[k]), atol=1e-5)


def test_batches_that_come_out_wrong_are_run_in_smaller_ones(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = OnnxRuntimeEngine._run

    def wrong_in_row_31(engine: OnnxRuntimeEngine, x: np.ndarray, states: np.ndarray):
        y, new = run(engine, x, states)
        y[31::32] += 3
        return y, new

    monkeypatch.setattr(OnnxRuntimeEngine, "_run", wrong_in_row_31)
    caplog.set_level("INFO")
    x = np.random.default_rng(0).normal(size=(70, bundle.manifest.n_in)).astype(np.float32)
    with (
        bundle.open("onnxruntime", streams=70, precision="int8") as engine,
        bundle.open("reference", streams=70, precision="int8") as reference,
    ):
        np.testing.assert_allclose(engine.step_batch(x), reference.step_batch(x), atol=1e-4)
    assert "running 16 at a time" in caplog.text
