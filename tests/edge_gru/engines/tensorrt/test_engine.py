"""The engine on a fake GPU: what it answers, and who owns which memory when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from fake_gpu import FakeGpu
from use import assert_answers, use

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.select import open_engine
from edge_gru.errors import EngineLostError, EngineUnavailableError
from edge_gru.state import State

Lent = Callable[..., Engine]
N_STREAMS = 4


@pytest.mark.parametrize("n_streams", [1, N_STREAMS])
def test_answers_are_those_of_the_definition_and_nothing_is_left(
    lent: Lent, batch: np.ndarray, expected: Callable[[int], list[np.ndarray]], n_streams: int
) -> None:
    with lent(n_streams) as engine:
        assert_answers(use(engine, batch), expected(n_streams))


@pytest.mark.parametrize("n_streams", [1, N_STREAMS])
def test_a_step_is_one_launch_and_one_wait(
    gpu: FakeGpu, lent: Lent, batch: np.ndarray, n_streams: int
) -> None:
    with lent(n_streams) as engine:
        before, runs = (
            len(gpu.cuda.calls),
            gpu.trt.calls.count("IExecutionContext.execute_async_v3"),
        )
        engine.step(batch[0])
        engine.step(batch[1])
        step = ["cudaGraphLaunch", "cudaStreamSynchronize"]
        assert gpu.cuda.calls[before:] == step * 2
        assert gpu.trt.calls.count("IExecutionContext.execute_async_v3") == runs


def test_steps_alternate_between_two_graphs_whose_states_never_alias(
    gpu: FakeGpu, lent: Lent
) -> None:
    with lent() as engine:
        executables = gpu.cuda.executables.values()
        even, odd = (dict(work.owner._addresses) for (work,) in executables)
        del executables
        for state in engine.manifest.state_sizes:
            assert even[state] == odd[f"{state}_out"] != even[f"{state}_out"] == odd[state]
        assert len({*even.values()}) == len(even)
        for shared in ("x", "y"):
            assert even[shared] == odd[shared]


def test_wait_is_set_before_anything_else(
    gpu: FakeGpu, open_tiny: Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wait, flag in {"spin": 1, "yield": 2, "block": 4, "auto": 0}.items():
        monkeypatch.setenv("EDGE_GRU_TENSORRT_WAIT", wait)
        gpu.cuda.gpu_work_began = False
        open_tiny().close()
        assert gpu.cuda.flags == flag
    assert gpu.cuda.calls[:3] == ["cudaGetDeviceCount", "cudaSetDeviceFlags", "cudaSetDevice"]
    gpu.assert_clean()


def test_waiting_that_others_have_settled_is_kept(
    gpu: FakeGpu, open_tiny: Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_tiny().close()
    monkeypatch.setenv("EDGE_GRU_TENSORRT_WAIT", "spin")
    open_tiny().close()
    assert gpu.cuda.flags == 4
    gpu.assert_clean()


def test_a_stream_left_out_keeps_its_state_though_its_row_holds_an_old_sample(
    lent: Lent, batch: np.ndarray
) -> None:
    with lent(N_STREAMS) as engine:
        engine.step_batch(batch)
        before = [engine.save_state(k) for k in range(N_STREAMS)]
        engine.step_batch(batch[:1], np.array([2]))
        engine.step_batch(batch[:1], np.array([2]))
        for k in (0, 1, 3):
            for name, value in engine.save_state(k).values.items():
                np.testing.assert_array_equal(value, before[k].values[name])
        assert engine.save_state(2).n_steps == 3


def test_state_that_is_loaded_is_the_one_given(lent: Lent) -> None:
    rng = np.random.default_rng(9)
    with lent(N_STREAMS) as engine:
        given = []
        for stream in range(N_STREAMS):
            sizes = engine.manifest.state_sizes.items()
            values = {name: rng.uniform(-1, 1, size).astype(np.float32) for name, size in sizes}
            engine.load_state(stream, State(engine.model_hash, stream, values))
            given.append(values)
        for stream in range(N_STREAMS):
            for name, value in engine.save_state(stream).values.items():
                np.testing.assert_array_equal(value, given[stream][name])


def test_reset_reaches_its_stream_alone(lent: Lent, tiny: Bundle, batch: np.ndarray) -> None:
    starts = tiny.source.initial_states()
    with lent(N_STREAMS) as engine:
        for stream in range(N_STREAMS):
            engine.step_batch(batch)
            before = [engine.save_state(k).values for k in range(N_STREAMS)]
            engine.reset(stream)
            for k in range(N_STREAMS):
                expected = starts if k == stream else before[k]
                for name, value in engine.save_state(k).values.items():
                    np.testing.assert_array_equal(value, expected[name])


def test_a_spoilt_stream_does_not_reach_the_others(lent: Lent, batch: np.ndarray) -> None:
    with lent(N_STREAMS) as engine:
        bad = batch.copy()
        bad[1] = np.nan
        engine.step_batch(bad)
        assert np.isnan(engine.save_state(1).values["state_00_h"]).all()
        y = engine.step_batch(batch[:3], np.array([0, 2, 3]))
        assert np.isfinite(y).all()
        engine.reset(1)
        assert np.isfinite(engine.step_batch(batch[:1], np.array([1]))).all()


def test_state_goes_on_across_an_odd_number_of_steps(
    lent: Lent, tiny: Bundle, batch: np.ndarray
) -> None:
    """What is saved and set is the buffer that the next step reads."""
    with lent() as engine, tiny.open("reference", precision="fp32") as reference:
        for n_steps in (1, 2, 3, 4):
            for one in (engine, reference):
                one.reset()
                one.run_sequence(batch[:n_steps])
            saved = engine.save_state()
            for name, value in reference.save_state().values.items():
                np.testing.assert_allclose(saved.values[name], value, atol=1e-5)
            engine.step(batch[0])
            engine.load_state(0, saved)
            np.testing.assert_allclose(engine.step(batch[3]), reference.step(batch[3]), atol=1e-5)


def test_closed_engine_touches_nothing(gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray) -> None:
    engine = open_tiny()
    engine.close()
    n_calls = len(gpu.cuda.calls)
    engine.close()
    for act in (lambda: engine.step(batch[0]), engine.save_state, engine.reset):
        with pytest.raises(EngineUnavailableError, match="closed"):
            act()
    assert len(gpu.cuda.calls) == n_calls
    gpu.assert_clean()


# Graphs that cannot be had.


@pytest.mark.parametrize("cause", ["capture", "enqueue", "instantiate", "begin", "off"])
def test_without_graphs_steps_are_plain_and_right(
    gpu: FakeGpu,
    lent: Lent,
    batch: np.ndarray,
    expected: Callable[[int], list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cause: str,
) -> None:
    if cause == "capture":
        gpu.cuda.capture_error = 901
    elif cause == "enqueue":
        record = gpu.cuda.is_recording
        monkeypatch.setattr(gpu.cuda, "enqueue", refusing_while(record, gpu.cuda.enqueue))
    elif cause == "instantiate":
        gpu.cuda.fail("cudaGraphInstantiateWithFlags", 801)
    elif cause == "begin":
        gpu.cuda.fail("cudaStreamBeginCapture", 801)
    else:
        monkeypatch.setenv("EDGE_GRU_TENSORRT_GRAPHS", "off")
    with lent(N_STREAMS) as engine:
        assert not gpu.cuda.executables
        assert_answers(use(engine, batch), expected(N_STREAMS))
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == (cause != "off")  # once, and not for each graph
    assert all("without CUDA graphs" in r.getMessage() for r in warnings)


def refusing_while(is_recording: Callable[[], bool], enqueue: Callable[..., bool]):
    return lambda stream, work: not is_recording() and enqueue(stream, work)


# Plans that are not what the bundle says.


def other_manifest(tiny: Bundle, **changes: object) -> EngineSource:
    return EngineSource(msgspec.structs.replace(tiny.manifest, **changes), tiny.parts)


def test_plan_of_other_tensors_is_refused(gpu: FakeGpu, tiny: Bundle, cache_folder: Path) -> None:
    states = list(tiny.manifest.states)
    for changes in (
        {"outputs": ("y0", "y1", "y2")},
        {"states": (*states[:-1], msgspec.structs.replace(states[-1], name="state_09_h"))},
        {"states": (*states, msgspec.structs.replace(states[0], name="state_02_h"))},
    ):
        source = other_manifest(tiny, **changes)
        weights = source.tensors("weights.safetensors")
        for state in source.manifest.states:
            weights.setdefault(f"{state.name}.initial", np.zeros(state.size, np.float32))
        parts = {**source.parts, "weights.safetensors": safetensors.numpy.save(weights)}
        with pytest.raises(
            EngineUnavailableError, match=r"expected \w+ of the TensorRT plan to be"
        ):
            open_engine("tensorrt", EngineSource(source.manifest, parts), precision="fp32")
        gpu.assert_clean()


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("get_tensor_location", "HOST", "in device memory, got host memory"),
        ("get_tensor_dtype", "HALF", r"expected \w+ of the TensorRT plan to be .*HALF"),
        ("get_tensor_mode", "OUTPUT", r"expected \w+ of the TensorRT plan to be"),
    ],
)
def test_plan_of_other_types_or_places_is_refused(
    gpu: FakeGpu,
    open_tiny: Lent,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    answer: str,
    said: str,
) -> None:
    kinds = {"get_tensor_location": "TensorLocation", "get_tensor_dtype": "DataType"}
    value = getattr(gpu.module, kinds.get(method, "TensorIOMode"))[answer]
    monkeypatch.setattr(gpu.module.ICudaEngine, method, lambda *_: value)
    with pytest.raises(EngineUnavailableError, match=said):
        open_tiny()
    gpu.assert_clean()


def test_precision_without_a_graph_is_refused(
    gpu: FakeGpu, tiny: Bundle, cache_folder: Path
) -> None:
    bare = msgspec.structs.replace(tiny.manifest.precisions["fp32"], graphs={})
    source = other_manifest(tiny, precisions={"fp32": bare}, default_precision="fp32")
    with pytest.raises(EngineUnavailableError, match="no graph for TensorRT of precision 'fp32'"):
        open_engine("tensorrt", source)
    gpu.assert_clean()


# A GPU that is lost.


@pytest.mark.parametrize("code", [700, 719])
@pytest.mark.parametrize("n_streams", [1, 2])
def test_lost_gpu_hands_over_what_was_saved(
    gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray, code: int, n_streams: int
) -> None:
    engine = open_tiny(n_streams)
    engine.run_sequence(batch)
    saved = engine.save_state(0)
    kept = {name: value.copy() for name, value in saved.values.items()}
    for value in saved.values.values():
        value[...] = 9.0  # it is the caller's
    gpu.cuda.poison = code
    acts: list[Callable[[], object]] = [
        lambda: engine.step(batch[0]),
        lambda: engine.step(batch[0]),  # and from then on
        lambda: engine.step_batch(batch[:1]),
        lambda: engine.run_sequence(batch),
        lambda: engine.save_state(0),
        lambda: engine.load_state(0, State(engine.model_hash, 0, kept)),
    ]
    for act in acts:
        with pytest.raises(EngineLostError, match=rf"\({code}\).*lost to this process") as caught:
            act()
        assert list(caught.value.states) == [0]
        assert caught.value.states[0].n_steps == 4
        for name, value in kept.items():
            np.testing.assert_array_equal(caught.value.states[0].values[name], value)
    with pytest.raises(EngineLostError) as caught:
        engine.reset()
    engine.close()
    gpu.assert_clean()


def test_step_that_tensorrt_refuses_on_a_lost_gpu_tells_of_the_loss(
    gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_GRU_TENSORRT_GRAPHS", "off")
    engine = open_tiny()
    engine.reset()  # is in the stream, and nothing has waited for it
    gpu.cuda.poison = 700
    gpu.trt.fail_name = "IExecutionContext.execute_async_v3"
    with pytest.raises(EngineLostError):
        engine.step(batch[0])
    engine.close()
    gpu.assert_clean()


def test_states_that_were_reset_are_not_handed_over(
    gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray
) -> None:
    engine = open_tiny(3)
    state = engine.save_state(0)
    for stream in (1, 2):
        engine.load_state(stream, state)
    engine.reset(1)
    gpu.cuda.poison = 700
    with pytest.raises(EngineLostError) as caught:
        engine.step_batch(batch[:3])
    assert sorted(caught.value.states) == [0, 2]
    engine.close()


def test_reset_of_all_forgets_all(gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray) -> None:
    engine = open_tiny(2)
    engine.save_state(0)
    engine.save_state(1)
    engine.reset()
    gpu.cuda.poison = 700
    with pytest.raises(EngineLostError) as caught:
        engine.step_batch(batch[:2])
    assert caught.value.states == {}
    engine.close()


def test_step_that_is_refused_keeps_the_state(
    gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_GRU_TENSORRT_GRAPHS", "off")
    with open_tiny() as engine:
        engine.run_sequence(batch[:3])
        before = engine.save_state(0)
        gpu.trt.fail_name = "IExecutionContext.execute_async_v3"
        with pytest.raises(EngineUnavailableError, match=r"does not run the step \(.* failed\)"):
            engine.step(batch[0])
        gpu.trt.fail_name = None
        after = engine.save_state(0)
        assert after.n_steps == before.n_steps == 3
        for name, value in before.values.items():
            np.testing.assert_array_equal(after.values[name], value)
    gpu.assert_clean()


def test_launch_that_is_refused_keeps_the_state(
    gpu: FakeGpu, lent: Lent, batch: np.ndarray
) -> None:
    with lent() as engine:
        engine.step(batch[0])
        before = engine.save_state(0)
        gpu.cuda.fail("cudaGraphLaunch", 1)
        with pytest.raises(EngineUnavailableError, match="cudaGraphLaunch: cudaError1"):
            engine.step(batch[0])
        gpu.cuda.heal()
        for name, value in engine.save_state(0).values.items():
            np.testing.assert_array_equal(value, before.values[name])
