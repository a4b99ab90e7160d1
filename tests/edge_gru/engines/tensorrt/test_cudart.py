"""The CUDA layer: full addresses, checked codes, sentences with what to do."""

from __future__ import annotations

import ctypes

import pytest
from fake_cuda import SIGNATURES, FakeCuda

from edge_gru.engines.tensorrt import cudart
from edge_gru.engines.tensorrt.cudart import Cuda, Device, open_cuda
from edge_gru.engines.tensorrt.device import mapped_array
from edge_gru.errors import EngineLostError, EngineUnavailableError


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def cuda(fake: FakeCuda) -> Cuda:
    cuda = Cuda(fake.library)
    cuda.start(4)
    return cuda


def test_fake_has_the_functions_that_are_called() -> None:
    assert set(SIGNATURES) == set(cudart.PROTOTYPES)
    for name, types in cudart.PROTOTYPES.items():
        sizes = [ctypes.sizeof(t) for t in types]
        assert sizes == [ctypes.sizeof(t) for t in SIGNATURES[name]], name


def test_addresses_are_whole(cuda: Cuda, fake: FakeCuda) -> None:
    address = cuda.allocate(100)
    assert address > 2**32
    assert address % 256 == 0
    cuda.free(address)
    stream = cuda.create_stream()
    assert stream > 2**32
    cuda.destroy_stream(stream)
    assert (fake.faults, fake.leaks()) == ([], [])


def test_device_is_what_a_plan_is_tied_to(cuda: Cuda, fake: FakeCuda) -> None:
    fake.versions = {"cudaRuntimeGetVersion": 12060, "cudaDriverGetVersion": 13020}
    fake.attributes = {16: 8, 75: 11, 76: 2}
    assert cuda.device() == Device(12060, 13020, "11.2", 8)
    assert cuda.memory() == (1000 << 20, 7000 << 20)


def test_mapped_array_is_shared_zeroed_and_given_back(cuda: Cuda, fake: FakeCuda) -> None:
    with mapped_array(cuda, (2, 3), "f4") as mapped:
        assert mapped.array.shape == (2, 3)
        assert not mapped.array.any()
        mapped.array[1, 2] = 7.0
        assert mapped.address != mapped.host
        seen = (ctypes.c_float * 6).from_address(mapped.address)
        assert list(seen) == [0, 0, 0, 0, 0, 7.0]
    assert (fake.faults, fake.leaks()) == ([], [])


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (2, "free memory, or run a CPU engine"),
        (35, "driver is missing, or older"),
        (100, "no GPU"),
        (209, "no code for this GPU"),
        (1, "run a CPU engine"),
    ],
)
def test_codes_are_sentences_with_what_to_do(
    cuda: Cuda, fake: FakeCuda, code: int, advice: str
) -> None:
    fake.fail("cudaMalloc", code)
    with pytest.raises(
        EngineUnavailableError, match=rf"^cudaMalloc: cudaError\w+ \({code}\), text of {code}; "
    ) as caught:
        cuda.allocate(8)
    assert advice in str(caught.value)
    assert not isinstance(caught.value, EngineLostError)
    assert fake.library.cudaGetLastError() == 0  # or TensorRT would find it


@pytest.mark.parametrize("code", [214, 700, 702, 710, 714, 715, 716, 717, 718, 719])
def test_fatal_codes_are_errors_of_their_own(cuda: Cuda, fake: FakeCuda, code: int) -> None:
    fake.fail("cudaStreamSynchronize", code)
    stream = cuda.create_stream()
    with pytest.raises(EngineLostError, match=rf"\({code}\).*in a new process"):
        cuda.synchronize(stream)


def test_launch_is_checked(cuda: Cuda, fake: FakeCuda) -> None:
    fake.fail("cudaGraphLaunch", 1)
    with pytest.raises(EngineUnavailableError, match="cudaGraphLaunch"):
        cuda.launch(1 << 40, 1 << 41)


def test_success_without_an_address_is_no_success(cuda: Cuda, fake: FakeCuda) -> None:
    fake._write = lambda *_: None
    with pytest.raises(EngineUnavailableError, match="cudaMalloc succeeded and gave no address"):
        cuda.allocate(8)


def test_library_of_another_cuda_is_refused(fake: FakeCuda) -> None:
    del fake.library.cudaGraphInstantiateWithFlags
    with pytest.raises(EngineUnavailableError, match="has no cudaGraphInstantiateWithFlags"):
        Cuda(fake.library)


def test_machine_without_a_device_is_told(fake: FakeCuda) -> None:
    fake.n_devices = 0
    with pytest.raises(EngineUnavailableError, match=r"cudaGetDeviceCount: .* \(100\).*no GPU"):
        Cuda(fake.library).start(4)


def test_count_of_zero_is_no_device(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(fake.library)
    monkeypatch.setattr(cuda._library, "cudaGetDeviceCount", lambda _: 0)
    with pytest.raises(EngineUnavailableError, match="CUDA finds no device"):
        cuda.start(4)


def libraries(monkeypatch: pytest.MonkeyPatch, found: dict[str, FakeCuda]) -> list[str]:
    tried = []

    def load(name: str) -> object:
        tried.append(name)
        if name not in found:
            raise OSError(f"{name}: cannot open shared object file")
        return found[name].library

    monkeypatch.setattr(cudart, "load_library", load)
    return tried


def test_first_library_that_finds_a_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, local = FakeCuda(), FakeCuda(), FakeCuda()
    old.fail("cudaGetDeviceCount", 35)
    names = ["libcudart.so.12", "libcudart.so.13", "/usr/local/cuda/lib64/libcudart.so.12"]
    tried = libraries(monkeypatch, dict(zip(names, (old, new, local), strict=True)))
    open_cuda(1)
    assert tried == names[:2]
    assert (new.flags, local.flags) == (1, None)


def test_library_of_the_cuda_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libcudart.so.12", "libcudart.so.13"):
        fake = FakeCuda()
        libraries(monkeypatch, {f"/usr/local/cuda/lib64/{name}": fake})
        open_cuda(2)
        assert fake.flags == 2


def test_why_the_first_library_does_not_serve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeCuda(), FakeCuda()
    first.fail("cudaGetDeviceCount", 35)
    second.fail("cudaGetDeviceCount", 100)
    libraries(monkeypatch, {"libcudart.so.12": first, "libcudart.so.13": second})
    with pytest.raises(EngineUnavailableError, match=r"cudaErrorInsufficientDriver \(35\)"):
        open_cuda(4)


def test_machine_without_cuda_is_told_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libraries(monkeypatch, {})
    with pytest.raises(
        EngineUnavailableError, match=r"libcudart of CUDA 12 or 13, got none .*nvidia-jetpack"
    ):
        open_cuda(4)


def test_loading_is_that_of_ctypes() -> None:
    with pytest.raises(OSError, match="libcudart-of-nobody"):
        cudart.load_library("libcudart-of-nobody.so.12")


def test_what_cannot_be_freed_is_logged(
    cuda: Cuda, fake: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "edge_gru.engines.tensorrt.cudart")
    stream = cuda.create_stream()
    fake.fail("cudaStreamDestroy", 1)
    cuda.destroy_stream(stream)
    assert "cudaStreamDestroy: cudaError1 (1)" in caplog.text
