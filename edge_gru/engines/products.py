"""Products with a weight in every form, in numpy float64: the definition that engines follow.

A weight W (rows, n) lies in the tensors under its name; where its form has integers, also ``W_q``
int8 (rows, n) and ``W_scale`` (rows,), and where they are not 1/127 and 1, ``W_operand_scale`` (),
the step of the operand's grid, and ``W_operand_gain`` (n,), which the operand is multiplied by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.operators import Array, Float64
from edge_gru.errors import BundleError
from edge_gru.manifest import ProductForm, StepNode

Float32 = npt.NDArray[np.float32]

INT8_MIN, INT8_MAX = -128, 127  # of the operand; weights keep to -127..127
UNIT_SCALE = np.float32(1 / INT8_MAX)  # of an operand in [-1, 1], whatever the data
LO_STEPS = 254  # of the low row to one of the high row
ALL_ROWS = slice(None)

FLOAT = ProductForm()
HALF = ProductForm("fp16", "fp16")


def multiply(
    form: ProductForm,
    operand: Float64,
    tensors: Mapping[str, Array],
    weight: str,
    rows: slice = ALL_ROWS,
) -> Float64:
    """Multiply ``(k, n)`` by some rows of a weight, transposed: ``(k, r)``.

    Integer sums are exact: they stay below 2**53.
    """
    if form.weight == "fp32":
        return operand @ tensors[weight][rows].T
    if form.weight == "fp16":
        return _half(_half(operand) @ _half(tensors[weight][rows]).T)
    scale = tensors[f"{weight}_scale"][rows].astype(np.float64)
    q = tensors[f"{weight}_q"][rows].astype(np.float64)
    if not form.has_integer_operand:
        return operand @ (q * scale[:, None]).T
    step, gain = operand_grid(tensors, weight)
    return (operand_steps(form, operand, step, gain) @ q.T) * (scale * float(step))


def operand_grid(tensors: Mapping[str, Array], weight: str) -> tuple[np.float32, Float32 | None]:
    """Return the step of the grid of a product's operand, and its gains ``(n,)`` if it has any.

    Raises:
        BundleError: the step is no single number.
    """
    step = tensors.get(f"{weight}_operand_scale")
    gain = tensors.get(f"{weight}_operand_gain")
    if step is not None and step.shape:
        raise BundleError(
            f"expected one step for the operand of {weight}, got {step.shape}; pack the model again"
        )
    return (
        UNIT_SCALE if step is None else np.float32(step),
        None if gain is None else gain.astype(np.float32),
    )


def operand_steps(
    form: ProductForm, operand: Array, step: np.float32, gain: Float32 | None = None
) -> Float64:
    """Count the steps of the grid in an operand ``(k, n)``, as the product reads it.

    The division is float32 and ties go to even, as ONNX defines QuantizeLinear: an engine that
    rounds otherwise near a tie is a whole step away. ``int8-hilo`` has a second row of 1/254 steps.
    """
    v = operand.astype(np.float32)
    if gain is not None:
        v = v * gain
    high = _steps(v, step)
    if form.operand == "int8":
        return high.astype(np.float64)
    rest = (v - high * step) * np.float32(LO_STEPS)
    return high.astype(np.float64) + _steps(rest, step).astype(np.float64) / LO_STEPS


def reach(step: np.float32) -> float:
    """Return the magnitude beyond which a grid reads its own end."""
    return (INT8_MAX + 0.5) * float(step)


def dense_weight(node: StepNode, tensors: Mapping[str, Any]) -> tuple[str, bool] | None:
    """Name the constant matrix of a MatMul or Gemm, and say whether it lies as (n, rows).

    None if the node is another, or does more than multiply and add a bias.
    """
    if node.op not in ("MatMul", "Gemm") or node.inputs[0] in tensors:
        return None
    weight = tensors.get(node.inputs[1])
    attributes = node.attributes
    is_plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    if weight is None or weight.ndim != 2 or not is_plain or attributes.get("transA"):
        return None
    return node.inputs[1], not attributes.get("transB")


def _steps(v: Float32, step: np.float32) -> Float32:
    return np.clip(np.rint(v / step), INT8_MIN, INT8_MAX)


def _half(a: Float64) -> Float64:
    return a.astype(np.float16).astype(np.float64)
