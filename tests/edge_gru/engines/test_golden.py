from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import helper, numpy_helper

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.golden import GoldenVectors, replay, sqnr_db
from edge_gru.engines.select import open_engine, open_proven
from edge_gru.engines.table import ENGINES
from edge_gru.errors import BundleError, GoldenMismatchError

PRECISIONS = ("fp16", "fp32", "int8")
GOLDEN = "golden.safetensors"

Tensors = dict[str, np.ndarray]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_and_precision_passes(
    bundle: Bundle, opened: Callable[..., Engine], name: str, precision: str
) -> None:
    result = replay(opened(name, precision), bundle.parts[GOLDEN])
    assert result.passed
    assert (result.engine, result.precision) == (name, precision)
    vectors = GoldenVectors.read(bundle.parts[GOLDEN], bundle.manifest, precision)
    assert result.n_steps == len(vectors.step_x) + len(vectors.stream_x)


@pytest.mark.parametrize("name", ENGINES)
def test_replay_leaves_other_streams_and_a_fresh_first_one(
    bundle: Bundle, opened: Callable[..., Engine], name: str
) -> None:
    engine = opened(name, "int8", 2)
    engine.step_batch(np.ones((2, engine.n_in), np.float32))
    kept = engine.save_state(1)
    replay(engine, bundle.parts[GOLDEN])
    assert engine.save_state(0).n_steps == 0
    assert not any(value.any() for value in engine.save_state(0).values.values())
    for state, value in engine.save_state(1).values.items():
        np.testing.assert_array_equal(value, kept.values[state])


def with_graphs(bundle: Bundle, change: Callable[[onnx.GraphProto], None]) -> EngineSource:
    """The bundle's parts with other graphs."""
    parts = dict(bundle.parts)
    for info in bundle.manifest.precisions.values():
        for part in set(info.graphs.values()):
            proto = onnx.load_from_string(parts[part])
            change(proto.graph)
            parts[part] = proto.SerializeToString()
    return EngineSource(bundle.manifest, parts)


def gates_swapped(weights: Tensors) -> None:
    for name, value in weights.items():
        if ".w_" in name or ".b_" in name:
            r, z, n = np.split(value, 3)
            weights[name] = np.concatenate([z, r, n])


def scale_of_128_steps(weights: Tensors) -> None:
    for name, value in weights.items():
        if name.endswith(".w_hh_scale"):
            weights[name] = value * np.float32(127 / 128)


def one_row_scaled(weights: Tensors) -> None:
    name = next(name for name in weights if name.endswith(".w_hh_scale"))
    weights[name] = weights[name] * np.where(np.arange(weights[name].size) == 5, 1.01, 1).astype(
        np.float32
    )


def rows_truncated(weights: Tensors) -> None:
    for name in [name for name in weights if name.endswith(".w_hh_q")]:
        cell = name.removesuffix("_q")
        weights[name] = np.trunc(weights[cell] / weights[f"{cell}_scale"][:, None]).astype(np.int8)


def reset_before_product(weights: Tensors) -> None:
    """The other reset convention lets r scale the product without its bias."""
    for name in [name for name in weights if name.endswith(".b_hh")]:
        third = len(weights[name]) // 3
        cell = name.removesuffix("b_hh")
        weights[f"{cell}b_ih"] = weights[f"{cell}b_ih"].copy()
        weights[f"{cell}b_ih"][-third:] += weights[name][-third:]
        weights[name] = np.concatenate([weights[name][:-third], np.zeros(third, np.float32)])


BAD_WEIGHTS: Mapping[str, tuple[Callable[[Tensors], None], tuple[str, ...]]] = {
    "gates swapped": (gates_swapped, PRECISIONS),
    "another reset convention": (reset_before_product, PRECISIONS),
    "128 steps for 127": (scale_of_128_steps, ("int8",)),
    "one row of another scale": (one_row_scaled, ("int8",)),
    "weights truncated, not rounded": (rows_truncated, ("int8",)),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("change", "precision"),
    [(change, p) for change, precisions in BAD_WEIGHTS.values() for p in precisions],
    ids=[f"{what}-{p}" for what, (_, precisions) in BAD_WEIGHTS.items() for p in precisions],
)
def test_wrong_weights_are_caught(
    opened: Callable[..., Engine],
    with_weights: Callable[..., EngineSource],
    name: str,
    change: Callable[[Tensors], None],
    precision: str,
) -> None:
    opened(name, precision).close()  # skips where there is no such engine
    with pytest.raises(GoldenMismatchError, match="does not reproduce"):
        open_proven(name, with_weights(change), precision=precision)


