"""The definition of every result: numpy float64, one line an operation, states rounded to float32.

Slow and readable on purpose. The INT8 recurrent product is exact integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from edge_gru.engines.base import EngineSource, Float32, HostStateEngine
from edge_gru.engines.cells import CELLS, Cell, States
from edge_gru.engines.operations import OPERATIONS
from edge_gru.engines.operators import Array, Float64
from edge_gru.engines.products import FLOAT, dense_weight, multiply
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import ProductForm, StepNode

T = TypeVar("T")


def step_cell(
    kind: str,
    x: Float64,
    states: States,
    cell: Cell,
    forms: Mapping[str, ProductForm] = MappingProxyType({}),
) -> States:
    """Advance a cell by one step: ``(k, n)``, ``(k, size)`` a state -> the new states.

    ``forms`` of the products with ``w_ih`` and ``w_hh``, float where there is none; nothing else
    in a cell is ever narrowed.
    """

    def product(operand: Float64, weight: str, rows: slice) -> Float64:
        return multiply(forms.get(weight, FLOAT), operand, cell, weight, rows)

    return CELLS[kind].step(x, states, cell, product)


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
        self._constants = {name: widened(value) for name, value in source.weights().items()}
        self._by_rows = dict(self._constants)  # every weight as (rows, n)
        for node in self._program.nodes:
            dense = dense_weight(node, self._constants)
            if dense is not None and dense[1]:
                self._by_rows[dense[0]] = self._constants[dense[0]].T
        self._forms = source.manifest.precisions[self.precision].products
        cells = {str(node.attributes.get("cell", "")) for node in self._program.nodes} - {""}
        self._cells = {cell: of_cell(self._constants, cell) for cell in cells}
        self._cell_forms = {cell: of_cell(self._forms, cell) for cell in cells}
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
        if node.op in CELLS:
            x, *states = (values[name] for name in node.inputs)
            cell = str(node.attributes["cell"])
            return step_cell(node.op, x, tuple(states), self._cells[cell], self._cell_forms[cell])
        dense = dense_weight(node, self._constants)
        if dense is not None and dense[0] in self._forms:
            operand = values[node.inputs[0]]
            product = multiply(self._forms[dense[0]], operand, self._by_rows, dense[0])
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
            return (product + values[bias] if bias else product,)
        operands = [values[name] if name else None for name in node.inputs]
        return (OPERATIONS[node.op](node.attributes, *operands),)


def of_cell(named: Mapping[str, T], cell: str) -> dict[str, T]:
    """Take what belongs to one cell, without the prefix of its names."""
    start = f"{cell}."
    return {name.removeprefix(start): v for name, v in named.items() if name.startswith(start)}


def widened(value: Array) -> Array:
    """Convert floating-point values to float64 and leave integers as they are."""
    return value if value.dtype.kind == "i" else value.astype(np.float64)
