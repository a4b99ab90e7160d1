"""Matrices of a bundle in the form that the native kernels multiply with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.cells import H_SCALE
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import ProductForm

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Product = tuple[str, Array, Float32 | None, Float32 | None, float]
"""Form, matrix (rows, n), scale of a row, gain of the operand, step of the operand's grid."""

_INTEGER_OPERANDS = ("int8", "int8-hilo")
_EXACT = ProductForm("fp32", "fp32")


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
        form = self.forms.get(name, _EXACT)
        if form.weight in ("int8", "int4"):
            return self._integer(name, form, rows)
        matrix = self._tensor(name, 2, np.float32)
        matrix = np.ascontiguousarray((matrix.T if transposed else matrix)[rows])
        if form == _EXACT:
            return "fp32", matrix, None, None, 1.0
        if form == ProductForm("fp16", "fp16"):
            with np.errstate(over="ignore"):  # beyond float16 is inf, as everywhere
                return "fp16", matrix.astype(np.float16).astype(np.float32), None, None, 1.0
        raise EngineUnavailableError(
            f"the native engine has no product of {form.operand} with {form.weight}; "
            "use onnxruntime"
        )

    def _integer(self, name: str, form: ProductForm, rows: slice) -> Product:
        q = np.ascontiguousarray(self._tensor(f"{name}_q", 2, np.int8)[rows])
        scale = self._tensor(f"{name}_scale", 1, np.float32)[rows]
        gain = None
        if f"{name}_operand_gain" in self.weights:
            gain = np.ascontiguousarray(self._tensor(f"{name}_operand_gain", 1, np.float32))
        if form.operand == "fp32":
            return "fp32", q.astype(np.float32) * scale[:, None], None, gain, 1.0
        if form.operand not in _INTEGER_OPERANDS:
            raise EngineUnavailableError(
                f"the native engine has no product of {form.operand} with {form.weight}; "
                "use onnxruntime"
            )
        step = self._step(name)
        return form.operand, q, np.ascontiguousarray(scale * step), gain, float(step)

    def _step(self, name: str) -> np.float32:
        step = self.weights.get(f"{name}_operand_scale", H_SCALE)
        step = self.weights.get(name.replace("w_hh", "h_scale"), step)
        if np.shape(step) != () or not step > 0:
            raise EngineUnavailableError(
                f"expected a positive operand scale of {name}, got {step}; pack the model again"
            )
        return np.float32(step)

    def _tensor(self, name: str, n_axes: int, dtype: npt.DTypeLike) -> Array:
        found = self.weights.get(name)
        if found is None or found.ndim != n_axes or found.dtype != dtype:
            got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
            raise EngineUnavailableError(
                f"expected {name} in {np.dtype(dtype)} with {n_axes} axes, got {got}; "
                "pack the model again"
            )
        return found


def forms_of(manifest, precision):
    forms = {"int8": ProductForm("int8", "int8"), "fp16": ProductForm("fp16", "fp16")}
    found = dict(manifest.precisions[precision].products)
    for node in manifest.program.nodes:
        cell = node.attributes.get("cell")
        if cell and precision in forms and not manifest.precisions[precision].products:
            found[f"{cell}.w_hh"] = forms[precision]
            if precision == "fp16":
                found[f"{cell}.w_ih"] = forms[precision]
    return found
