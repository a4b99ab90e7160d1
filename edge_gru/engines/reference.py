"""The definition of every result: numpy float64, one line an operation, states rounded to float32.

Slow and readable on purpose. The INT8 recurrent product is exact integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edge_gru.engines.base import EngineSource, Float32, HostStateEngine
from edge_gru.engines.operators import OPERATORS, Array, Float64, sigmoid
from edge_gru.engines.tensors import WEIGHTS
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import StepNode

H_STEPS = 127  # the grid of the recurrent operand: h lies in [-1, 1], a blend of tanh values
H_SCALE = np.float32(1 / H_STEPS)

Cell = Mapping[str, Array]
Products = Callable[[Float64, Float64, Cell], tuple[Float64, Float64]]


def _products_fp32(x: Float64, h: Float64, cell: Cell) -> tuple[Float64, Float64]:
    return x @ cell["w_ih"].T, h @ cell["w_hh"].T


def _products_fp16(x: Float64, h: Float64, cell: Cell) -> tuple[Float64, Float64]:
    """Round operands and results to float16; sums are exact to more than that."""

    def half(a: Float64) -> Float64:
        return a.astype(np.float16).astype(np.float64)

    return half(half(x) @ half(cell["w_ih"]).T), half(half(h) @ half(cell["w_hh"]).T)


def _products_int8(x: Float64, h: Float64, cell: Cell) -> tuple[Float64, Float64]:
    """Read h on the grid 1/127, W_hh in int8 rows; x stays float.

    The division is float32 and ties go to even, as ONNX defines QuantizeLinear: an engine that
    rounds otherwise near a tie is a whole step away. Sums stay below 2**53: exact.
    """
    steps = np.clip(np.rint(h.astype(np.float32) / H_SCALE), -H_STEPS, H_STEPS).astype(np.float64)
    product = steps @ cell["w_hh_q"].T.astype(np.float64)
    return x @ cell["w_ih"].T, product * (cell["w_hh_scale"].astype(np.float64) / H_STEPS)


PRODUCTS: dict[str, Products] = {
    "fp32": _products_fp32,
    "fp16": _products_fp16,
    "int8": _products_int8,
}


def gru_cell(x: Float64, h: Float64, cell: Cell, *, precision: str = "fp32") -> Float64:
    """Advance a GRU by one step, PyTorch's equations (torch.nn.GRU): (k, n), (k, H) -> (k, H).

    The precision is that of the two products; the blend ``n + z (h - n)`` always reads h itself.
    """
    gi, gh = PRODUCTS[precision](x, h, cell)
    i_r, i_z, i_n = np.split(gi + cell["b_ih"], 3, axis=1)
    h_r, h_z, h_n = np.split(gh + cell["b_hh"], 3, axis=1)
    r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
    n = np.tanh(i_n + r * h_n)
    return n + z * (h - n)


class ReferenceEngine(HostStateEngine):
    """Runs the program of a bundle in float64.

    Raises:
        EngineUnavailableError: the program has an operation that is not in ``OPERATORS``, or does
            not fit the weights.
        BundleError: the weights are not there.
    """

    name = "reference"

    def __init__(self, source: EngineSource, *, n_streams: int, precision: str | None) -> None:
        super().__init__(source.manifest, n_streams)
        self.precision = source.precision(precision)
        self._program = source.manifest.program
        unknown = sorted({node.op for node in self._program.nodes} - set(OPERATORS) - {"GRU"})
        if unknown:
            raise EngineUnavailableError(
                f"the reference engine has no operator {', '.join(unknown)}; use onnxruntime"
            )
        weights = source.tensors(WEIGHTS)
        self._constants = {name: widened(value) for name, value in weights.items()}
        self._cells = {
            prefix: cell_tensors(self._constants, str(prefix))
            for node in self._program.nodes
            if (prefix := node.attributes.get("cell"))
        }
        try:
            self._try_step()
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise EngineUnavailableError(
                f"the program does not fit the weights in {self.precision} ({error}); "
                "pack the model again"
            ) from error

    def _advance(self, x: Float32, states: Float32) -> tuple[Float32, Float32]:
        values: dict[str, Array] = {**self._constants, "x": x.astype(np.float64)}
        for name, part in self._slices.items():
            values[name] = states[:, part].astype(np.float64)
        with np.errstate(all="ignore"):  # where ONNX says inf or NaN, that is the result
            for node in self._program.nodes:
                values[node.outputs[0]] = self._evaluate(node, values)
        new = [values[f"{name}_out"] for name in self._slices]
        y = values[self._program.output]
        return y.astype(np.float32), np.concatenate(new, axis=1).astype(np.float32)

    def _evaluate(self, node: StepNode, values: Mapping[str, Array]) -> Float64:
        operands = [values[name] if name else None for name in node.inputs]
        if node.op == "GRU":
            x, h = (values[name] for name in node.inputs)
            return gru_cell(x, h, self._cells[node.attributes["cell"]], precision=self.precision)
        return OPERATORS[node.op](node.attributes, *operands)


def cell_tensors(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Take the tensors of one cell out of a bundle's weights, without the prefix."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def widened(value: Array) -> Array:
    """Convert floating-point values to float64 and leave integers as they are."""
    return value if value.dtype.kind == "i" else value.astype(np.float64)
