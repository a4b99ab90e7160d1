"""The CUDA runtime through ctypes: few calls, every one typed and checked."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from typing import Any

from edge_gru.errors import EngineLostError, EngineUnavailableError

_INT = ctypes.c_int
_UINT = ctypes.c_uint
_SIZE = ctypes.c_size_t
_ADDRESS = ctypes.c_void_p  # also streams and graphs
_TO_INT = ctypes.POINTER(_INT)
_TO_SIZE = ctypes.POINTER(_SIZE)
_TO_ADDRESS = ctypes.POINTER(_ADDRESS)

# Without its argument types, ctypes cuts an address to 32 bits.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (_TO_INT,),
    "cudaSetDeviceFlags": (_UINT,),
    "cudaSetDevice": (_INT,),
    "cudaDriverGetVersion": (_TO_INT,),
    "cudaRuntimeGetVersion": (_TO_INT,),
    "cudaDeviceGetAttribute": (_TO_INT, _INT, _INT),
    "cudaMemGetInfo": (_TO_SIZE, _TO_SIZE),
    "cudaMalloc": (_TO_ADDRESS, _SIZE),
    "cudaFree": (_ADDRESS,),
    "cudaHostAlloc": (_TO_ADDRESS, _SIZE, _UINT),
    "cudaHostGetDevicePointer": (_TO_ADDRESS, _ADDRESS, _UINT),
    "cudaFreeHost": (_ADDRESS,),
    "cudaMemcpyAsync": (_ADDRESS, _ADDRESS, _SIZE, _INT, _ADDRESS),
    "cudaStreamCreateWithFlags": (_TO_ADDRESS, _UINT),
    "cudaStreamDestroy": (_ADDRESS,),
    "cudaStreamSynchronize": (_ADDRESS,),
    "cudaStreamBeginCapture": (_ADDRESS, _INT),
    "cudaStreamEndCapture": (_ADDRESS, _TO_ADDRESS),
    "cudaGraphInstantiateWithFlags": (_TO_ADDRESS, _ADDRESS, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_ADDRESS, _ADDRESS),
    "cudaGraphDestroy": (_ADDRESS,),
    "cudaGraphExecDestroy": (_ADDRESS,),
    "cudaGetLastError": (),
    "cudaGetErrorName": (_INT,),
    "cudaGetErrorString": (_INT,),
}
TEXTS = ("cudaGetErrorName", "cudaGetErrorString")  # what answers a text, not a code

TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind

_CANDIDATES = (
    "libcudart.so.12",
    "libcudart.so.13",
    "/usr/local/cuda/lib64/libcudart.so.12",
    "/usr/local/cuda/lib64/libcudart.so.13",
)
_DEVICE = 0
_HOST_PORTABLE_AND_MAPPED = 1 | 2
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_N_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # cudaDeviceAttr

_OUT_OF_MEMORY = 2
_ALREADY_IN_USE = 708
_ADVICE = {
    _OUT_OF_MEMORY: "free memory, or run a CPU engine",
    35: "the NVIDIA driver is missing, or older than this CUDA; run a CPU engine",
    100: "this machine has no GPU for CUDA; run a CPU engine",
    209: "this CUDA has no code for this GPU; install what JetPack brings",
}
# The context is spoilt, and every later call of this process fails: illegal address, timeout,
# assertion, hardware faults, uncorrectable memory, launch failure.
_FATAL = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """What a plan is tied to, beside TensorRT."""

    cuda_runtime: int  # 12060 is 12.6
    cuda_driver: int
    compute_capability: str
    n_multiprocessors: int


class Cuda:
    """Calls of one libcudart; addresses, streams and graphs are integers.

    Every method raises EngineLostError where the CUDA context is spoilt, and
    EngineUnavailableError for any other code but 0; those that free something only log it, since
    nobody could do better.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, types in PROTOTYPES.items():
            function = getattr(library, name, None)
            if function is None:
                raise EngineUnavailableError(
                    f"this libcudart has no {name}; install CUDA 12 or 13, as JetPack does"
                )
            function.argtypes = types
            function.restype = ctypes.c_char_p if name in TEXTS else _INT
        self._launch = library.cudaGraphLaunch
        self._synchronize = library.cudaStreamSynchronize

    def start(self, wait_flag: int) -> None:
        """Use the first GPU; before any other call, and before any of TensorRT's."""
        found = _INT()
        self._call("cudaGetDeviceCount", ctypes.byref(found))
        if not found.value:
            raise EngineUnavailableError(f"CUDA finds no device; {_ADVICE[100]}")
        code = self._library.cudaSetDeviceFlags(wait_flag)
        if code == _ALREADY_IN_USE:  # by another library, whose choice holds
            _log.info("how this process waits for the GPU was settled before: %s", wait_flag)
            self._library.cudaGetLastError()
        elif code:
            raise self._error(code, "cudaSetDeviceFlags")
        self._call("cudaSetDevice", _DEVICE)

    def device(self) -> Device:
        """Describe the GPU and its software."""
        runtime, driver = _INT(), _INT()
        self._call("cudaRuntimeGetVersion", ctypes.byref(runtime))
        self._call("cudaDriverGetVersion", ctypes.byref(driver))
        major, minor = self._attribute(_MAJOR), self._attribute(_MINOR)
        return Device(
            runtime.value, driver.value, f"{major}.{minor}", self._attribute(_N_MULTIPROCESSORS)
        )

    def memory(self) -> tuple[int, int]:
        """Return the free and the whole device memory in bytes."""
        free, total = _SIZE(), _SIZE()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, n_bytes: int) -> int:
        """Allocate device memory, aligned to 256 bytes."""
        return self._made("cudaMalloc", n_bytes)

    def free(self, address: int) -> None:
        """Free device memory."""
        self._release("cudaFree", address)

    def allocate_mapped(self, n_bytes: int) -> int:
        """Allocate pinned host memory that the GPU reads and writes in place."""
        return self._made("cudaHostAlloc", n_bytes, _HOST_PORTABLE_AND_MAPPED)

    def device_address(self, host_address: int) -> int:
        """Return where the GPU sees mapped memory."""
        return self._made("cudaHostGetDevicePointer", host_address, 0)

    def free_mapped(self, host_address: int) -> None:
        """Free pinned host memory."""
        self._release("cudaFreeHost", host_address)

    def copy(self, target: int, source: int, n_bytes: int, kind: int, stream: int) -> None:
        """Copy in the order of the stream; host memory must live until it is synchronized."""
        self._call("cudaMemcpyAsync", target, source, n_bytes, kind, stream)

    def create_stream(self) -> int:
        """Create a stream that does not wait for the default one."""
        return self._made("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._release("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all work in the stream is done."""
        if code := self._synchronize(stream):
            raise self._error(code, "cudaStreamSynchronize")

    def drain(self, stream: int) -> None:
        """Wait before memory is freed, whatever has happened."""
        self._release("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Record what this thread puts into the stream from here on, instead of running it."""
        self._call("cudaStreamBeginCapture", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """End the recording; returns a graph, 0 if there is none."""
        graph = _ADDRESS()
        self._call("cudaStreamEndCapture", stream, ctypes.byref(graph))
        return graph.value or 0

    def instantiate(self, graph: int) -> int:
        """Make a graph executable."""
        return self._made("cudaGraphInstantiateWithFlags", graph, 0)

    def launch(self, executable: int, stream: int) -> None:
        """Put a graph into the stream."""
        if code := self._launch(executable, stream):
            raise self._error(code, "cudaGraphLaunch")

    def destroy_graph(self, graph: int) -> None:
        """Destroy a recorded graph."""
        self._release("cudaGraphDestroy", graph)

    def destroy_executable(self, executable: int) -> None:
        """Destroy an executable graph."""
        self._release("cudaGraphExecDestroy", executable)

    def _attribute(self, attribute: int) -> int:
        value = _INT()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, _DEVICE)
        return value.value

    def _made(self, call: str, *arguments: int) -> int:
        """Make a call that writes an address to its first argument."""
        made = _ADDRESS()
        self._call(call, ctypes.byref(made), *arguments)
        if made.value is None:
            raise EngineUnavailableError(f"{call} succeeded and gave no address; restart the board")
        return made.value

    def _call(self, call: str, *arguments: Any) -> None:
        if code := getattr(self._library, call)(*arguments):
            raise self._error(code, call)

    def _release(self, call: str, address: int) -> None:
        if code := getattr(self._library, call)(address):
            _log.debug("%s", self._error(code, call))

    def _error(self, code: int, call: str) -> EngineUnavailableError:
        self._library.cudaGetLastError()  # or TensorRT would take it for its own
        name, text = (getattr(self._library, f)(code).decode("utf-8", "replace") for f in TEXTS)
        said = f"{call}: {name} ({code}), {text}"
        if code in _FATAL:
            return EngineLostError(
                f"{said}; the GPU is lost to this process: go on from saved states with a CPU "
                "engine, or in a new process"
            )
        return EngineUnavailableError(f"{said}; {_ADVICE.get(code, 'run a CPU engine')}")


def load_library(name: str) -> Any:
    """Load a shared library; raises OSError."""
    return ctypes.CDLL(name)


def open_cuda(wait_flag: int) -> Cuda:
    """Load the first libcudart that finds a GPU, and use that.

    Raises:
        EngineUnavailableError: there is no libcudart, no driver, or no GPU.
    """
    refused: EngineUnavailableError | None = None
    for name in _CANDIDATES:
        try:
            library = load_library(name)
        except OSError as error:
            _log.debug("no %s: %s", name, error)
            continue
        try:
            cuda = Cuda(library)
            cuda.start(wait_flag)
        except EngineUnavailableError as error:
            _log.debug("%s: %s", name, error)
            refused = refused or error
            continue
        return cuda
    raise refused or EngineUnavailableError(
        "expected a libcudart of CUDA 12 or 13, got none on the loader's path and none in "
        "/usr/local/cuda; install CUDA (on a Jetson: sudo apt install nvidia-jetpack), "
        "or run a CPU engine"
    )
