"""The native engine: the same bits on every kernel, and those of the definition."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.cells import CELLS
from edge_gru.engines.golden import replay
from edge_gru.engines.products import operand_steps
from edge_gru.engines.reference import ReferenceEngine
from edge_gru.engines.select import open_engine
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import ProductForm, StepNode
from edge_gru.state import State

_native = pytest.importorskip(
    "edge_gru.native._native", reason="the native engine was not built here"
)
from edge_gru.engines.native import KERNEL_VARIABLE, NativeEngine  # noqa: E402 - needs the skip
from quantization.benchmark.latency.ours import source_of  # noqa: E402 - needs the skip
from quantization.benchmark.latency.weights import random_weights  # noqa: E402 - needs the skip

N_STEPS = 1_000
RECIPES = ("rec-hilo", "int8-hilo", "int8", "w4")
SIGMOID_ERROR, TANH_ERROR = 1.5e-7, 3.0e-7  # as activations.h states


def open_native(
    source: EngineSource,
    precision: str | None = None,
    n_streams: int = 1,
    kernel: str | None = None,
) -> NativeEngine:
    return NativeEngine(source, n_streams=n_streams, precision=precision, kernel=kernel)


def samples_of(engine: Engine, n_steps: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1.5, (n_steps, engine.n_in)).astype(np.float32)


def states_of(engine: Engine) -> bytes:
    values = [
        value for k in range(engine.n_streams) for value in engine.save_state(k).values.values()
    ]
    return np.concatenate(values).tobytes()


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_kernel_gives_the_same_bits(
    kind: str, recipe: str, make_bundle: Callable[..., Bundle]
) -> None:
    source = make_bundle(kind, recipe=recipe).source
    precisions = source.manifest.precisions if recipe == RECIPES[0] else ["int8"]
    for precision in precisions:
        seen = set()
        for kernel in _native.KERNELS:
            with open_native(source, precision, kernel=kernel) as engine:
                y = engine.run_sequence(samples_of(engine, N_STEPS))
                seen.add((y.tobytes(), states_of(engine)))
        assert len(seen) == 1


@pytest.mark.parametrize("kernel", _native.KERNELS)
@pytest.mark.parametrize("precision", ["int8", "fp32", "fp16"])
def test_batches_and_sequences_are_single_steps_to_the_last_bit(
    bundle: Bundle, kernel: str, precision: str
) -> None:
    n_streams = 11  # whole tiles of rows, and some that are left
    with (
        open_native(bundle.source, precision, n_streams, kernel) as together,
        open_native(bundle.source, precision, 1, kernel) as alone,
    ):
        x = samples_of(alone, 20 * n_streams).reshape(20, n_streams, -1)
        order = np.random.default_rng(1).permutation(n_streams).astype(np.int32)
        batches = [together.step_batch(rows, order) for rows in x]
        for row, stream in enumerate(order):
            alone.reset()
            expected = np.stack([alone.step(sample) for sample in x[:, row]])
            np.testing.assert_array_equal(np.stack(batches)[:, row], expected)
            after = alone.save_state()
            assert together.save_state(stream).values.keys() == after.values.keys()
            for name, value in after.values.items():
                np.testing.assert_array_equal(together.save_state(stream).values[name], value)
            alone.reset()
            np.testing.assert_array_equal(alone.run_sequence(x[:, row]), expected)
            assert alone.save_state().n_steps == 20


@pytest.mark.skipif(sys.platform != "linux", reason="the constant of fesetround is that of glibc")
def test_rounding_mode_of_the_thread_changes_nothing(bundle: Bundle) -> None:
    libm = ctypes.CDLL("libm.so.6")
    upward, nearest = (0x800, 0) if sys.byteorder == "little" else (0, 0)
    with open_native(bundle.source) as engine:
        x = samples_of(engine, 50)
        expected = engine.run_sequence(x)
        engine.reset()
        libm.fesetround(upward)
        try:
            got = engine.run_sequence(x)
            mode = libm.fegetround()
        finally:
            libm.fesetround(nearest)
        np.testing.assert_array_equal(got, expected)
        assert mode == upward


def network(n_in: int, kernel: str | None = None) -> _native.Network:
    def never(*_: object) -> np.ndarray:
        raise AssertionError

    return _native.Network(n_in, np.zeros(1, np.int64), never, never, kernel)


def floats_everywhere(n: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    parts = [rng.uniform(-b, b, n // 4) for b in (1e-3, 1.0, 12.0, 120.0)]
    edges = [0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 50.0, -50.0, 25.0, np.inf, -np.inf]
    return np.concatenate([*parts, edges]).astype(np.float32)


@pytest.mark.parametrize("kernel", _native.KERNELS)
def test_sigmoid_and_tanh_keep_to_their_stated_error(kernel: str) -> None:
    x = floats_everywhere(400_000)
    for name, exact, bound in (
        ("Sigmoid", lambda a: 1 / (1 + np.exp(-np.clip(a, -700, 700))), SIGMOID_ERROR),
        ("Tanh", np.tanh, TANH_ERROR),
    ):
        net = network(x.size, kernel)
        y = net.scratch(x.size)
        net.operation(name, (0,), y, (), None)
        net.seal(y)
        got = net.step(x)
        assert np.abs(got - exact(x.astype(np.float64))).max() <= bound
        assert np.isnan(net.step(np.full_like(x, np.nan))).all()
        assert got[np.flatnonzero(x == 0)].tolist() == [exact(0.0)] * 2


@pytest.mark.parametrize("kernel", _native.KERNELS)
@given(step=st.floats(2**-13, 8, width=32), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_operands_lie_on_the_grid_as_defined_ties_included(
    kernel: str, step: float, seed: int
) -> None:
    n = 64
    rng = np.random.default_rng(seed)
    x = (rng.integers(-140, 140, n) + 0.5).astype(np.float32) * np.float32(step)
    x[::2] = np.nextafter(x[::2], rng.choice([-1e9, 1e9], n // 2).astype(np.float32))
    x[:4] = [1e38, -1e38, np.inf, 1e-45]
    net = network(n, kernel)
    y = net.scratch(n)
    one = np.eye(n, dtype=np.int8)
    net.dense(0, y, ("int8", one, np.ones(n, np.float32), None, step), np.zeros(n, np.float32))
    net.seal(y)
    with np.errstate(over="ignore"):
        expected = operand_steps(ProductForm("int8", "int8"), x[None], np.float32(step))[0]
    np.testing.assert_array_equal(net.step(x), expected)


def test_operand_on_a_grid_without_a_reciprocal_is_refused() -> None:
    net = network(1, None)
    y = net.scratch(1)
    one, zeros = np.ones((1, 1), np.int8), np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"expected a larger step of the operand, got 1e-40"):
        net.dense(0, y, ("int8", one, np.ones(1, np.float32), None, 1e-40), zeros)


OPERATIONS = {
    "Add": {}, "Sub": {}, "Mul": {}, "Div": {}, "Max": {}, "Min": {},
    "Sigmoid": {}, "Tanh": {}, "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 0.7},
    "Softplus": {}, "HardSigmoid": {"alpha": 0.3}, "Erf": {}, "Exp": {}, "Abs": {}, "Neg": {},
    "Softmax": {"axis": -1}, "LogSoftmax": {"axis": 1}, "LayerNormalization": {"axis": -1},
    "Clip": {}, "Concat": {"axis": 1}, "Gather": {"axis": 1}, "Slice": {}, "MatMul": {},
    "Gemm": {"transB": 1}, "Log": {}, "Sqrt": {}, "Reciprocal": {}, "Pow": {},
}  # fmt: skip
N = 3
CONSTANTS = {
    "row": np.array([0.5, -1.5, 2.0], np.float32), "one": np.array(0.7, np.float32),
    "matrix": np.random.default_rng(0).normal(size=(N, N)).astype(np.float32),
    "picked": np.array([2, 0, -1]), "starts": np.array([0]), "ends": np.array([3]),
    "axes": np.array([-1]), "low": np.array(-0.4, np.float32), "high": np.array(0.9, np.float32),
    "two": np.array(2.0, np.float32), "half": np.array(0.5, np.float32),
}  # fmt: skip
FURTHER_INPUTS = {
    "Clip": ("low", "high"), "Concat": (), "Gather": ("picked",), "MatMul": ("matrix",),
    "Slice": ("starts", "ends", "axes"), "LayerNormalization": ("row", "one"),
    "Gemm": ("matrix", "row"), "Pow": ("two",),
}  # fmt: skip
POSITIVE = ("Log", "Sqrt", "Reciprocal")


def with_operation(bundle: Bundle, op: str) -> EngineSource:
    """The bundle with one operation between x and its first cell; it leaves three channels."""
    inputs = FURTHER_INPUTS.get(op, ("row",) if op in ("Add", "Sub", "Mul", "Div", "Max") else ())
    inputs = ("one",) if op == "Min" else inputs
    first = [StepNode("Abs", ("x",), ("|x|",)), StepNode("Add", ("|x|", "half"), ("x+",))]
    made = StepNode(op, ("x+" if op in POSITIVE else "x", *inputs), ("made",), OPERATIONS[op])
    nodes = [
        msgspec.structs.replace(
            node, inputs=tuple("made" if name == "x" else name for name in node.inputs)
        )
        for node in bundle.manifest.program.nodes
    ]
    program = msgspec.structs.replace(bundle.manifest.program, nodes=(*first, made, *nodes))
    manifest = msgspec.structs.replace(bundle.manifest, program=program)
    weights = safetensors.numpy.load(bundle.parts["weights.safetensors"])
    parts = {"weights.safetensors": safetensors.numpy.save({**weights, **CONSTANTS})}
    return EngineSource(manifest, {**bundle.parts, **parts})


@pytest.mark.parametrize("op", OPERATIONS)
def test_operations_are_those_of_the_definition(
    make_bundle: Callable[..., Bundle], op: str
) -> None:
    source = with_operation(make_bundle("GRU"), op)
    with open_native(source, "fp32", 2) as engine:
        definition = ReferenceEngine(source, n_streams=2, precision="fp32")
        for x in samples_of(engine, 12).reshape(6, 2, 3):
            got, expected = engine.step_batch(x), definition.step_batch(x)
            np.testing.assert_allclose(got, expected, atol=3e-6)


def test_operation_that_is_missing_is_named(make_bundle: Callable[..., Bundle]) -> None:
    source = with_operation(make_bundle("GRU"), "Abs")
    nodes = tuple(
        msgspec.structs.replace(node, op="Frobnicate") if node.outputs == ("made",) else node
        for node in source.manifest.program.nodes
    )
    program = msgspec.structs.replace(source.manifest.program, nodes=nodes)
    manifest = msgspec.structs.replace(source.manifest, program=program)
    with pytest.raises(EngineUnavailableError, match=r"no operator Frobnicate; use onnxruntime"):
        open_native(EngineSource(manifest, source.parts))


def test_state_that_is_read_after_its_cell_is_the_old_one(
    make_bundle: Callable[..., Bundle],
) -> None:
    bundle = make_bundle("RNN_TANH")
    old = bundle.manifest.states[0].name
    head = bundle.manifest.program.nodes[-1]
    program = msgspec.structs.replace(
        bundle.manifest.program,
        nodes=(
            *bundle.manifest.program.nodes[:-1],
            StepNode("Add", (head.inputs[0], old), ("both",)),
            msgspec.structs.replace(head, inputs=("both", head.inputs[1])),
        ),
    )
    source = EngineSource(msgspec.structs.replace(bundle.manifest, program=program), bundle.parts)
    with open_native(source, "fp32") as engine:
        definition = ReferenceEngine(source, n_streams=1, precision="fp32")
        for x in samples_of(engine, 20):
            np.testing.assert_allclose(engine.step(x), definition.step(x), atol=1e-6)
        x = samples_of(engine, 20, seed=1)
        np.testing.assert_allclose(
            engine.run_sequence(x), [definition.step(sample) for sample in x], atol=1e-6
        )


@pytest.mark.parametrize("kernel", _native.KERNELS)
@pytest.mark.parametrize("kind", [kind for kind in CELLS if kind != "LSTM_PROJECTED"])
def test_cell_of_several_vectors_follows_its_definition(kind: str, kernel: str) -> None:
    source = source_of(random_weights(kind, n_in=5, n_hidden=100, n_layers=2), "fp32")
    definition = ReferenceEngine(source, n_streams=1, precision="fp32")
    with open_native(source, "fp32", kernel=kernel) as engine:
        for x in samples_of(engine, 50):
            np.testing.assert_allclose(engine.step(x), definition.step(x), atol=2e-5)


@pytest.mark.parametrize("kernel", _native.KERNELS)
@pytest.mark.parametrize("recipe", ["fp32", "rec", *RECIPES])
@pytest.mark.parametrize("kind", CELLS)
def test_cell_of_no_round_width_passes_its_golden_vectors(
    kind: str, recipe: str, kernel: str, make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(kind, recipe=recipe, n_hidden=37)
    source = bundle.source
    with open_native(source, source.precision(None), kernel=kernel, n_streams=70) as engine:
        assert replay(engine, bundle.parts["golden.safetensors"]).passed
        x = np.random.default_rng(3).normal(size=(70, engine.n_in)).astype(np.float32)
        together = [engine.step_batch(x) for _ in range(3)][-1]
        engine.reset()
        alone = [
            engine.step_batch(x[k : k + 1], np.array([k])) for k in range(70) for _ in range(3)
        ]
        np.testing.assert_array_equal(together, np.concatenate(alone[2::3]))


@pytest.mark.parametrize("kernel", _native.KERNELS)
@pytest.mark.parametrize("recipe", ["fp32", "int8", "rec-hilo"])
def test_any_number_of_rows_is_as_many_single_steps(recipe: str, kernel: str) -> None:
    """Whole tiles, parts of one, and more rows than go at once; streams in any order."""
    source = source_of(random_weights("GRU", n_in=65, n_hidden=70, n_layers=1), recipe)
    rng = np.random.default_rng(5)
    with (
        open_native(source, n_streams=140, kernel=kernel) as engine,
        open_native(source, n_streams=140, kernel="scalar") as alone,
    ):
        for n in (*range(1, 41), 63, 64, 65, 129):
            x = rng.normal(size=(n, engine.n_in)).astype(np.float32)
            streams = rng.permutation(140)[:n].astype(np.int32)
            expected = [alone.step_batch(x[k : k + 1], streams[k : k + 1])[0] for k in range(n)]
            np.testing.assert_array_equal(engine.step_batch(x, streams), expected)
        assert states_of(engine) == states_of(alone)


@pytest.mark.parametrize("recipe", ["int8", "rec-hilo", "fp32"])
def test_every_width_gives_the_same_bits_on_every_kernel(recipe: str) -> None:
    for n_hidden in range(1, 71):
        weights = random_weights("GRU", n_in=71 - n_hidden, n_hidden=n_hidden, n_layers=1)
        source = source_of(weights, recipe)
        seen = set()
        for kernel in _native.KERNELS:
            with open_native(source, n_streams=21, kernel=kernel) as engine:
                x = samples_of(engine, 42).reshape(2, 21, -1)
                seen.add((*(engine.step_batch(rows).tobytes() for rows in x), states_of(engine)))
        assert len(seen) == 1, n_hidden


@pytest.mark.parametrize("kernel", _native.KERNELS)
@pytest.mark.parametrize("kind", CELLS)
def test_sequence_is_its_steps_at_the_edges_of_blocks(
    kind: str, kernel: str, make_bundle: Callable[..., Bundle]
) -> None:
    source = make_bundle(kind, recipe="int8", n_hidden=37).source
    with open_native(source, kernel=kernel) as engine, open_native(source, kernel=kernel) as alone:
        for n in (1, 2, 3, 15, 16, 17, 63, 64, 65):
            x = samples_of(engine, n, seed=n)
            got = engine.run_sequence(x)
            np.testing.assert_array_equal(got, [alone.step(sample) for sample in x])
            assert states_of(engine) == states_of(alone)


@pytest.mark.parametrize("kernel", _native.KERNELS)
def test_kernel_is_what_was_asked_for(
    bundle: Bundle, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_native(bundle.source, kernel=kernel).kernel == kernel
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    assert open_native(bundle.source).kernel == kernel
    assert open_native(bundle.source, kernel=_native.KERNELS[0]).kernel == _native.KERNELS[0]


def test_kernel_that_does_not_run_here_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KERNEL_VARIABLE, "mmx")
    with pytest.raises(EngineUnavailableError, match=r"expected a kernel of .*scalar.*got 'mmx'"):
        open_native(bundle.source)


def test_build_without_the_extension_says_how_to_get_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "edge_gru.native._native", None)
    monkeypatch.delitem(sys.modules, "edge_gru.native")
    monkeypatch.delitem(sys.modules, "edge_gru.engines.native")
    with pytest.raises(EngineUnavailableError, match=r"'native' is not installed .*C compiler"):
        open_engine("native", bundle.source)


def test_state_written_is_the_state_read(bundle: Bundle) -> None:
    with open_native(bundle.source, n_streams=3) as engine:
        rng = np.random.default_rng(0)
        values = {
            info.name: rng.uniform(-1, 1, info.size).astype(np.float32)
            for info in bundle.manifest.states
        }
        engine.load_state(1, State(engine.model_hash, 5, values))
        for name, value in engine.save_state(1).values.items():
            np.testing.assert_array_equal(value, values[name])
        assert not any(value.any() for value in engine.save_state(2).values.values())
