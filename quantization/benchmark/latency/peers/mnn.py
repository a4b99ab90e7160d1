"""MNN: the written-out step, fp32 and with 8-bit weights.

Its converter writes the recurrent operators out as well, and loses the second layer of two.
``MNN.tools`` is never imported: it runs pip to install a library that reports its use.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import _tools as converter  # MNN's own, which the package installs beside itself
import MNN.expr
import MNN.nn
import numpy as np

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.ours import graph_of
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, StatePassing
from quantization.benchmark.latency.weights import Weights

_FLOAT = {"precision": "high", "memory": "normal"}
_NARROW = {"precision": "low", "memory": "low"}  # multiplies integers; else weights are widened
_BITS = ["--weightQuantBits", "8"]


def version() -> str:
    """Return the library's version."""
    return f"MNN {importlib.metadata.version('MNN')}"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what C code prints off the standard output."""
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as sink:
        os.dup2(sink.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class MnnRunner(StatePassing):
    """Hands a module the states it returned before."""

    def __init__(self, weights: Weights, n_streams: int, n_rows: int, *, is_int8: bool) -> None:
        super().__init__(n_streams, n_rows)
        names = list(weights.state_names)
        with tempfile.TemporaryDirectory() as folder, _silent():
            source, made = Path(folder, "step.onnx"), Path(folder, "step.mnn")
            source.write_bytes(graph_of(weights, "fp32", "step"))
            options = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(made)]
            options += ["--bizCode", "benchmark", *(_BITS if is_int8 else [])]
            converter.mnnconvert(["mnnconvert", *options])
            settings = {**(_NARROW if is_int8 else _FLOAT), "backend": 0, "numThread": 1}
            self._module = MNN.nn.load_module_from_file(
                str(made),
                ["x", *names],
                ["y", *(f"{name}_out" for name in names)],
                runtime_manager=MNN.nn.create_runtime_manager((settings,)),
            )
        self._shapes = [n_rows, weights.n_in], [n_rows, weights.n_hidden]
        self._n_states = len(names)
        self._own = self.start()

    def start(self) -> Any:
        """Make states of zeros."""
        zeros = np.zeros(self._shapes[1], np.float32)
        return [_value(zeros, self._shapes[1]) for _ in range(self._n_states)]

    def laid_out(self, x: Float32) -> list[Any]:
        """Make a row of each sample."""
        return list(x[:, None])

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        y, self._own = self.advance(sample, self._own)
        return y

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step."""
        y, *new = self._module.forward([_value(x, self._shapes[0]), *states])
        return y.read(), new


def _value(array: Float32, shape: list[int]) -> Any:
    return MNN.expr.const(array, shape, MNN.expr.NCHW)


def forms() -> Iterator[Form]:
    """List the forms."""
    cell, narrow = partial(MnnRunner, is_int8=False), partial(MnnRunner, is_int8=True)
    yield Form("MNN cell fp32", Form.FP32_DB, cell, ROW_COUNTS)
    yield Form("MNN cell 8-bit weights", Form.INT8_DB, narrow, ROW_COUNTS)
