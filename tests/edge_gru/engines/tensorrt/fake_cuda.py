"""A CUDA runtime in host memory, stricter than a real one.

Functions are reached through real ctypes pointers, so arguments without types are cut to 32 bits as
they would be. What is put into a stream is done when the stream is synchronized, not before. Fresh
memory is NaN. Whatever a real GPU might forgive today is written down in ``faults``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MISSING = -1  # as a fault's code: the function itself is not in the library
_INT, _UINT, _SIZE, _PTR = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = _PTR
_LIBC.mmap.argtypes = (_PTR, _SIZE, _INT, _INT, _INT, ctypes.c_long)
_LIBC.munmap.argtypes = (_PTR, _SIZE)
_FAILED = ctypes.c_void_p(-1).value
_UNUSED: list[tuple[int, int]] = []  # views that nobody has any more
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (_PTR,),
    "cudaSetDeviceFlags": (_UINT,),
    "cudaSetDevice": (_INT,),
    "cudaDriverGetVersion": (_PTR,),
    "cudaRuntimeGetVersion": (_PTR,),
    "cudaDeviceGetAttribute": (_PTR, _INT, _INT),
    "cudaMemGetInfo": (_PTR, _PTR),
    "cudaMalloc": (_PTR, _SIZE),
    "cudaFree": (_PTR,),
    "cudaHostAlloc": (_PTR, _SIZE, _UINT),
    "cudaHostGetDevicePointer": (_PTR, _PTR, _UINT),
    "cudaFreeHost": (_PTR,),
    "cudaMemcpyAsync": (_PTR, _PTR, _SIZE, _INT, _PTR),
    "cudaStreamCreateWithFlags": (_PTR, _UINT),
    "cudaStreamDestroy": (_PTR,),
    "cudaStreamSynchronize": (_PTR,),
    "cudaStreamBeginCapture": (_PTR, _INT),
    "cudaStreamEndCapture": (_PTR, _PTR),
    "cudaGraphInstantiateWithFlags": (_PTR, _PTR, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_PTR, _PTR),
    "cudaGraphDestroy": (_PTR,),
    "cudaGraphExecDestroy": (_PTR,),
    "cudaGetLastError": (),
    "cudaGetErrorName": (_INT,),
    "cudaGetErrorString": (_INT,),
}
NAMES = {
    0: "cudaSuccess",
    2: "cudaErrorMemoryAllocation",
    35: "cudaErrorInsufficientDriver",
    100: "cudaErrorNoDevice",
    700: "cudaErrorIllegalAddress",
    708: "cudaErrorSetOnActiveProcess",
    719: "cudaErrorLaunchFailure",
    900: "cudaErrorStreamCaptureUnsupported",
    901: "cudaErrorStreamCaptureInvalidated",
}
FATAL = (700, 719)
_MAKERS = {
    "cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaStreamEndCapture",
    "cudaGraphInstantiateWithFlags", "cudaHostGetDevicePointer",
}  # fmt: skip
_RELEASES = {
    "cudaFree", "cudaFreeHost", "cudaStreamDestroy", "cudaGraphDestroy", "cudaGraphExecDestroy",
    "cudaStreamEndCapture", "cudaStreamSynchronize",
}  # fmt: skip
_ALIGNMENT = 256


class _Function(ctypes._CFuncPtr):
    _flags_ = 1  # cdecl, as CDLL has it
    _restype_ = ctypes.c_int


@dataclass
class Block:
    kind: str  # "device", "pinned", "mapped": as the GPU sees pinned memory
    address: int
    n_bytes: int
    keeps: tuple[Any, ...]
    is_live: bool = True
    twin: Block | None = None


@dataclass
class Work:
    """Something in a stream: what it touches, and how it is done."""

    what: str
    touches: tuple[tuple[int, int], ...]
    run: Callable[[], None]
    owner: Any = None  # the context of a kernel


@dataclass
class Stream:
    waiting: list[Work] = field(default_factory=list)
    recorded: list[Work] | None = None
    is_spoilt: bool = False


class FakeCuda:
    """The runtime; ``library`` is what loading libcudart gives.

    ``fail_at`` makes the n-th call fail with ``fail_code``; ``poison`` is a code with which the
    next work that runs spoils the context for good.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.fail_name: str | None = None
        self.fail_code = 2
        self.poison = 0
        self.poisoned = 0
        self.n_devices = 1
        self.capture_error = 0
        self.blocks: list[Block] = []
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.contexts: weakref.WeakSet[Any] = weakref.WeakSet()
        self.flags: int | None = None
        self.gpu_work_began = False
        self.versions = {"cudaRuntimeGetVersion": 12060, "cudaDriverGetVersion": 12060}
        self.attributes = {16: 8, 75: 8, 76: 7}
        self._last_error = 0
        self._handles = iter(range(0x7F55_0000_0040, 0x7F56_0000_0000, 0x40))
        self._keep: list[Any] = []
        self._texts: dict[int, bytes] = {}
        self.library = self._make_library()

    # What tests ask.

    def leaks(self) -> list[str]:
        memory = [f"{b.n_bytes} bytes of {b.kind} memory" for b in self.blocks if b.is_live]
        held = {"streams": self.streams, "graphs": self.graphs, "executables": self.executables}
        return [*memory, *(f"{len(things)} {what}" for what, things in held.items() if things)]

    def fail(self, name: str, code: int) -> None:
        """Let every call of that name fail."""
        self.fail_name, self.fail_code = name, code

    def heal(self) -> None:
        self.fail_at = self.fail_name = None

    # For kernels.

    def check_span(self, address: int, n_bytes: int, kinds: tuple[str, ...], what: str) -> None:
        for block in self.blocks:
            if block.address <= address and address + n_bytes <= block.address + block.n_bytes:
                if block.kind in kinds and not block.is_live:
                    self.faults.append(f"{what}: touches memory that was freed")
                    return
                if block.kind in kinds:
                    return
        self.faults.append(f"{what}: {n_bytes} bytes at {address:#x} are not {' or '.join(kinds)}")

    def enqueue(self, stream: int, work: Work) -> bool:
        """Put work into a stream, or into what is being recorded of it; False if it cannot be."""
        found = self.streams.get(stream)
        if found is None:
            self.faults.append(f"{work.what}: in no stream that was created ({stream:#x})")
            return False
        if found.recorded is None:
            found.waiting.append(work)
        elif not found.is_spoilt:
            found.recorded.append(work)
        return not found.is_spoilt

    def is_recording(self, stream: int | None = None) -> bool:
        found = self.streams.values() if stream is None else [self.streams[stream]]
        return any(s.recorded is not None for s in found)

    def fault(self, what: str) -> None:
        self.faults.append(what)

    # The library.

    def _make_library(self) -> Any:
        class Library:
            """Has addresses alone: who holds it keeps what is there, however late it is closed."""

            keeps = self._keep

        library = Library()
        for name, types in SIGNATURES.items():
            text = name in ("cudaGetErrorName", "cudaGetErrorString")
            result = _PTR if text else _INT
            callback = ctypes.CFUNCTYPE(result, *types)(self._guarded(name))
            self._keep.append(callback)
            pointer = ctypes.cast(callback, _PTR).value
            setattr(library, name, _Function(pointer))
        return library

    def _guarded(self, name: str) -> Callable[..., int | None]:
        run = getattr(self, f"_{name}")

        def call(*arguments: Any) -> int | None:
            if name in ("cudaGetErrorName", "cudaGetErrorString", "cudaGetLastError"):
                return run(*arguments)
            self._note(name)
            is_failing = self.fail_at == len(self.calls) - 1 or name == self.fail_name
            if is_failing and self.fail_code in FATAL:
                self.poisoned = self.fail_code
            if is_failing and name not in _RELEASES:
                return self._failed(self.fail_code)
            if self.poisoned and name != "cudaGetDeviceCount":
                if name in _RELEASES:  # what it holds is gone with the context
                    run(*arguments)
                    self._take_back(name, arguments)
                return self._failed(self.poisoned)
            try:
                code = run(*arguments)
            except (LookupError, TypeError, ValueError, OSError) as error:
                self.faults.append(f"{name}{arguments}: {error!r}")
                code = 1
            if is_failing:
                self._take_back(name, arguments)
                code = self.fail_code
            return self._failed(code) if code else 0

        return call

    def _take_back(self, name: str, arguments: tuple[Any, ...]) -> None:
        """A call that fails makes nothing."""
        if name == "cudaStreamEndCapture":
            self.graphs.pop(self._read(arguments[1]), None)
            self._write(arguments[1], 0)

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if self.flags is None and name not in ("cudaGetDeviceCount", "cudaSetDeviceFlags"):
            self.faults.append(f"{name}: before cudaSetDeviceFlags")
        if self.is_recording() and name not in ("cudaStreamEndCapture", "cudaMemcpyAsync"):
            self.faults.append(f"{name}: while a stream is being recorded")

    def _failed(self, code: int) -> int:
        self._last_error = code
        return code

    @staticmethod
    def _write(target: int, value: int) -> None:
        ctypes.c_void_p.from_address(target).value = value

    @staticmethod
    def _read(target: int) -> int:
        return ctypes.c_void_p.from_address(target).value or 0

    @staticmethod
    def _write_int(target: int, value: int) -> int:
        ctypes.c_int.from_address(target).value = value
        return 0

    def _handle(self, target: int) -> int:
        handle = next(self._handles)
        self._write(target, handle)
        return handle

    # Start.

    def _cudaGetDeviceCount(self, count: int) -> int:
        if not self.n_devices:
            return 100
        return self._write_int(count, self.n_devices)

    def _cudaSetDeviceFlags(self, flags: int) -> int:
        if flags not in (0, 1, 2, 4):
            return 1
        if self.gpu_work_began and self.flags != flags:
            return 708
        self.flags = flags
        return 0

    def _cudaSetDevice(self, device: int) -> int:
        return 0 if 0 <= device < self.n_devices else 101

    def _cudaDriverGetVersion(self, version: int) -> int:
        return self._write_int(version, self.versions["cudaDriverGetVersion"])

    def _cudaRuntimeGetVersion(self, version: int) -> int:
        return self._write_int(version, self.versions["cudaRuntimeGetVersion"])

    def _cudaDeviceGetAttribute(self, value: int, attribute: int, device: int) -> int:
        return self._write_int(value, self.attributes[attribute]) if device == 0 else 101

    def _cudaMemGetInfo(self, free: int, total: int) -> int:
        ctypes.c_size_t.from_address(free).value = 1000 << 20
        ctypes.c_size_t.from_address(total).value = 7000 << 20
        return 0

    # Memory.

    def _cudaMalloc(self, target: int, n_bytes: int) -> int:
        if not n_bytes:
            self.faults.append("cudaMalloc: of nothing")
        buffer = ctypes.create_string_buffer(b"\xff" * (n_bytes + _ALIGNMENT))
        address = -(-ctypes.addressof(buffer) // _ALIGNMENT) * _ALIGNMENT
        self.blocks.append(Block("device", address, n_bytes, (buffer,)))
        self._write(target, address)
        return 0

    def _cudaHostAlloc(self, target: int, n_bytes: int, flags: int) -> int:
        if not flags & 2:
            self.faults.append("cudaHostAlloc: not mapped")
        host, device = _two_views(n_bytes)
        mapped = Block("mapped", device.address, n_bytes, (device,))
        self.blocks.append(Block("pinned", host.address, n_bytes, (host,), twin=mapped))
        self.blocks.append(mapped)
        self._write(target, host.address)
        return 0

    def _cudaHostGetDevicePointer(self, target: int, host: int, flags: int) -> int:
        block = self._block(host, "pinned")
        if block is None or block.twin is None or flags:
            return 1
        self._write(target, block.twin.address)
        return 0

    def _cudaFree(self, address: int) -> int:
        return self._free(address, "device")

    def _cudaFreeHost(self, address: int) -> int:
        return self._free(address, "pinned")

    def _free(self, address: int, kind: str) -> int:
        block = self._block(address, kind)
        if block is None:
            self.faults.append(f"freed {kind} memory that is not there")
            return 1
        blocks = [block, *([block.twin] if block.twin else [])]
        for stream in self.streams.values():
            for work in stream.waiting:
                if any(_overlap(b, touched) for b in blocks for touched in work.touches):
                    self.faults.append(f"{kind} memory freed before {work.what} was done")
        for context in list(self.contexts):
            if context.has_run and any(_overlap(b, (a, 1)) for b in blocks for a in context.uses):
                self.faults.append(f"{kind} memory freed before the context that runs on it")
        for one in blocks:
            one.is_live = False
        ctypes.memset(block.address, 0xFF, block.n_bytes)
        return 0

    def _block(self, address: int, kind: str) -> Block | None:
        found = (b for b in self.blocks if b.is_live and b.kind == kind and b.address == address)
        return next(found, None)

    def _cudaMemcpyAsync(self, target: int, source: int, n: int, kind: int, stream: int) -> int:
        what = f"copy of {n} bytes, kind {kind}"
        kinds = {1: ("device", "pinned"), 2: ("pinned", "device"), 3: ("device", "device")}[kind]

        def run() -> None:
            self.check_span(target, n, (kinds[0],), what)
            self.check_span(source, n, (kinds[1],), what)
            ctypes.memmove(target, source, n)

        self.gpu_work_began = True
        touches = ((target, n), (source, n))
        return 0 if self.enqueue(stream, Work(what, touches, run)) else 901

    # Streams.

    def _cudaStreamCreateWithFlags(self, target: int, flags: int) -> int:
        if flags != 1:
            self.faults.append("a stream that waits for the default one")
        self.streams[self._handle(target)] = Stream()
        return 0

    def _cudaStreamDestroy(self, stream: int) -> int:
        found = self.streams.pop(stream)
        if found.waiting or found.recorded is not None:
            self.faults.append("stream destroyed with work in it")
        return 0

    def _cudaStreamSynchronize(self, stream: int) -> int:
        found = self.streams[stream]
        if found.recorded is not None:
            found.is_spoilt = True
            return 900
        for work in list(self._take(found)):
            if self.poison:
                self.poisoned, self.poison = self.poison, 0
            if self.poisoned:
                continue
            work.run()
        return self.poisoned

    @staticmethod
    def _take(stream: Stream) -> Iterator[Work]:
        while stream.waiting:
            yield stream.waiting.pop(0)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> int:
        found = self.streams[stream]
        if mode != 1:
            self.faults.append("a capture that other threads can break")
        if found.waiting:
            self.faults.append("recorded a stream with work in it")
        found.recorded, found.is_spoilt = [], False
        return 0

    def _cudaStreamEndCapture(self, stream: int, target: int) -> int:
        found = self.streams[stream]
        if found.recorded is None:
            self.faults.append("ended a capture that was not begun")
            return 1
        recorded, found.recorded = found.recorded, None
        if found.is_spoilt or self.capture_error:
            self._write(target, 0)
            return self.capture_error or 901
        self.graphs[self._handle(target)] = recorded
        return 0

    # Graphs.

    def _cudaGraphInstantiateWithFlags(self, target: int, graph: int, flags: int) -> int:
        if flags:
            self.faults.append(f"a graph with flags {flags}")
        recorded = list(self.graphs[graph])
        self.executables[self._handle(target)] = recorded
        return 0

    def _cudaGraphLaunch(self, executable: int, stream: int) -> int:
        for work in self.executables[executable]:
            if work.owner is not None and not work.owner.may_replay():
                self.faults.append("launched a graph of a context that has changed since")
            self.enqueue(stream, work)
        return 0

    def _cudaGraphDestroy(self, graph: int) -> int:
        del self.graphs[graph]
        return 0

    def _cudaGraphExecDestroy(self, executable: int) -> int:
        del self.executables[executable]
        return 0

    # Errors.

    def _cudaGetLastError(self) -> int:
        code, self._last_error = self._last_error, 0
        return self.poisoned or code

    def _cudaGetErrorName(self, code: int) -> int:
        return self._text(code, NAMES.get(code, f"cudaError{code}"))

    def _cudaGetErrorString(self, code: int) -> int:
        return self._text(-1 - code, f"text of {code}")

    def _text(self, key: int, text: str) -> int:
        buffer = self._texts.setdefault(key, ctypes.create_string_buffer(text.encode()))
        return ctypes.addressof(buffer)


class _View:
    """Shared memory at an address of its own; ``mmap.mmap`` would hold a descriptor as long.

    It is unmapped when the next is made: an engine that is collected together with it may use it
    once more.
    """

    def __init__(self, handle: int, n_bytes: int) -> None:
        access = mmap.PROT_READ | mmap.PROT_WRITE
        self.address = _LIBC.mmap(None, n_bytes, access, mmap.MAP_SHARED, handle, 0)
        if self.address == _FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
        weakref.finalize(self, _UNUSED.append, (self.address, n_bytes)).atexit = False


def _two_views(n_bytes: int) -> tuple[_View, _View]:
    """The same memory at two addresses, as host and GPU may see it."""
    while _UNUSED:
        _LIBC.munmap(*_UNUSED.pop())
    handle = os.memfd_create("pinned")
    try:
        os.ftruncate(handle, max(n_bytes, 1))
        views = _View(handle, max(n_bytes, 1)), _View(handle, max(n_bytes, 1))
    finally:
        os.close(handle)
    ctypes.memset(views[0].address, 0xFF, n_bytes)
    return views


def _overlap(block: Block, touched: tuple[int, int]) -> bool:
    address, n_bytes = touched
    return block.address < address + n_bytes and address < block.address + block.n_bytes
