"""Nothing makes the native engine fall over: threads, hostile bundles, any arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.cells import CELLS
from edge_gru.engines.operators import OPERATORS
from edge_gru.errors import BundleError, EngineUnavailableError
from edge_gru.manifest import Program

_native = pytest.importorskip(
    "edge_gru.native._native", reason="the native engine was not built here"
)
from edge_gru.engines.native import NativeEngine  # noqa: E402 - needs the skip
from quantization.benchmark.latency.ours import source_of  # noqa: E402 - needs the skip
from quantization.benchmark.latency.weights import random_weights  # noqa: E402 - needs the skip


def samples_of(engine: Engine, n_steps: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.normal(0, 1.5, (n_steps, engine.n_in)).astype(np.float32)


def test_engines_in_threads_do_not_meet(bundle: Bundle) -> None:
    def run(engine: Engine, out: list[bytes]) -> None:
        out.append(engine.run_sequence(samples_of(engine, 3_000)).tobytes())

    results: list[list[bytes]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(
            target=run, args=(NativeEngine(bundle.source, n_streams=1, precision=None), out)
        )
        for out in results
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected: list[bytes] = []
    run(NativeEngine(bundle.source, n_streams=1, precision=None), expected)
    assert results == [expected] * 4


def test_batches_in_threads_do_not_meet() -> None:
    source = source_of(random_weights("GRU", n_in=65, n_hidden=70, n_layers=1), "int8")

    def run(out: list[bytes]) -> None:
        with NativeEngine(source, n_streams=64, precision=None) as engine:
            x = samples_of(engine, 64 * 50).reshape(50, 64, -1)
            out.extend(engine.step_batch(rows).tobytes() for rows in x)

    results: list[list[bytes]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=run, args=(out,)) for out in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected: list[bytes] = []
    run(expected)
    assert results == [expected] * 4


def spoiled(weights: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights with one tensor cut, reshaped, of another type, gone, or full of odd values."""
    name = sorted(weights)[rng.integers(len(weights))]
    value = weights[name]
    changes = [
        lambda: value[: len(value) // 2] if value.ndim else value[None],
        lambda: value.reshape(-1),
        lambda: value.reshape(1, *value.shape),
        lambda: value.astype(np.int8),
        lambda: value.astype(np.float64),
        lambda: np.full_like(value, -128 if value.dtype == np.int8 else np.nan),
        lambda: np.full_like(value, 127 if value.dtype == np.int8 else 1e38),
        lambda: np.zeros(0, value.dtype),
        lambda: np.ascontiguousarray(value.T),
    ]
    changed = changes[rng.integers(len(changes))]()
    rest = {other: array for other, array in weights.items() if other != name}
    return rest if rng.random() < 0.1 else {**rest, name: np.ascontiguousarray(changed)}


def shuffled(program: Program, rng: np.random.Generator) -> Program:
    """A program with one node changed: another operator, inputs, attributes, or place."""
    nodes = list(program.nodes)
    k = int(rng.integers(len(nodes)))
    names = [name for node in nodes for name in (*node.inputs, *node.outputs)]
    inputs = tuple(names[i] for i in rng.integers(len(names), size=rng.integers(0, 4)))
    ops = [*CELLS, *OPERATORS]
    change = int(rng.integers(5))
    if change == 0:
        nodes[k] = msgspec.structs.replace(nodes[k], op=ops[rng.integers(len(ops))])
    elif change == 1:
        nodes[k] = msgspec.structs.replace(nodes[k], inputs=inputs)
    elif change == 2:
        nodes[k] = msgspec.structs.replace(nodes[k], attributes={"axis": 3, "cell": "cell_1"})
    elif change == 3:
        nodes[k], nodes[0] = nodes[0], nodes[k]
    else:
        nodes[k] = msgspec.structs.replace(nodes[k], outputs=(names[0],))
    return msgspec.structs.replace(program, nodes=tuple(nodes))


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from([*CELLS]))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_hostile_bundle_is_refused_or_runs(
    make_bundle: Callable[..., Bundle], seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    bundle = make_bundle(kind, recipe="rec-hilo")
    manifest, parts = bundle.manifest, dict(bundle.parts)
    if rng.random() < 0.5:
        weights = safetensors.numpy.load(parts["weights.safetensors"])
        parts["weights.safetensors"] = safetensors.numpy.save(spoiled(weights, rng))
    else:
        manifest = msgspec.structs.replace(manifest, program=shuffled(manifest.program, rng))
    if rng.random() < 0.1:
        parts["weights.safetensors"] = parts["weights.safetensors"][: rng.integers(2_000)]
    try:
        engine = NativeEngine(EngineSource(manifest, parts), n_streams=5, precision=None)
    except (BundleError, EngineUnavailableError):
        return
    with engine:
        assert engine.step(samples_of(engine, 1)[0]).shape == (engine.n_out,)
        assert engine.step_batch(samples_of(engine, 5)).shape == (5, engine.n_out)


JUNK = [
    None, -1, 0, 1, 2**40, "Add", "GRU", "int8", (), (0,), (0, 1, 2), (9,), (2**70,), 1.5, np.nan,
    np.zeros(3, np.float32), np.zeros(0, np.float32), np.zeros((3, 3), np.float32),
    np.zeros((3, 3), np.int8), np.zeros(3, np.int32), np.full(3, 7, np.int32), np.zeros(3)[::2],
    ("fp32", np.zeros((3, 3), np.float32), None, None, 1.0),
    ("int8", np.zeros((9, 3), np.int8), np.zeros(9, np.float32), None, 1.0),
]  # fmt: skip
BUILDERS = ("state", "constant", "scratch", "operation", "dense", "cell", "seal")
RUNNERS = ("advance", "run", "read", "write", "reset")


def never(*_: object) -> np.ndarray:
    raise AssertionError


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_extension_survives_any_arguments(data: st.DataObject) -> None:
    net = _native.Network(3, np.zeros(1, np.int64), never, never, None)
    net.state(np.zeros(3, np.float32))
    for _ in range(6):
        name = data.draw(st.sampled_from(BUILDERS + RUNNERS))
        arguments = data.draw(st.lists(st.sampled_from(JUNK), max_size=12))
        try:
            getattr(net, name)(*arguments)
        except (MemoryError, OverflowError, TypeError, ValueError):
            continue
