"""ONNX Runtime: its recurrent operator in fp32 and the integer forms of the written-out step.

A sequence is one call of the recurrent operator over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from edge_gru.engines.base import Float32
from edge_gru.engines.onnxruntime import session_options
from quantization.benchmark.latency.ours import graph_of
from quantization.benchmark.latency.peers.onnx_over_time import over_time
from quantization.benchmark.latency.runner import ROW_COUNTS, Form, StatePassing
from quantization.benchmark.latency.weights import Weights
from quantization.benchmark.native import N_OUT

_ZERO = 128  # of an unsigned operand: x86 has the instructions for that
WriteGraph = Callable[[Weights], bytes]


def version() -> str:
    """Return the library's version."""
    return f"onnxruntime {onnxruntime.__version__}"


def gemm_with_integer_bias(weights: Weights) -> bytes:
    """Write the Q/DQ step so that it becomes QGemm: the bias in int32, the operand unsigned.

    A MatMul and an Add would be fused to a float Gemm before the Q/DQ pairs are looked for.
    """
    model = onnx.load_model_from_string(graph_of(weights, "int8", "step"))
    graph = model.graph
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        product = makers.get(node.input[0]) if node.op_type == "Add" else None
        pairs = [makers.get(name) for name in product.input] if product else []
        wide = [pair for pair in pairs if pair and pair.op_type == "DequantizeLinear"]
        if product is None or len(wide) != 2:
            nodes.append(node)
            continue
        nodes.remove(product)
        operand, weight = wide
        scale = np.float32(constants[operand.input[1]] * constants[weight.input[1]])
        constants[operand.input[2]] = np.array(_ZERO, np.uint8)
        bias = node.input[1]
        parts = [f"{bias}_q", f"{bias}_scale", f"{bias}_zero"]
        q = np.rint(constants[bias] / scale).astype(np.int32)
        constants |= dict(zip(parts, (q, scale, np.zeros_like(q)), strict=True))
        nodes.append(helper.make_node("DequantizeLinear", parts, [f"{bias}_dq"], axis=0))
        nodes.append(helper.make_node("Gemm", [*product.input, f"{bias}_dq"], list(node.output)))
    del graph.initializer[:], graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _session(model: bytes) -> Any:
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model, session_options(1), providers=providers)


class OnnxRuntimeRunner(StatePassing):
    """Steps one stream between two sets of bound states; many through feeds."""

    def __init__(
        self,
        write: WriteGraph,
        write_over_time: WriteGraph | None,
        weights: Weights,
        n_streams: int,
        n_rows: int,
    ) -> None:
        super().__init__(n_streams, n_rows)
        self._session = _session(write(weights))
        self._over_time = _session(write_over_time(weights)) if write_over_time else None
        self._names = weights.state_names
        self._outputs = ["y", *(f"{name}_out" for name in self._names)]
        self._shape = (n_rows, weights.n_hidden)
        self._x, self._y = np.zeros(weights.n_in, np.float32), np.zeros(N_OUT, np.float32)
        self._sets = [np.zeros((len(self._names), weights.n_hidden), np.float32) for _ in range(2)]
        self._now, self._next = (self._bound(*pair) for pair in (self._sets, self._sets[::-1]))

    def _bound(self, before: Float32, after: Float32) -> Any:
        binding = self._session.io_binding()
        for k, name in enumerate(self._names):
            _bind(binding.bind_input, name, before[k])
            _bind(binding.bind_output, f"{name}_out", after[k])
        _bind(binding.bind_input, "x", self._x)
        _bind(binding.bind_output, "y", self._y)
        return binding

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        self._x[:] = sample
        now, self._now = self._now, self._next
        self._session.run_with_iobinding(now)
        self._next = now
        return self._y

    def run_sequence(self, x: Float32) -> Float32:
        """Run one stream from its start, in one call where the graph runs over time."""
        if self._over_time is None:
            return super().run_sequence(x)
        (y,) = self._over_time.run(["y"], {"x": x})
        return y

    def start(self) -> Any:
        """Make states of zeros."""
        return {name: np.zeros(self._shape, np.float32) for name in self._names}

    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step."""
        y, *new = self._session.run(self._outputs, {"x": x, **states})
        return y, dict(zip(self._names, new, strict=True))


def _bind(bind: Callable[..., None], name: str, row: Float32) -> None:
    bind(name, "cpu", 0, np.float32, (1, row.size), row.ctypes.data)


def forms() -> Iterator[Form]:
    """List the forms."""

    def form(
        name: str, floor_db: float, write: WriteGraph, write_over_time: WriteGraph | None = None
    ) -> Form:
        opened = partial(OnnxRuntimeRunner, write, write_over_time)
        return Form(f"ONNX Runtime {name}", floor_db, opened, ROW_COUNTS)

    op, cell = (partial(graph_of, recipe="fp32", use=use) for use in ("cpu", "step"))
    integer = partial(graph_of, recipe="int8", use="cpu")
    yield form("recurrent op fp32", Form.FP32_DB, op, over_time)
    yield form("cell fp32", Form.FP32_DB, cell)
    yield form("cell int8, QGemm", Form.INT8_DB, gemm_with_integer_bias)
    yield form("cell int8, MatMulInteger", Form.INT8_DB, integer)
