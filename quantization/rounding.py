"""INT8 tensors: symmetric rows with one scale each, rounded to nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Q_MAX = 127


@dataclass(frozen=True)
class QuantizedRows:
    """A matrix as ``scale[:, None] * q``: q (n_rows, n) int8 in -127..127, scale (n_rows,)."""

    q: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The matrix that the engine multiplies by."""
        return self.q * self.scale[:, None]


def round_rows(weight: npt.NDArray[np.float32]) -> QuantizedRows:
    """Round each row to nearest on its own grid, ``scale_j = max_k |w_jk| / 127``; ties to even.

    A row of zeros gets scale 1, so that nothing divides by zero.
    """
    largest = np.abs(weight).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(Q_MAX), np.float32(1)).astype(np.float32)
    q = np.clip(np.rint(weight / scale[:, None]), -Q_MAX, Q_MAX).astype(np.int8)
    return QuantizedRows(q, scale)