def inputs_replaced(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if value == old else value for value in node.input]


def state_not_carried(graph: onnx.GraphProto) -> None:
    inputs_replaced(graph, "state_00_h", "no_state")
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "no_past")
    graph.initializer.append(zero)
    graph.node.insert(0, helper.make_node("Mul", ["state_00_h", "no_past"], ["no_state"]))


def states_swapped(graph: onnx.GraphProto) -> None:
    inputs_replaced(graph, "state_00_h", "kept_aside")
    inputs_replaced(graph, "state_01_h", "state_00_h")
    inputs_replaced(graph, "kept_aside", "state_01_h")


def state_on_the_int8_grid(graph: onnx.GraphProto) -> None:
    steps = numpy_helper.from_array(np.array(127, np.float32), "steps")
    graph.initializer.append(steps)
    for node in graph.node:
        node.output[:] = ["fine" if name == "state_00_h_out" else name for name in node.output]
    graph.node.extend(
        [
            helper.make_node("Mul", ["fine", "steps"], ["fine_steps"]),
            helper.make_node("Round", ["fine_steps"], ["whole_steps"]),
            helper.make_node("Div", ["whole_steps", "steps"], ["state_00_h_out"]),
        ]
    )


def operand_rounded_down(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(127, np.float32), "steps"))
    found = [k for k, node in enumerate(graph.node) if node.op_type == "QuantizeLinear"]
    if not found:
        return
    index = found[0]
    h, graph.node[index].input[0] = graph.node[index].input[0], "h_down"
    for made in (
        helper.make_node("Div", ["h_floor", "steps"], ["h_down"]),
        helper.make_node("Floor", ["h_steps"], ["h_floor"]),
        helper.make_node("Mul", [h, "steps"], ["h_steps"]),
    ):
        graph.node.insert(index, made)


BAD_GRAPHS: Mapping[str, tuple[Callable[[onnx.GraphProto], None], tuple[str, ...]]] = {
    "state not carried": (state_not_carried, PRECISIONS),
    "states swapped": (states_swapped, PRECISIONS),
    "state on the int8 grid": (state_on_the_int8_grid, ("fp32", "int8")),
    "operand rounded down": (operand_rounded_down, ("int8",)),
}


@pytest.mark.parametrize(
    ("change", "precision"),
    [(change, p) for change, precisions in BAD_GRAPHS.values() for p in precisions],
    ids=[f"{what}-{p}" for what, (_, precisions) in BAD_GRAPHS.items() for p in precisions],
)
def test_wrong_graph_is_caught(
    bundle: Bundle,
    opened: Callable[..., Engine],
    change: Callable[[onnx.GraphProto], None],
    precision: str,
) -> None:
    opened("onnxruntime", precision).close()
    with pytest.raises(GoldenMismatchError, match="does not reproduce"):
        open_proven("onnxruntime", with_graphs(bundle, change), precision=precision)


def test_parts_edited_without_a_change_pass(
    bundle: Bundle, opened: Callable[..., Engine], with_weights: Callable[..., EngineSource]
) -> None:
    opened("onnxruntime", "int8").close()
    for source in (with_graphs(bundle, unchanged), with_weights(unchanged)):
        engine, result = open_proven("onnxruntime", source, precision="int8")
        engine.close()
        assert result.passed


def unchanged(_: object) -> None:
    pass


