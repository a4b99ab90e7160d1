"""What every engine promises, in every precision, for every kind of cell: one suite over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine
from edge_gru.engines.cells import CELLS
from edge_gru.engines.table import ENGINES
from edge_gru.errors import EngineUnavailableError, InputShapeError, StateMismatchError
from edge_gru.state import State

N_IN, N_HIDDEN, N_OUT = 3, 8, 2  # of the bundle
PRECISIONS = ("fp16", "fp32", "int8")

Open = Callable[..., Engine]


@pytest.fixture(params=CELLS, scope="module")
def bundle(request: pytest.FixtureRequest, make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(request.param)


@pytest.fixture
def starts(bundle: Bundle) -> dict[str, np.ndarray]:
    """What streams begin with: learned in some of the bundles, zero in the others."""
    found = bundle.source.initial_states()
    for info in bundle.manifest.states:
        assert found[info.name].any() == info.has_initial
    return found


def test_new_streams_begin_where_the_model_does(
    open_streams: Callable[[int], Engine], starts: dict[str, np.ndarray]
) -> None:
    for state in states_of(open_streams(3)):
        assert_same(state, State(state.model_hash, 0, starts))


@pytest.fixture
def other_bundle(bundle: Bundle, make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(bundle.manifest.program.nodes[0].op, seed=7)


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def open_streams(opened: Open, name: str, precision: str) -> Callable[[int], Engine]:
    return lambda n_streams: opened(name, precision, n_streams)


@pytest.fixture
def engine(open_streams: Callable[[int], Engine]) -> Engine:
    """One stream, and a past."""
    engine = open_streams(1)
    for x in np.random.default_rng(3).normal(size=(4, N_IN)).astype(np.float32):
        engine.step(x)
    return engine


@pytest.fixture
def engine_4(open_streams: Callable[[int], Engine]) -> Engine:
    """Four streams with a different past each."""
    engine = open_streams(4)
    rng = np.random.default_rng(4)
    for stream in range(4):
        engine.load_state(stream, random_state(engine, rng, n_steps=10 * stream))
    return engine


def random_state(engine: Engine, rng: np.random.Generator, n_steps: int = 0) -> State:
    names = engine.manifest.state_sizes
    values = {name: rng.uniform(-1, 1, N_HIDDEN).astype(np.float32) for name in names}
    return State(engine.model_hash, n_steps, values)


def assert_same(got: State, expected: State) -> None:
    assert (got.model_hash, got.n_steps) == (expected.model_hash, expected.n_steps)
    assert list(got.values) == list(expected.values)
    assert got.values
    for name in got.values:
        np.testing.assert_array_equal(got.values[name], expected.values[name])


def states_of(engine: Engine) -> list[State]:
    return [engine.save_state(stream) for stream in range(engine.n_streams)]


def assert_all_same(engine: Engine, expected: list[State]) -> None:
    for stream, state in enumerate(expected):
        assert_same(engine.save_state(stream), state)


def test_suite_covers_every_precision_of_the_bundle(bundle: Bundle) -> None:
    assert tuple(bundle.manifest.precisions) == PRECISIONS


def test_engine_tells_what_it_is(engine_4: Engine, bundle: Bundle, name: str, precision: str):
    assert (engine_4.name, engine_4.precision) == (name, precision)
    assert (engine_4.n_in, engine_4.n_out, engine_4.n_streams) == (N_IN, N_OUT, 4)
    assert engine_4.model_hash == bundle.hash
    assert engine_4.manifest == bundle.manifest


def test_step_gives_float32_of_n_out(engine: Engine, samples: np.ndarray) -> None:
    y = engine.step(samples[0])
    assert (y.shape, y.dtype) == ((N_OUT,), np.float32)
    assert np.isfinite(y).all()


def test_step_reads_any_layout_of_the_same_sample(engine: Engine, samples: np.ndarray) -> None:
    before = engine.save_state()
    expected = engine.step(samples[0])
    strided = np.repeat(samples[0], 2)[::2]
    frozen = samples[0].copy()
    frozen.flags.writeable = False
    for x in (strided, frozen, samples[0].astype(np.float64), samples[0].astype(">f4")):
        engine.load_state(0, before)
        np.testing.assert_array_equal(engine.step(x), expected)
    engine.load_state(0, before)
    np.testing.assert_array_equal(engine.step(samples[0].tolist()), expected)


def test_step_leaves_the_sample_alone(engine: Engine, samples: np.ndarray) -> None:
    x = samples[0].copy()
    engine.step(x)
    np.testing.assert_array_equal(x, samples[0])


def test_out_is_filled_and_returned(engine: Engine, samples: np.ndarray) -> None:
    before = engine.save_state()
    expected = engine.step(samples[0])
    rows = np.zeros((N_OUT, 3), np.float32)
    for out in (np.zeros(N_OUT, np.float32), rows[:, 1]):
        engine.load_state(0, before)
        assert engine.step(samples[0], out) is out
        np.testing.assert_array_equal(out, expected)
    assert not rows[:, [0, 2]].any()


def test_returned_arrays_belong_to_the_caller(engine_4: Engine, samples: np.ndarray) -> None:
    y, ys = engine_4.step(samples[0]), engine_4.step_batch(samples[:4])
    kept, kept_batch, before = y.copy(), ys.copy(), states_of(engine_4)
    engine_4.step(samples[5])
    engine_4.step_batch(samples[6:10])
    np.testing.assert_array_equal(y, kept)
    np.testing.assert_array_equal(ys, kept_batch)
    for stream, state in enumerate(before):
        engine_4.load_state(stream, state)
    y[:], ys[:] = np.nan, np.nan
    assert_all_same(engine_4, before)


def bad_samples() -> dict[str, np.ndarray]:
    return {
        "short": np.zeros(N_IN - 1, np.float32),
        "long": np.zeros(N_IN + 1, np.float32),
        "row": np.zeros((1, N_IN), np.float32),
        "column": np.zeros((N_IN, 1), np.float32),
        "scalar": np.zeros((), np.float32),
        "empty": np.zeros(0, np.float32),
    }


@pytest.mark.parametrize("x", bad_samples().values(), ids=bad_samples())
def test_sample_of_wrong_shape_keeps_the_state(engine: Engine, x: np.ndarray) -> None:
    before = engine.save_state()
    with pytest.raises(InputShapeError, match=rf"shape \({N_IN},\)"):
        engine.step(x)
    assert_same(engine.save_state(), before)


def bad_outs() -> dict[str, np.ndarray]:
    frozen = np.zeros(N_OUT, np.float32)
    frozen.flags.writeable = False
    return {
        "long": np.zeros(N_OUT + 1, np.float32),
        "row": np.zeros((1, N_OUT), np.float32),
        "float64": np.zeros(N_OUT),
        "integers": np.zeros(N_OUT, np.int32),
        "frozen": frozen,
    }


@pytest.mark.parametrize("out", bad_outs().values(), ids=bad_outs())
def test_wrong_out_keeps_the_state(engine: Engine, samples: np.ndarray, out: np.ndarray) -> None:
    before = engine.save_state()
    with pytest.raises(InputShapeError, match="out to be a writeable float32"):
        engine.step(samples[0], out)
    assert_same(engine.save_state(), before)


def test_state_is_carried_from_step_to_step(engine: Engine, samples: np.ndarray) -> None:
    seen = [engine.step(samples[0]).tobytes() for _ in range(6)]
    assert len(set(seen)) == 6  # the same sample, and another answer each time
    assert engine.save_state().n_steps == 10


def test_two_states_of_one_size_are_not_swapped(
    engine: Engine, opened: Open, samples: np.ndarray, precision: str
) -> None:
    reference = opened("reference", precision)
    state = random_state(engine, np.random.default_rng(8))
    for one in (engine, reference):
        one.load_state(0, state)
    assert_same(engine.save_state(), state)
    limits = engine.manifest.precisions[precision]
    y, expected = engine.step(samples[0]), reference.step(samples[0])
    np.testing.assert_allclose(y, expected, atol=limits.step_tolerance * 4)
    for name, value in reference.save_state().values.items():
        got = engine.save_state().values[name]
        np.testing.assert_allclose(got, value, atol=limits.step_tolerance)


def test_batch_in_any_order_equals_single_steps(
    engine_4: Engine, engine: Engine, samples: np.ndarray
) -> None:
    order = np.array([2, 0, 3, 1], np.int32)
    before = states_of(engine_4)
    y = engine_4.step_batch(samples[:4], order)
    assert (y.shape, y.dtype) == ((4, N_OUT), np.float32)
    for row, stream in enumerate(order):
        engine.load_state(0, before[stream])
        np.testing.assert_allclose(y[row], engine.step(samples[row]), atol=2e-6)
        assert_close(engine_4.save_state(stream), engine.save_state())


def assert_close(got: State, expected: State) -> None:
    assert got.n_steps == expected.n_steps
    for name in expected.values:
        np.testing.assert_allclose(got.values[name], expected.values[name], atol=2e-6)


def test_step_is_stream_0_of_a_batch(engine_4: Engine, samples: np.ndarray) -> None:
    before = engine_4.save_state(0)
    y = engine_4.step(samples[0])
    after = engine_4.save_state(0)
    engine_4.load_state(0, before)
    np.testing.assert_allclose(engine_4.step_batch(samples[:1])[0], y, atol=2e-6)
    assert_close(engine_4.save_state(0), after)


def test_a_step_moves_no_other_stream(engine_4: Engine, samples: np.ndarray) -> None:
    before = states_of(engine_4)
    engine_4.step(samples[0])
    for stream in (1, 2, 3):
        assert_same(engine_4.save_state(stream), before[stream])
    before = states_of(engine_4)
    engine_4.step_batch(samples[:2], np.array([3, 1]))
    for stream in (0, 2):
        assert_same(engine_4.save_state(stream), before[stream])
    assert [s.n_steps for s in states_of(engine_4)] == [1, 11, 20, 31]


def test_interleaved_streams_run_as_if_alone(
    open_streams: Callable[[int], Engine], samples: np.ndarray
) -> None:
    together, alone = open_streams(3), [open_streams(1) for _ in range(3)]
    rng = np.random.default_rng(11)
    for x in samples:
        rows = rng.permutation(3)[: rng.integers(1, 4)]
        batch = np.stack([x * (1 + stream) for stream in rows])
        y = together.step_batch(batch, rows)
        for row, stream in enumerate(rows):
            expected = alone[stream].step(batch[row])
            np.testing.assert_allclose(y[row], expected, atol=0.02)  # a rounding flip; not a mix-up


def test_streams_default_to_the_first_ones(engine_4: Engine, samples: np.ndarray) -> None:
    before = states_of(engine_4)
    engine_4.step_batch(samples[:2])
    assert [s.n_steps for s in states_of(engine_4)] == [1, 11, 20, 30]
    assert_same(engine_4.save_state(2), before[2])


def test_empty_batch_moves_nothing(engine_4: Engine) -> None:
    before = states_of(engine_4)
    for streams in (None, [], np.zeros(0, np.int32)):
        assert engine_4.step_batch(np.zeros((0, N_IN), np.float32), streams).shape == (0, N_OUT)
    assert_all_same(engine_4, before)


BAD_BATCHES: Mapping[str, tuple[tuple[int, ...], object]] = {
    "one sample": ((N_IN,), None),
    "too many channels": ((2, N_IN + 1), None),
    "three axes": ((1, 2, N_IN), None),
    "more samples than streams": ((5, N_IN), None),
    "fewer streams than samples": ((3, N_IN), [0, 1]),
    "streams of two axes": ((1, N_IN), [[0]]),
    "a negative stream": ((2, N_IN), [0, -1]),
    "no such stream": ((2, N_IN), [0, 4]),
    "beyond 32 bits": ((1, N_IN), np.array([2**32])),
    "a stream twice": ((2, N_IN), [1, 1]),
    "a mask": ((4, N_IN), [True, False, True, True]),
    "fractions": ((2, N_IN), [0.0, 1.5]),
}


@pytest.mark.parametrize(("shape", "streams"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_wrong_batch_moves_no_stream(
    engine_4: Engine, shape: tuple[int, ...], streams: object
) -> None:
    before = states_of(engine_4)
    with pytest.raises(InputShapeError, match="expected"):
        engine_4.step_batch(np.zeros(shape, np.float32), streams)
    assert_all_same(engine_4, before)


def test_reset_puts_one_stream_back(engine_4: Engine, starts: dict[str, np.ndarray]) -> None:
    before = states_of(engine_4)
    engine_4.reset(2)
    for stream in (0, 1, 3):
        assert_same(engine_4.save_state(stream), before[stream])
    cleared = engine_4.save_state(2)
    assert cleared.n_steps == 0
    assert_same(cleared, State(cleared.model_hash, 0, starts))


def test_reset_puts_all_back_and_begins_anew(
    engine_4: Engine, samples: np.ndarray, starts: dict[str, np.ndarray]
) -> None:
    engine_4.reset()
    first = [engine_4.step(x).tobytes() for x in samples[:5]]
    engine_4.reset()
    assert all(s.n_steps == 0 for s in states_of(engine_4))
    for state in states_of(engine_4):
        assert_same(state, State(state.model_hash, 0, starts))
    assert [engine_4.step(x).tobytes() for x in samples[:5]] == first


@pytest.mark.parametrize("stream", [-1, 4])
def test_no_such_stream_is_refused(engine_4: Engine, stream: int) -> None:
    before = states_of(engine_4)
    for act in (
        lambda: engine_4.reset(stream),
        lambda: engine_4.save_state(stream),
        lambda: engine_4.load_state(stream, before[0]),
    ):
        with pytest.raises(InputShapeError, match="stream from 0 to 3"):
            act()
    assert_all_same(engine_4, before)


def test_saved_state_continues_bit_exactly(
    engine: Engine, open_streams: Callable[[int], Engine], samples: np.ndarray
) -> None:
    saved = engine.save_state()
    expected = [engine.step(x).tobytes() for x in samples]
    after = engine.save_state()
    engine.load_state(0, saved)
    assert [engine.step(x).tobytes() for x in samples] == expected
    fresh = open_streams(1)
    fresh.load_state(0, saved)
    assert [fresh.step(x).tobytes() for x in samples] == expected
    assert_same(fresh.save_state(), after)


def test_saved_and_loaded_states_share_no_memory(engine: Engine, samples: np.ndarray) -> None:
    saved = engine.save_state()
    kept = {name: value.copy() for name, value in saved.values.items()}
    engine.step(samples[0])
    for name in engine.manifest.state_sizes:
        np.testing.assert_array_equal(saved.values[name], kept[name])
    engine.load_state(0, saved)
    for value in saved.values.values():
        value[:] = 0.25
    for name in engine.manifest.state_sizes:
        np.testing.assert_array_equal(engine.save_state().values[name], kept[name])


def bad_states(good: State) -> dict[str, State]:
    first, second = (good.values[name] for name in ("state_00_h", "state_01_h"))

    def having(**changes: np.ndarray) -> State:
        return replace(good, values={**good.values, **changes})

    return {
        "another model": replace(good, model_hash="0" * 64),
        "beyond the bound": having(state_01_h=np.where(first > 0, 1.01, second).astype("f4")),
        "not a number": having(state_01_h=np.full(N_HIDDEN, np.nan, np.float32)),
        "infinite": having(state_00_h=np.full(N_HIDDEN, np.inf, np.float32)),
        "another size": having(state_01_h=second[:-1]),
        "the size in another shape": having(state_01_h=second.reshape(2, -1)),
        "a row": having(state_01_h=second[None]),
        "float64": having(state_01_h=second.astype(np.float64)),
        "one state missing": replace(good, values={"state_00_h": first}),
        "one state more": having(state_02_h=first),
    }


ZERO = np.zeros(N_HIDDEN, np.float32)
KINDS = list(bad_states(State("", 0, {"state_00_h": ZERO, "state_01_h": ZERO})))


@pytest.mark.parametrize("kind", KINDS)
def test_state_that_cannot_be_is_refused_and_the_stream_kept(engine: Engine, kind: str) -> None:
    if kind == "beyond the bound" and engine.manifest.states[0].bound is None:
        pytest.skip("nothing bounds the h of this cell")
    before = engine.save_state()
    bad = bad_states(random_state(engine, np.random.default_rng(2)))[kind]
    with pytest.raises(StateMismatchError, match=r"expected .*; reset the stream instead"):
        engine.load_state(0, bad)
    assert_same(engine.save_state(), before)


def test_state_of_another_bundle_is_refused(
    engine: Engine, other_bundle: Bundle, name: str, precision: str
) -> None:
    before = engine.save_state()
    with other_bundle.open(name, precision=precision) as other:
        foreign = other.save_state()
    with pytest.raises(StateMismatchError, match="of model"):
        engine.load_state(0, foreign)
    assert_same(engine.save_state(), before)


def test_state_at_its_bound_is_accepted(engine: Engine) -> None:
    edge = {
        info.name: np.full(N_HIDDEN, -(info.bound or 1e6), np.float32)
        for info in engine.manifest.states
    }
    engine.load_state(0, State(engine.model_hash, 7, edge))
    assert_same(engine.save_state(), State(engine.model_hash, 7, edge))


def test_two_engines_on_one_bundle_are_independent(
    open_streams: Callable[[int], Engine], samples: np.ndarray
) -> None:
    one, two = open_streams(1), open_streams(1)
    expected = [one.step(x).tobytes() for x in samples]
    one.reset()
    got = []
    for x in samples:
        got.append(one.step(x).tobytes())
        two.step(-x)
    assert got == expected
    two.close()
    one.step(samples[0])


def test_closed_engine_refuses_everything(engine: Engine, samples: np.ndarray) -> None:
    state = engine.save_state()
    engine.close()
    engine.close()
    for act in (
        lambda: engine.step(samples[0]),
        lambda: engine.step_batch(samples[:1]),
        engine.reset,
        lambda: engine.reset(0),
        engine.save_state,
        lambda: engine.load_state(0, state),
    ):
        with pytest.raises(EngineUnavailableError, match="closed"):
            act()


def test_context_closes_whatever_happens(open_streams: Callable[[int], Engine]) -> None:
    with pytest.raises(KeyError), open_streams(1) as engine:
        raise KeyError
    with pytest.raises(EngineUnavailableError, match="closed"):
        engine.reset()


@pytest.mark.parametrize("n_streams", [0, -1])
def test_no_stream_is_refused(open_streams: Callable[[int], Engine], n_streams: int) -> None:
    with pytest.raises(InputShapeError, match="at least one stream"):
        open_streams(n_streams)


def test_unknown_precision_is_refused(opened: Open, name: str) -> None:
    with pytest.raises(EngineUnavailableError, match=r"precisions.*fp32.*got 'int3'"):
        opened(name, "int3")
