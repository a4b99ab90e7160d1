"""ExecuTorch: the written-out step on XNNPACK, fp32 and dynamic INT8."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.peers.torch_written_out import Step
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, StatePassing
from quantization.benchmark.latency.weights import Weights


def version() -> str:
    """Return the library's version."""
    return f"executorch {importlib.metadata.version('executorch')}"


@lru_cache(maxsize=8)
def _program(weights: Weights, n_rows: int, *, is_int8: bool) -> bytes:
    step: Any = Step(weights).eval()
    example = step.example(n_rows)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.export
            if is_int8:
                rows = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
                chosen = XNNPACKQuantizer().set_global(rows)
                step = prepare_pt2e(torch.export.export(step, example).module(), chosen)
                step(*example)
                step = convert_pt2e(step)
            exported = torch.export.export(step, example)
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)
    finally:
        logging.disable(logging.NOTSET)


class ExecuTorchRunner(StatePassing):
    """Hands a method copies of the states it returned: it writes over its own outputs."""

    def __init__(self, weights: Weights, n_streams: int, n_rows: int, *, is_int8: bool) -> None:
        super().__init__(n_streams, n_rows)
        torch.set_num_threads(1)
        self._program = Runtime.get().load_program(_program(weights, n_rows, is_int8=is_int8))
        self._method = self._program.load_method("forward")
        self._shape = (n_rows, weights.n_hidden)
        self._n_states = len(weights.state_names)
        self._own = self.start()

    def start(self) -> Any:
        """Make states of zeros."""
        return [torch.zeros(self._shape) for _ in range(self._n_states)]

    def laid_out(self, x: Float32) -> list[Any]:
        """Make a tensor of each sample."""
        return list(torch.from_numpy(np.ascontiguousarray(x))[:, None])

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        y, *new = self._method.execute([sample, *self._own])
        self._own = [state.clone() for state in new]
        return y

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step."""
        y, *new = self._method.execute([torch.from_numpy(x), *states])
        return y.numpy(), [state.clone() for state in new]


def forms() -> Iterator[Form]:
    """List the forms."""
    int8, fp32 = partial(ExecuTorchRunner, is_int8=True), partial(ExecuTorchRunner, is_int8=False)
    yield Form("ExecuTorch cell dynamic int8", Form.INT8_DB, int8, ROW_COUNTS)
    yield Form("ExecuTorch cell fp32", Form.FP32_DB, fp32, ROW_COUNTS)
