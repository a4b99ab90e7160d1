"""LiteRT (once TensorFlow Lite): the written-out step on XNNPACK, fp32 and dynamic INT8."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import tempfile
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.peers.torch_written_out import Step
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, StatePassing
from quantization.benchmark.latency.weights import Weights


def version() -> str:
    """Return the library's version."""
    return f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


@lru_cache(maxsize=8)
def _converted(weights: Weights, n_rows: int, *, is_int8: bool) -> bytes:
    """Convert a step, and quantize its weights a row; activations at run time."""
    step = Step(weights).eval()
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),  # its progress
    ):
        paths = [str(Path(folder, name)) for name in ("float.tflite", "int8.tflite")]
        litert_torch.convert(step, step.example(n_rows)).export(paths[0])
        if is_int8:
            narrow = quantizer.Quantizer(paths[0])
            narrow.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            narrow.quantize().export_model(paths[1], overwrite=True)
        return Path(paths[is_int8]).read_bytes()


class LiteRtRunner(StatePassing):
    """Copies the states from the outputs to the inputs: the interpreter keeps none."""

    def __init__(self, weights: Weights, n_streams: int, n_rows: int, *, is_int8: bool) -> None:
        super().__init__(n_streams, n_rows)
        model = _converted(weights, n_rows, is_int8=is_int8)
        self._interpreter = Interpreter(model_content=model, num_threads=1)
        self._interpreter.allocate_tensors()
        self._set, self._get = self._interpreter.set_tensor, self._interpreter.get_tensor
        self._x, *self._before = _indices(self._interpreter.get_input_details())
        self._y, *self._after = _indices(self._interpreter.get_output_details())
        self._shape = (n_rows, weights.n_hidden)
        for index, state in zip(self._before, self.start(), strict=True):
            self._set(index, state)

    def start(self) -> Any:
        """Make states of zeros."""
        return [np.zeros(self._shape, np.float32) for _ in self._before]

    def laid_out(self, x: Float32) -> list[Any]:
        """Make a row of each sample."""
        return list(x[:, None])

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        set_tensor, get_tensor = self._set, self._get
        set_tensor(self._x, sample)
        self._interpreter.invoke()
        y = get_tensor(self._y)
        for before, after in zip(self._before, self._after, strict=True):
            set_tensor(before, get_tensor(after))
        return y

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step."""
        self._set(self._x, x)
        for index, state in zip(self._before, states, strict=True):
            self._set(index, state)
        self._interpreter.invoke()
        return self._get(self._y), [self._get(index) for index in self._after]


def _indices(details: list[dict[str, Any]]) -> list[int]:
    """Order tensors by the number at the end of their names."""
    return [int(d["index"]) for d in sorted(details, key=lambda d: _number(str(d["name"])))]


def _number(name: str) -> int:
    digits = "".join(c if c.isdigit() else " " for c in name).split()
    return int(digits[-1]) if digits else 0


def forms() -> Iterator[Form]:
    """List the forms."""
    int8, fp32 = partial(LiteRtRunner, is_int8=True), partial(LiteRtRunner, is_int8=False)
    yield Form("LiteRT cell dynamic int8", Form.INT8_DB, int8, ROW_COUNTS)
    yield Form("LiteRT cell fp32", Form.FP32_DB, fp32, ROW_COUNTS)