class ForgetfulStream:
    """An engine whose stream is wiped between steps, as when a server makes a new one each call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def step(self, x: np.ndarray) -> np.ndarray:
        y = self._engine.step(x)
        saved = self._engine.save_state(0)
        self._wiped = saved
        self._engine.reset(0)
        return y

    def save_state(self, stream: int) -> object:
        return self._wiped


def test_state_wiped_after_each_step_is_caught_by_the_stream(bundle: Bundle) -> None:
    engine = open_engine("reference", bundle.source, precision="fp32")
    result = replay(ForgetfulStream(engine), bundle.parts[GOLDEN])
    assert result.step_error == 0  # single steps cannot see it
    assert not result.passed


def golden_with(bundle: Bundle, **changes: np.ndarray | None) -> EngineSource:
    tensors = safetensors.numpy.load(bundle.parts[GOLDEN])
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    return EngineSource(bundle.manifest, {**bundle.parts, GOLDEN: safetensors.numpy.save(tensors)})


BROKEN: Mapping[str, dict[str, np.ndarray | None]] = {
    "no inputs": {"step__x": None},
    "no answers": {"stream__fp32__y": None},
    "no states": {"step__state_01_h": None},
    "no new states": {"step__fp32__state_00_h_out": None},
    "no steps": {"step__x": np.zeros((0, 3), np.float32)},
    "an empty stream": {
        "stream__x": np.zeros((0, 3), np.float32),
        "stream__fp32__y": np.zeros((0, 2), np.float32),
    },
    "a scalar": {"step__x": np.array(1, np.float32)},
    "too few answers": {"stream__fp32__y": np.zeros((3, 2), np.float32)},
    "too wide": {"stream__x": np.zeros((128, 4), np.float32)},
    "float64": {"stream__x": np.zeros((128, 3))},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_broken_vectors_are_named(bundle: Bundle, changes: dict[str, np.ndarray | None]) -> None:
    with pytest.raises(BundleError, match=r"golden vectors (step|stream)\..*pack the model again"):
        open_proven("reference", golden_with(bundle, **changes), precision="fp32")


def test_part_that_is_no_safetensors_is_named(bundle: Bundle) -> None:
    for data in (b"", b"\0" * 20, b"\xff" * 64):
        source = EngineSource(bundle.manifest, {**bundle.parts, GOLDEN: data})
        with pytest.raises(BundleError, match=r"part golden.safetensors holds no tensors"):
            open_proven("reference", source, precision="fp32")


def test_missing_part_is_named(bundle: Bundle) -> None:
    parts = {name: data for name, data in bundle.parts.items() if name != GOLDEN}
    with pytest.raises(BundleError, match=r"a bundle with golden.safetensors"):
        open_proven("reference", EngineSource(bundle.manifest, parts))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name",
    ["stream.x", "stream.fp32.y", "step.fp32.y", "step.state_00_h", "step.fp32.state_01_h_out"],
)
def test_vectors_that_are_no_numbers_are_named(bundle: Bundle, name: str, bad: float) -> None:
    with pytest.raises(BundleError, match=f"finite golden vectors {name}"):
        open_proven("reference", with_one_changed(bundle, name, bad), precision="fp32")


class Engineered:
    """An engine that answers otherwise, once, in some way."""

    def __init__(self, engine: Engine, answer: float, at_step: int) -> None:
        self._engine = engine
        self._answer = answer
        self._at_step = at_step

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def step(self, x: np.ndarray) -> np.ndarray:
        y = self._engine.step(x)
        self._at_step -= 1
        if self._at_step == 0:
            y[1] = self._answer
        return y


@pytest.mark.parametrize("answer", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("at_step", [1, 5, 32, 33, 160])  # the last single ones, the stream
def test_one_wrong_answer_is_enough(bundle: Bundle, answer: float, at_step: int) -> None:
    engine = open_engine("reference", bundle.source, precision="fp32")
    result = replay(Engineered(engine, answer, at_step), bundle.parts[GOLDEN])
    assert result.n_steps == 160
    assert not result.passed


@pytest.mark.parametrize("state", ["state_00_h", "state_01_h"])
def test_new_states_count_though_outputs_agree(bundle: Bundle, state: str) -> None:
    source = with_one_changed(bundle, f"step.fp32.{state}_out", 0.5)
    with pytest.raises(GoldenMismatchError, match="step error"):
        open_proven("reference", source, precision="fp32")


def with_one_changed(bundle: Bundle, name: str, value: float) -> EngineSource:
    tensor = safetensors.numpy.load(bundle.parts[GOLDEN])[name].copy()
    tensor[5, 1] = value
    return golden_with(bundle, **{name.replace(".", "__"): tensor})


def test_limits_are_inclusive(bundle: Bundle, opened: Callable[..., Engine]) -> None:
    result = replay(opened("reference", "fp32"), bundle.parts[GOLDEN])
    at_limit = replace(result, step_error=1e-5, step_tolerance=1e-5, stream_sqnr_db=70.0)
    at_limit = replace(at_limit, stream_floor_db=70.0)
    assert at_limit.passed
    assert not replace(at_limit, step_error=1.01e-5).passed
    assert not replace(at_limit, stream_sqnr_db=69.9).passed


def test_sqnr_takes_the_mean_off_each_output() -> None:
    y = np.array([[1.0, 100.0], [-1.0, 102.0]], np.float32)
    noise = np.array([[0.1, 0.1], [0.1, -0.1]], np.float32)
    assert sqnr_db(y, y + noise) == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db(y, y) == np.inf
    assert sqnr_db(np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)) == -np.inf
