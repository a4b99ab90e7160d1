"""The fakes see what they are there to see: each of these is a fault on a GPU, sooner or later."""

from __future__ import annotations

import ctypes
import inspect
import re
from collections.abc import Callable

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_gpu import FakeGpu

from edge_gru.bundle import Bundle
from edge_gru.engines.tensorrt.cudart import TO_DEVICE, TO_HOST, Cuda

ROWS = 2
Context = object


@pytest.fixture
def fake(gpu: FakeGpu) -> FakeCuda:
    return gpu.cuda


@pytest.fixture
def cuda(fake: FakeCuda) -> Cuda:
    cuda = Cuda(fake.library)
    cuda.start(4)
    return cuda


@pytest.fixture
def stream(cuda: Cuda) -> int:
    return cuda.create_stream()


@pytest.fixture
def context(gpu: FakeGpu, cuda: Cuda, tiny: Bundle) -> Context:
    """A context of a plan for one to two rows, with nothing set."""
    trt = gpu.module

    class Log(trt.ILogger):
        def log(self, severity: object, msg: str) -> None:
            pass

    builder = trt.Builder(Log())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, Log())
    assert parser.parse(tiny.parts[tiny.manifest.precisions["fp32"].graphs["step"]])
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for k in range(network.num_inputs):
        tensor = network.get_input(k)
        shapes = ((n, *tensor.shape[1:]) for n in (1, ROWS, ROWS))
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    plan = bytes(builder.build_serialized_network(network, config))
    engine = trt.Runtime(Log()).deserialize_cuda_engine(plan)
    return engine.create_execution_context()


def widths(tiny: Bundle) -> dict[str, int]:
    manifest = tiny.manifest
    sizes = {"x": manifest.n_in, "y": manifest.n_out}
    for name, size in manifest.state_sizes.items():
        sizes |= {name: size, f"{name}_out": size}
    return sizes


@pytest.fixture
def addresses(cuda: Cuda, tiny: Bundle) -> dict[str, int]:
    return {name: cuda.allocate(ROWS * 4 * n) for name, n in widths(tiny).items()}


@pytest.fixture
def bound(context: Context, addresses: dict[str, int], tiny: Bundle) -> Context:
    for name, address in addresses.items():
        assert context.set_tensor_address(name, address)
    for name in ("x", *tiny.manifest.state_sizes):
        assert context.set_input_shape(name, (ROWS, widths(tiny)[name]))
    return context


def test_argument_without_a_type_is_cut_to_32_bits(fake: FakeCuda) -> None:
    fake.library.cudaSetDeviceFlags(4)
    address = ctypes.c_void_p()
    fake.library.cudaMalloc(ctypes.byref(address), 64)
    assert fake.library.cudaFree(address.value) != 0
    assert fake.faults == ["freed device memory that is not there"]
    assert fake.leaks() == ["64 bytes of device memory"]


def test_nothing_is_done_before_it_is_waited_for(fake: FakeCuda, cuda: Cuda, stream: int) -> None:
    device, host = cuda.allocate(8), cuda.allocate_mapped(8)
    array = np.frombuffer(memoryview((ctypes.c_ubyte * 8).from_address(host)), "f4")
    array[:] = 5
    cuda.copy(device, host, 8, TO_DEVICE, stream)
    array[:] = 6  # too early: the copy has not read it
    cuda.synchronize(stream)
    cuda.copy(host, device, 8, TO_HOST, stream)
    array[:] = 0
    cuda.synchronize(stream)
    assert array.tolist() == [6, 6]
    assert fake.faults == []


def test_a_run_reads_its_input_when_it_is_waited_for(
    tiny: Bundle, cuda: Cuda, stream: int, bound: Context, addresses: dict[str, int]
) -> None:
    for name, address in addresses.items():
        if not name.startswith("y"):
            ctypes.memset(address, 0, ROWS * 4 * widths(tiny)[name])
    assert bound.execute_async_v3(stream)
    before = ctypes.string_at(addresses["y"], 8)
    assert np.isnan(np.frombuffer(before, "f4")).all()  # fresh memory
    cuda.synchronize(stream)
    assert ctypes.string_at(addresses["y"], 8) != before


def run_without_addresses(context: Context) -> None:
    context.set_input_shape("x", (1, 3))
    context.execute_async_v3(0)


def run_in_the_default_stream(bound: Context) -> None:
    bound.execute_async_v3(0)


def shape_outside_the_profile(context: Context) -> None:
    assert not context.set_input_shape("x", (ROWS + 1, 3))


def state_in_place(bound: Context, addresses: dict[str, int], stream: int) -> None:
    bound.set_tensor_address("state_00_h_out", addresses["state_00_h"])
    bound.execute_async_v3(stream)


