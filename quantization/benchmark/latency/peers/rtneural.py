"""RTNeural's compile-time GRU, fp32, on Eigen: from C++, for it has no Python."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_gru.engines.base import Float32
from edge_gru.errors import EngineUnavailableError
from quantization.benchmark.latency.runner import Form, Runner
from quantization.benchmark.latency.weights import Weights
from quantization.benchmark.native import N_OUT

_VARIABLE = "EDGE_GRU_RTNEURAL"  # what the Makefile builds of rtneural.cpp


def _library() -> ctypes.CDLL:
    path = os.environ.get(_VARIABLE)
    if not path:
        raise ImportError(f"{_VARIABLE} does not say where its library is")
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(str(error)) from error
    library.open_network.restype = ctypes.c_void_p
    library.close_network.argtypes = [ctypes.c_void_p]
    library.set_cell.argtypes = [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 4]
    library.set_head.argtypes = [ctypes.c_void_p] * 3
    library.run_network.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]
    return library


_LIBRARY = _library()


def version() -> str:
    """Return the library's version: it numbers none."""
    return "RTNeural as built by make"


class RTNeuralRunner(Runner):
    """Runs sequences, step by step in C++.

    Raises:
        EngineUnavailableError: a size that was not compiled.
    """

    def __init__(self, weights: Weights, n_streams: int, n_rows: int) -> None:
        del n_streams, n_rows
        size = (weights.n_in, weights.n_hidden, weights.n_layers)
        self._network = _LIBRARY.open_network(*size)
        if not self._network:
            raise EngineUnavailableError(f"rtneural.cpp has no network of the size {size}; add it")
        for k in range(weights.n_layers):
            _LIBRARY.set_cell(self._network, k, *map(_address, weights.layer(k).values()))
        head = (weights.arrays["head"], weights.arrays["head_bias"])
        _LIBRARY.set_head(self._network, *map(_address, head))

    def __del__(self) -> None:
        _LIBRARY.close_network(self._network)

    def step(self, sample: Any) -> Any:
        """Advance by one sample."""
        return self.run_sequence(sample[None])[0]

    def run_sequence(self, x: Float32) -> Float32:
        """Run the only stream."""
        y = np.empty((len(x), N_OUT), np.float32)
        _LIBRARY.run_network(self._network, _address(x), len(x), _address(y))
        return y


def _address(array: Float32) -> int:
    return int(array.ctypes.data)


def forms() -> Iterator[Form]:
    """List the forms."""
    yield Form(
        "RTNeural fp32, from C++",
        Form.FP32_DB,
        RTNeuralRunner,
        has_batch=False,
        has_step=False,
        cells=("GRU",),
    )
