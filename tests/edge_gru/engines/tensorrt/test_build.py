"""Building: what the builder is told, how it reports, and that it can be stopped."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import ModuleType

import numpy as np
import onnx
import pytest
from fake_gpu import FakeGpu

from edge_gru.bundle import Bundle
from edge_gru.errors import EngineUnavailableError

FOREVER = [("Build", None, 10**8)]


@pytest.fixture
def build(gpu: FakeGpu) -> ModuleType:
    gpu.cuda.flags = 4  # as after open_cuda
    return importlib.import_module("edge_gru.engines.tensorrt.build")


@pytest.fixture
def graph(tiny: Bundle) -> bytes:
    return tiny.parts[tiny.manifest.precisions["fp32"].graphs["active"]]


def test_builder_is_told_what_was_asked_for(gpu: FakeGpu, build: ModuleType, graph: bytes) -> None:
    options = build.BuildOptions("fp32", 1, 4, 8, 7 << 20, 5, "all")
    built = build.build_plan(graph, options)
    (facts,) = gpu.trt.built_with
    assert facts["flags"] == []  # no TF32
    assert facts["workspace_bytes"] == 7 << 20
    assert facts["level"] == 5
    assert facts["verbosity"] == "DETAILED"
    assert facts["profile"]["x"] == [[1, 3], [4, 3], [8, 3]]
    assert facts["profile"]["active"] == [[1, 1], [4, 1], [8, 1]]
    assert facts["profile"]["state_01_c"] == [[1, 8], [4, 8], [8, 8]]
    assert len(facts["profile"]) == 6
    assert built.plan.startswith(b"ftrt")
    assert 0 <= built.duration_s < 60
    assert gpu.cuda.faults == []


def test_options_default_to_one_stream(gpu: FakeGpu, build: ModuleType, graph: bytes) -> None:
    build.build_plan(graph, build.BuildOptions("fp32"))
    (facts,) = gpu.trt.built_with
    assert facts["profile"]["x"] == [[1, 3]] * 3
    assert (facts["workspace_bytes"], facts["level"], facts["verbosity"]) == (64 << 20, 3, "NONE")


def test_timings_are_taken_over_from_build_to_build(
    gpu: FakeGpu, build: ModuleType, graph: bytes
) -> None:
    options = build.BuildOptions("fp32")
    first = build.build_plan(graph, options)
    build.build_plan(graph, options, first.timing_cache)
    assert [facts["timings"] for facts in gpu.trt.built_with] == ["", "10.3.0 after 1 builds"]


def test_timings_of_another_version_are_as_good_as_none(
    gpu: FakeGpu, build: ModuleType, graph: bytes
) -> None:
    built = build.build_plan(graph, build.BuildOptions("fp32"), b"9.0 something")
    assert gpu.trt.built_with[0]["timings"] == ""
    assert built.timing_cache == b"10.3.0 after 1 builds"
    assert gpu.cuda.faults == []


def test_warnings_of_a_build_are_kept(gpu: FakeGpu, build: ModuleType, graph: bytes) -> None:
    options = build.BuildOptions("fp32")
    gpu.trt.warnings = ["a slow tactic"]
    assert build.build_plan(graph, options).log == ("a slow tactic",)
    gpu.trt.warnings = []
    assert build.build_plan(graph, options).log == ()


def test_progress_tells_of_the_outermost_stages_in_the_thread_of_the_caller(
    gpu: FakeGpu, build: ModuleType, graph: bytes
) -> None:
    gpu.trt.phases = [("Build", None, 4), ("Tactics", "Build", 10), ("Empty", "", 0)]
    told, threads, builders = [], set(), []
    gpu.trt.during_build = lambda: builders.append(threading.current_thread())

    def progress(stage: str, done: float) -> None:
        told.append((stage, done))
        threads.add(threading.current_thread())

    build.build_plan(graph, build.BuildOptions("fp32"), progress=progress)
    assert [done for stage, done in told if stage == "Build"] == [0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert [done for stage, done in told if stage == "Empty"] == [0, 1.0]
    assert {stage for stage, _ in told} == {"Build", "Empty"}
    assert threads == {threading.current_thread()}
    assert threads.isdisjoint(builders)


def test_steps_beyond_those_announced_are_no_more_than_all(gpu: FakeGpu, build: ModuleType) -> None:
    reports: SimpleQueue = SimpleQueue()
    monitor = build._Monitor(reports, threading.Event())
    monitor.phase_start("Build", None, 2)
    assert monitor.step_complete("Build", 5)
    assert monitor.step_complete("unknown", 0)
    monitor.phase_finish("unknown")
    monitor.phase_finish("Build")
    assert monitor.step_complete("Build", 0)
    assert [reports.get() for _ in range(reports.qsize())] == [
        ("Build", 0.0),
        ("Build", 1.0),
        ("Build", 1.0),
    ]


def test_phase_of_one_step_is_done_after_it(gpu: FakeGpu, build: ModuleType) -> None:
    reports: SimpleQueue = SimpleQueue()
    monitor = build._Monitor(reports, threading.Event())
    monitor.phase_start("Build", None, 1)
    monitor.step_complete("Build", 0)
    assert [reports.get(), reports.get()] == [("Build", 0.0), ("Build", 1.0)]


def stop_with_progress(build: ModuleType, graph: bytes) -> None:
    def progress(stage: str, done: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build.build_plan(graph, build.BuildOptions("fp32"), progress=progress)


def stop_with_event(build: ModuleType, graph: bytes) -> None:
    cancel = threading.Event()
    with pytest.raises(EngineUnavailableError, match="was stopped; start it again"):
        build.build_plan(
            graph,
            build.BuildOptions("fp32"),
            progress=lambda *_: cancel.set(),
            cancel=cancel,
        )


def stop_with_a_failing_bar_and_an_event(build: ModuleType, graph: bytes) -> None:
    cancel = threading.Event()

    def progress(stage: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build_plan(graph, build.BuildOptions("fp32"), progress=progress, cancel=cancel)
    assert cancel.is_set()  # the builder is told, too


@pytest.mark.parametrize(
    "stop", [stop_with_progress, stop_with_event, stop_with_a_failing_bar_and_an_event]
)
def test_build_can_be_stopped(
    gpu: FakeGpu, build: ModuleType, graph: bytes, stop: Callable[[ModuleType, bytes], None]
) -> None:
    gpu.trt.phases = FOREVER
    stop(build, graph)
    assert gpu.trt.n_builds == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: who starts the tests in the background has them ignore an interrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_stops_the_builder(gpu: FakeGpu, build: ModuleType, graph: bytes) -> None:
    gpu.trt.phases = FOREVER
    gpu.trt.during_build = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build.build_plan(graph, build.BuildOptions("fp32"))
    assert gpu.trt.n_builds == 0


@pytest.mark.parametrize("data", [b"", b"no graph"])
def test_bytes_that_are_no_graph_are_refused(gpu: FakeGpu, build: ModuleType, data: bytes) -> None:
    with pytest.raises(
        EngineUnavailableError, match=r"cannot parse the int8 graph of this bundle \(\w.+\); run"
    ):
        build.build_plan(data, build.BuildOptions("int8"))


def test_node_that_does_not_parse_is_named(gpu: FakeGpu, build: ModuleType, graph: bytes) -> None:
    proto = onnx.load_model_from_string(graph)
    for name in ("first", "second"):
        inputs = [f"a_{name}", f"b_{name}"]
        for one in inputs:
            array = onnx.numpy_helper.from_array(np.ones((2, 2), np.int8), one)
            proto.graph.initializer.append(array)
        proto.graph.node.append(
            onnx.helper.make_node("MatMulInteger", inputs, [f"y_{name}"], name=name)
        )
    with pytest.raises(
        EngineUnavailableError,
        match=r"\(MatMulInteger first: false; MatMulInteger second: false\)",
    ):
        build.build_plan(proto.SerializeToString(), build.BuildOptions("fp32"))


def test_what_breaks_in_the_builder_reaches_the_caller(
    gpu: FakeGpu, build: ModuleType, graph: bytes
) -> None:
    def fail() -> None:
        raise MemoryError("of the host")

    gpu.trt.during_build = fail
    with pytest.raises(MemoryError, match="of the host"):
        build.build_plan(graph, build.BuildOptions("fp32"))


def test_errors_of_an_earlier_build_are_not_the_reason(
    gpu: FakeGpu, build: ModuleType, graph: bytes
) -> None:
    gpu.trt.fail_name = "OnnxParser.parse"
    with pytest.raises(EngineUnavailableError, match=r"\(OnnxParser.parse failed\)"):
        build.build_plan(graph, build.BuildOptions("fp32"))
    gpu.trt.fail_name = "Builder.build_serialized_network"
    with pytest.raises(
        EngineUnavailableError, match=r"cannot build .* \(Builder.build_serialized_network failed\)"
    ):
        build.build_plan(graph, build.BuildOptions("fp32"))
