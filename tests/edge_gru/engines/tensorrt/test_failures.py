"""Every call of CUDA and TensorRT fails in its turn: it is told, and nothing leaks."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeGpu
from fake_state import FAILURES, HARMLESS
from use import assert_answers, use

from edge_gru.engines.base import Engine
from edge_gru.errors import EngineLostError, EngineUnavailableError

Lent = Callable[..., Engine]


Used = Callable[[], tuple[list[np.ndarray], EngineUnavailableError | None]]


@pytest.fixture
def open_and_use(
    gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Used]:
    """What the engine answers, or why it does not; the fake must be left clean."""
    logging.disable(logging.CRITICAL)  # a record would keep the frames of its error
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is on the disk is not the point
    gc.collect()
    gc.freeze()  # so that collecting what a failure leaves takes no time
    yield lambda: opened_and_used(gpu, open_tiny, batch)
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def opened_and_used(
    gpu: FakeGpu, open_tiny: Lent, batch: np.ndarray
) -> tuple[list[np.ndarray], EngineUnavailableError | None]:
    answers: list[np.ndarray] = []
    told = None
    try:
        with open_tiny(2) as engine:
            answers = use(engine, batch)
    except EngineUnavailableError as error:
        told = error.with_traceback(None)  # which would keep the things of its frames
        told.__context__ = told.__cause__ = None
    gc.collect()
    assert (gpu.cuda.faults, gpu.cuda.leaks()) == ([], [])
    assert not list(gpu.trt.live)
    return answers, told


def emptied(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()


@pytest.mark.parametrize(("code", "is_cached"), [(2, True), (719, True), (2, False)])
def test_every_cuda_call_may_fail(
    gpu: FakeGpu,
    open_and_use: Used,
    expected: Callable[[int], list[np.ndarray]],
    cache_folder: Path,
    code: int,
    is_cached: bool,
) -> None:
    """Call after call fails: it is told by name, nothing leaks, nothing is touched once freed."""
    answers = expected(2)
    open_and_use()
    gpu.trt.renew()
    open_and_use()
    n_all = len(gpu.cuda.calls)
    n_told = 0
    for n in itertools.count():
        cuda = gpu.trt.renew()
        cuda.fail_at, cuda.fail_code = n, code
        if not is_cached:
            emptied(cache_folder)
        got, told = open_and_use()
        if n >= len(cuda.calls):
            break
        name = cuda.calls[n]
        if told is None:
            assert name in SURVIVED
            assert_answers(got, answers)
            continue
        n_told += 1
        assert isinstance(told, EngineLostError) == (code == 719)
        name = r"cuda\w+" if name in SURVIVED else name  # the next call tells
        assert re.match(rf"{name}: cudaError\w+ \({code}\), text of {code}; ", str(told))
    assert n_told > n_all / 2
    assert n >= n_all


# Without a graph there are plain launches; what cannot be freed is logged.
SURVIVED = {
    "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags",
    "cudaGraphDestroy", "cudaGraphExecDestroy", "cudaFree", "cudaFreeHost", "cudaStreamDestroy",
    "cudaStreamSynchronize",
}  # fmt: skip


@pytest.mark.parametrize("is_cached", [True, False], ids=["cached", "built"])
def test_every_call_of_tensorrt_may_fail(
    gpu: FakeGpu,
    open_and_use: Used,
    expected: Callable[[int], list[np.ndarray]],
    cache_folder: Path,
    is_cached: bool,
) -> None:
    """None, False, TypeError: the reason is what the logger was told, and nothing leaks."""
    answers = expected(2)
    open_and_use()
    seen = set()
    for n in itertools.count():
        gpu.trt.renew()
        gpu.trt.fail_at = n
        if not is_cached:
            emptied(cache_folder)
        got, told = open_and_use()
        if n >= len(gpu.trt.calls):
            break
        name = gpu.trt.calls[n]
        if not gpu.trt.failed:
            continue
        seen.add(name)
        if told is None:
            assert name in HARMLESS or name in BUILT_AGAIN or is_recorded(gpu, n)
            assert_answers(got, answers)
        elif name == "IExecutionContext.infer_shapes":
            assert "has no shape for x" in str(told)
        else:
            assert f"{name} failed" in str(told)
    on_load = {call for call in FAILURES if call.startswith(("Runtime", "ICuda", "IExec"))}
    assert seen == (on_load if is_cached else set(FAILURES))


BUILT_AGAIN = {"Runtime.deserialize_cuda_engine", "Runtime.__init__"}  # when it was in the cache


def is_recorded(gpu: FakeGpu, n: int) -> bool:
    """Whether a call was the recording of a graph, without which there are plain launches."""
    return gpu.trt.calls[n] == "IExecutionContext.execute_async_v3" and not gpu.cuda.executables


@pytest.mark.parametrize(
    ("earlier", "failing"),
    [
        ("ITimingCache.serialize", "Runtime.deserialize_cuda_engine"),
        ("Runtime.deserialize_cuda_engine", "ICudaEngine.create_execution_context"),
        ("IExecutionContext.infer_shapes", "IExecutionContext.execute_async_v3"),
    ],
)
def test_what_was_said_before_is_not_the_reason(
    gpu: FakeGpu, open_tiny: Lent, monkeypatch: pytest.MonkeyPatch, earlier: str, failing: str
) -> None:
    enter = gpu.trt.enter

    def talkative(call: str) -> tuple[bool, object]:
        if call == earlier:
            gpu.trt.say("ERROR", "of before")
        return enter(call)

    monkeypatch.setattr(gpu.trt, "enter", talkative)
    gpu.trt.fail_name = failing
    with pytest.raises(EngineUnavailableError, match=rf"\({failing} failed\)"):
        open_tiny()


EXECUTE = "IExecutionContext.execute_async_v3"


def fail_run(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, n_th: int) -> None:
    """Let one run be refused, and TensorRT complain of something before it."""
    enter = gpu.trt.enter

    def refusing(call: str) -> tuple[bool, object]:
        n_runs = gpu.trt.calls.count(EXECUTE)
        if call != EXECUTE or n_runs + 1 != n_th:
            if call == EXECUTE and n_runs + 2 == n_th:
                gpu.trt.say("ERROR", "of before")
            return enter(call)
        gpu.trt.fail_name = EXECUTE
        answer = enter(call)
        gpu.trt.fail_name = None
        return answer

    monkeypatch.setattr(gpu.trt, "enter", refusing)


def test_reason_for_plain_launches_is_that_of_the_recording(
    gpu: FakeGpu, open_tiny: Lent, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    fail_run(gpu, monkeypatch, 2)  # the first was the trial
    open_tiny().close()
    assert f"does not record the step ({EXECUTE} failed)" in caplog.text
    gpu.assert_clean()


@pytest.mark.parametrize("n_th", [3, 6])
def test_engine_that_does_not_run_after_a_recording_failed_is_not_opened(
    gpu: FakeGpu, open_tiny: Lent, monkeypatch: pytest.MonkeyPatch, n_th: int
) -> None:
    """Each of the two phases tries, records in vain, and tries again."""
    gpu.cuda.capture_error = 901
    fail_run(gpu, monkeypatch, n_th)
    with pytest.raises(EngineUnavailableError, match="does not run the step"):
        open_tiny()
    gpu.assert_clean()