def memory_of_the_host(bound: Context, cuda: Cuda, stream: int) -> None:
    bound.set_tensor_address("x", cuda.allocate_mapped(24))  # not as the GPU knows it
    bound.execute_async_v3(stream)


def memory_freed_before_the_run_was_done(
    bound: Context, addresses: dict[str, int], cuda: Cuda, stream: int
) -> None:
    bound.execute_async_v3(stream)
    cuda.free(addresses["y"])


def graph_on_freed_memory(
    bound: Context, addresses: dict[str, int], cuda: Cuda, stream: int
) -> None:
    executable = recorded(bound, cuda, stream)
    cuda.free(addresses["y"])
    cuda.launch(executable, stream)
    cuda.synchronize(stream)


def graph_of_a_context_that_has_changed(
    bound: Context, addresses: dict[str, int], cuda: Cuda, stream: int
) -> None:
    executable = recorded(bound, cuda, stream)
    bound.set_tensor_address("x", addresses["y"])
    cuda.launch(executable, stream)


def recorded(bound: Context, cuda: Cuda, stream: int) -> int:
    bound.execute_async_v3(stream)
    cuda.synchronize(stream)
    cuda.begin_capture(stream)
    bound.execute_async_v3(stream)
    return cuda.instantiate(cuda.end_capture(stream))


def memory_freed_under_a_context(
    bound: Context, addresses: dict[str, int], cuda: Cuda, stream: int
) -> None:
    bound.execute_async_v3(stream)
    cuda.synchronize(stream)
    cuda.free(addresses["x"])


def fresh_memory_read(bound: Context, cuda: Cuda, stream: int) -> None:
    bound.execute_async_v3(stream)
    cuda.synchronize(stream)


def first_run_recorded(bound: Context, cuda: Cuda, stream: int) -> None:
    cuda.begin_capture(stream)
    bound.execute_async_v3(stream)
    cuda.end_capture(stream)


def waiting_while_recording(cuda: Cuda, stream: int) -> None:
    cuda.begin_capture(stream)
    cuda.drain(stream)


def freed_twice(cuda: Cuda) -> None:
    address = cuda.allocate(8)
    cuda.free(address)
    cuda.free(address)


def copied_beyond_the_end(cuda: Cuda, stream: int) -> None:
    cuda.copy(cuda.allocate(8), cuda.allocate_mapped(16), 16, TO_DEVICE, stream)
    cuda.synchronize(stream)


def copied_the_wrong_way(cuda: Cuda, stream: int) -> None:
    cuda.copy(cuda.allocate(8), cuda.allocate_mapped(8), 8, TO_HOST, stream)
    cuda.synchronize(stream)


def stream_destroyed_with_work(bound: Context, cuda: Cuda, stream: int) -> None:
    bound.execute_async_v3(stream)
    cuda.destroy_stream(stream)


FAULTS = {
    run_without_addresses: "run without addresses",
    run_in_the_default_stream: "run in no stream",
    shape_outside_the_profile: "outside the profile",
    state_in_place: "share memory",
    memory_of_the_host: "are not device or mapped",
    memory_freed_before_the_run_was_done: "freed before a step was done",
    graph_on_freed_memory: "touches memory that was freed",
    graph_of_a_context_that_has_changed: "context that has changed",
    memory_freed_under_a_context: "freed before the context that runs on it",
    fresh_memory_read: "state_00_h is read and nobody has written it",
    first_run_recorded: "first run is being recorded",
    waiting_while_recording: "while a stream is being recorded",
    freed_twice: "memory that is not there",
    copied_beyond_the_end: "16 bytes at 0x[0-9a-f]+ are not device",
    copied_the_wrong_way: "are not pinned",
    stream_destroyed_with_work: "destroyed with work in it",
}


@pytest.mark.parametrize("act", FAULTS, ids=lambda act: act.__name__)
def test_fault_is_seen(
    request: pytest.FixtureRequest, fake: FakeCuda, act: Callable[..., None]
) -> None:
    act(**{name: request.getfixturevalue(name) for name in inspect.signature(act).parameters})
    assert fake.faults
    assert any(re.search(FAULTS[act], fault) for fault in fake.faults), fake.faults


def test_work_of_a_spoilt_gpu_is_not_done_and_every_call_says_so(
    fake: FakeCuda, cuda: Cuda, stream: int, bound: Context
) -> None:
    bound.execute_async_v3(stream)
    fake.poison = 700
    assert fake.library.cudaStreamSynchronize(stream) == 700
    address = ctypes.c_void_p()
    assert fake.library.cudaMalloc(ctypes.byref(address), 8) == 700
    assert fake.library.cudaGetLastError() == 700
