"""Products with a weight as ``edge_gru.engines.products`` defines them, gradients straight through.

Rounding has the gradient of the identity; values beyond a grid have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from edge_gru.engines.products import FLOAT, INT8_MAX, INT8_MIN, LO_STEPS
from edge_gru.manifest import ProductForm

Tensor: TypeAlias = torch.Tensor


class _StraightThrough(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Takes a value and what it is rounded to: the latter, with the gradient of the former."""

    @staticmethod
    def forward(_: Any, value: Tensor, exact: Tensor) -> Tensor:
        return exact.view_as(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@dataclass(frozen=True)
class Factor:
    """A weight (rows, n) as its product reads it.

    Under an operand of integers, ``matrix`` has the step of the operand's grid in it.
    """

    matrix: Tensor
    form: ProductForm = FLOAT
    step: Tensor | None = None
    gain: Tensor | None = None

    def multiply(self, operand: Tensor, rows: slice) -> Tensor:
        """Multiply ``(k, n)`` by some rows, transposed: ``(k, r)``."""
        if self.step is not None:
            operand = operand_steps(self.form, operand, self.step, self.gain)
        if self.form.operand == "fp16":
            return half(half(operand) @ half(self.matrix[rows]).T)
        return operand @ self.matrix[rows].T


def operand_steps(form: ProductForm, operand: Tensor, step: Tensor, gain: Tensor | None) -> Tensor:
    """Count the steps of the grid in an operand; the division is float32, as it is defined."""
    v = operand.to(torch.float32)
    v = v if gain is None else v * gain
    within = (v / step).clamp(INT8_MIN, INT8_MAX)
    with torch.no_grad():
        high = within.round()
        steps = high.to(operand.dtype)
        if form.operand == "int8-hilo":
            rest = (v - high * step) * LO_STEPS
            low = (rest / step).clamp(INT8_MIN, INT8_MAX).round()
            steps = steps + low.to(operand.dtype) / LO_STEPS
    return _StraightThrough.apply(within.to(operand.dtype), steps)


def integers(steps: Tensor, q_max: int) -> Tensor:
    """Round to -q_max..q_max."""
    within = steps.clamp(-q_max, q_max)
    return _StraightThrough.apply(within, within.detach().round())


def half(value: Tensor) -> Tensor:
    """Round to fp16."""
    return _StraightThrough.apply(value, value.detach().to(torch.float16).to(value.dtype))
