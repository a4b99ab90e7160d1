"""Matrices of a bundle in the form that the native kernels multiply with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.products import FLOAT, HALF, operand_grid
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import ProductForm

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Product = tuple[str, Array, Float32 | None, Float32 | None, float]
"""Form, matrix (rows, n), scale of a row, gain of the operand, step of the operand's grid."""


@dataclass(frozen=True)
class Products:
    """The matrices of a bundle, each as its precision multiplies with it.

    Raises:
        EngineUnavailableError: from ``take``: a tensor is missing, or of another shape or type.
    """

    weights: Mapping[str, Array]
    forms: Mapping[str, ProductForm]  # by the name of the matrix; absent: float32

    def take(self, name: str, rows: slice = slice(None), *, transposed: bool = False) -> Product:
        """Make the product with some rows of a matrix; ``transposed``: it lies (n, rows)."""
        form = self.forms.get(name, FLOAT)
        if form.fault:
            raise EngineUnavailableError(f"{name}: {form.fault}; pack the model again")
        if form.has_integer_weight:
            return self._integer(name, form, rows)
        matrix = self._tensor(name, 2, np.float32)
        matrix = np.ascontiguousarray((matrix.T if transposed else matrix)[rows])
        if form == HALF:
            with np.errstate(over="ignore"):  # beyond float16 is inf, as everywhere
                matrix = matrix.astype(np.float16).astype(np.float32)
        return form.operand, matrix, None, None, 1.0

    def _integer(self, name: str, form: ProductForm, rows: slice) -> Product:
        q = np.ascontiguousarray(self._tensor(f"{name}_q", 2, np.int8)[rows])
        scale = self._tensor(f"{name}_scale", 1, np.float32)[rows]
        if not form.has_integer_operand:
            return "fp32", q.astype(np.float32) * scale[:, None], None, None, 1.0
        step, gain = operand_grid(self.weights, name)
        gain = None if gain is None else np.ascontiguousarray(gain)
        return form.operand, q, np.ascontiguousarray(scale * step), gain, float(step)

    def _tensor(self, name: str, n_axes: int, dtype: npt.DTypeLike) -> Array:
        found = self.weights.get(name)
        if found is None or found.ndim != n_axes or found.dtype != dtype:
            got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
            raise EngineUnavailableError(
                f"expected {name} in {np.dtype(dtype)} with {n_axes} axes, got {got}; "
                "pack the model again"
            )
        return found
