"""The definition of every result: numpy float64, one line an operation, states rounded to float32.

Slow and readable on purpose. The INT8 recurrent product is exact integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edge_gru.engines.base import EngineSource, Float32, HostStateEngine
from edge_gru.engines.cells import CELLS, H_STEPS, Cell, States, operand_scale
from edge_gru.engines.operations import OPERATIONS
from edge_gru.engines.operators import Array, Float64
from edge_gru.engines.tensors import WEIGHTS
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import StepNode


def _product_fp32(operand: Float64, weight: str, rows: slice, cell: Cell) -> Float64:
    return operand @ cell[weight][rows].T


def _product_fp16(operand: Float64, weight: str, rows: slice, cell: Cell) -> Float64:
    """Round operands and results to float16; sums are exact to more than that."""

    def half(a: Float64) -> Float64:
        return a.astype(np.float16).astype(np.float64)

    return half(half(operand) @ half(cell[weight][rows]).T)


def _product_int8(operand: Float64, weight: str, rows: slice, cell: Cell) -> Float64:
    """Read h on its grid, W_hh in int8 rows; x stays float.

    The division is float32 and ties go to even, as ONNX defines QuantizeLinear: an engine that
    rounds otherwise near a tie is a whole step away. Sums stay below 2**53: exact.
    """
    if weight != "w_hh":
        return _product_fp32(operand, weight, rows, cell)
    scale = operand_scale(cell)
    steps = np.clip(np.rint(operand.astype(np.float32) / scale), -H_STEPS, H_STEPS)
    product = steps.astype(np.float64) @ cell["w_hh_q"][rows].T.astype(np.float64)
    return product * (cell["w_hh_scale"][rows].astype(np.float64) * float(scale))


PRODUCTS: dict[str, Callable[[Float64, str, slice, Cell], Float64]] = {
    "fp32": _product_fp32,
    "fp16": _product_fp16,
    "int8": _product_int8,
}


def step_cell(
    kind: str, x: Float64, states: States, cell: Cell, *, precision: str = "fp32"
) -> States:
    """Advance a cell by one step: ``(k, n)``, ``(k, size)`` a state -> the new states.

    The precision is that of the products with x and with h, and of nothing else.
    """
    multiply = PRODUCTS[precision]
    return CELLS[kind].step(x, states, cell, lambda a, w, rows: multiply(a, w, rows, cell))


class ReferenceEngine(HostStateEngine):
    """Runs the program of a bundle in float64.

    Raises:
        EngineUnavailableError: the program has an operation that is not in ``OPERATIONS``, or does
            not fit the weights.
        BundleError: the weights are not there.
    """

    name = "reference"

    def __init__(self, source: EngineSource, *, n_streams: int, precision: str | None) -> None:
        super().__init__(source, n_streams)
        self.precision = source.precision(precision)
        self._program = source.manifest.program
        unknown = sorted({node.op for node in self._program.nodes} - set(OPERATIONS) - set(CELLS))
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
                values.update(zip(node.outputs, self._evaluate(node, values), strict=True))
        new = [values[f"{name}_out"] for name in self._slices]
        y = values[self._program.output]
        return y.astype(np.float32), np.concatenate(new, axis=1).astype(np.float32)

    def _evaluate(self, node: StepNode, values: Mapping[str, Array]) -> States:
        operands = [values[name] if name else None for name in node.inputs]
        if node.op in CELLS:
            x, *states = (values[name] for name in node.inputs)
            cell = self._cells[node.attributes["cell"]]
            return step_cell(node.op, x, tuple(states), cell, precision=self.precision)
        return (OPERATIONS[node.op](node.attributes, *operands),)


def cell_tensors(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Take the tensors of one cell out of a bundle's weights, without the prefix."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def widened(value: Array) -> Array:
    """Convert floating-point values to float64 and leave integers as they are."""
    return value if value.dtype.kind == "i" else value.astype(np.float64)
