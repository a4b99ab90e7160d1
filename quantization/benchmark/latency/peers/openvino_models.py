"""OpenVINO: stateful models of the recurrent operator in fp32, and of the Q/DQ step in INT8."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import openvino
from openvino.passes import MakeStateful, Manager

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.ours import graph_of
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, StatePassing
from quantization.benchmark.latency.weights import Weights
from quantization.benchmark.native import N_OUT

_SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
}


def version() -> str:
    """Return the library's version."""
    return f"openvino {openvino.__version__}"


class OpenVinoRunner(StatePassing):
    """Keeps the state of one stream in the request; hands in those of many."""

    def __init__(
        self, weights: Weights, n_streams: int, n_rows: int, *, recipe: str, use: str
    ) -> None:
        super().__init__(n_streams, n_rows)
        core = openvino.Core()
        model = core.read_model(graph_of(weights, recipe, use))
        names = weights.state_names
        sizes = {"x": weights.n_in, **dict.fromkeys(names, weights.n_hidden)}
        model.reshape({name: [n_rows, size] for name, size in sizes.items()})
        if n_streams == 1:
            manager = Manager()
            manager.register_pass(MakeStateful({name: f"{name}_out" for name in names}))
            manager.run_passes(model)
        self._request = core.compile_model(model, "CPU", _SETTINGS).create_infer_request()
        self._names = names
        self._shape = (n_rows, weights.n_hidden)
        x, y = (openvino.Tensor(np.zeros((n_rows, n), np.float32)) for n in (weights.n_in, N_OUT))
        self._request.set_tensor("x", x)
        self._request.set_tensor("y", y)
        self._x, self._y = x.data, y.data

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        self._x[0] = sample
        self._request.infer()
        return self._y

    def start(self) -> Any:
        """Make two sets of states, to go back and forth between."""
        zeros = np.zeros(self._shape, np.float32)
        return [[openvino.Tensor(zeros.copy()) for _ in self._names] for _ in range(2)]

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step."""
        before, after = states
        for k, name in enumerate(self._names):
            self._request.set_tensor(name, before[k])
            self._request.set_tensor(f"{name}_out", after[k])
        self._x[:] = x
        self._request.infer()
        return self._y, [after, before]


def forms() -> Iterator[Form]:
    """List the forms."""

    def form(name: str, floor_db: float, recipe: str, use: str) -> Form:
        opened = partial(OpenVinoRunner, recipe=recipe, use=use)
        return Form(name, floor_db, opened, ROW_COUNTS)

    yield form("OpenVINO recurrent op fp32, stateful", Form.FP32_DB, "fp32", "cpu")
    yield form("OpenVINO cell int8, stateful", Form.INT8_DB, "int8", "step")
