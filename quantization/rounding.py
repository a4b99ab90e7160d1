"""Integer tensors: symmetric rows with one scale each, rounded to nearest or by GPTQ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

Q_MAX = {"int8": 127, "int4": 7}
GPTQ_DAMPING = 0.01  # of the mean diagonal: covers units that never move
_TINY = 1e-12


@dataclass(frozen=True)
class QuantizedRows:
    """A matrix as ``scale[:, None] * q``: q (n_rows, n) int8, symmetric; scale (n_rows,)."""

    q: npt.NDArray[np.int8]
    scale: Float32

    @property
    def values(self) -> Float32:
        """The matrix that the engine multiplies by."""
        return self.q * self.scale[:, None]

    def columns(self, part: slice) -> QuantizedRows:
        """Take some columns, on the same scales."""
        return QuantizedRows(self.q[:, part], self.scale)


def round_rows(weight: Float32, q_max: int = Q_MAX["int8"]) -> QuantizedRows:
    """Round each row to nearest on its own grid, ``scale_j = max_k |w_jk| / q_max``; ties to even.

    A row of zeros gets scale 1, so that nothing divides by zero.
    """
    scale = _row_scales(weight, q_max)
    q = np.clip(np.rint(weight / scale[:, None]), -q_max, q_max).astype(np.int8)
    return QuantizedRows(q, scale)


def round_rows_gptq(weight: Float32, operand: Float32, q_max: int = Q_MAX["int8"]) -> QuantizedRows:
    """Round columns one after the other; those not yet rounded make up for each one's error.

    Minimises the error of ``operand @ weight.T`` on the grid of ``round_rows`` (Frantar et al.,
    GPTQ, arXiv 2210.17323): ``operand`` ``(n_steps, n)`` is what the product reads on real data.
    """
    scale = _row_scales(weight, q_max)
    x = operand.astype(np.float64)
    hessian = 2 / len(x) * (x.T @ x)
    hessian += GPTQ_DAMPING * max(np.trace(hessian) / len(hessian), _TINY) * np.eye(len(hessian))
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    rest = weight.astype(np.float64)
    step = scale.astype(np.float64)
    q = np.empty(weight.shape, np.int8)
    for k in range(weight.shape[1]):
        column = np.clip(np.rint(rest[:, k] / step), -q_max, q_max)
        q[:, k] = column
        error = (rest[:, k] - step * column) / upper[k, k]
        rest[:, k:] -= np.outer(error, upper[k, k:])
    return QuantizedRows(q, scale)


def _row_scales(weight: Float32, q_max: int) -> Float32:
    largest = np.abs(weight).max(axis=1)
    return np.where(largest > 0, largest / np.float32(q_max), np.float32(1)).astype(np.float32)
