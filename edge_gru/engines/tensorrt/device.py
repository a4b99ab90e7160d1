"""What a GPU lends: each thing is given back when its context ends, whatever happens in it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.tensorrt.cudart import Cuda


@contextmanager
def open_stream(cuda: Cuda) -> Iterator[int]:
    """Lend a stream of its own."""
    stream = cuda.create_stream()
    try:
        yield stream
    finally:
        cuda.destroy_stream(stream)


@contextmanager
def device_memory(cuda: Cuda, n_bytes: int) -> Iterator[int]:
    """Lend device memory: its address."""
    address = cuda.allocate(n_bytes)
    try:
        yield address
    finally:
        cuda.free(address)


@dataclass(frozen=True)
class Mapped:
    """An array in pinned host memory at ``host``, and the address that the GPU knows it by."""

    array: npt.NDArray[Any]
    host: int
    address: int


@contextmanager
def mapped_array(cuda: Cuda, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[Mapped]:
    """Lend an array of zeros that host and GPU share; it must not be touched afterwards."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    host = cuda.allocate_mapped(n_bytes)
    try:
        buffer = (ctypes.c_ubyte * n_bytes).from_address(host)
        array = np.frombuffer(memoryview(buffer), np.dtype(dtype)).reshape(shape)
        array[...] = 0
        yield Mapped(array, host, cuda.device_address(host))
    finally:
        cuda.free_mapped(host)


@contextmanager
def executable_graph(cuda: Cuda, graph: int) -> Iterator[int]:
    """Lend the executable form of a recorded graph, which it takes over."""
    try:
        executable = cuda.instantiate(graph)
    finally:
        cuda.destroy_graph(graph)
    try:
        yield executable
    finally:
        cuda.destroy_executable(executable)
