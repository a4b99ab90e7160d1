"""Arrays in the parts of a bundle: safetensors, in which there is no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from edge_gru.errors import BundleError

WEIGHTS = "weights.safetensors"
GOLDEN = "golden.safetensors"


def read_tensors(data: bytes, part: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a part by name.

    Raises:
        BundleError: the bytes are no safetensors, or of a type that numpy does not have.
    """
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, LookupError, ValueError) as error:
        raise BundleError(
            f"part {part} holds no tensors ({error}); pack the model again"
        ) from error


def packed(tensors: Mapping[str, npt.NDArray[Any]], weight: str) -> dict[str, npt.NDArray[Any]]:
    """Put the rows ``<weight>_q`` (rows, n) of -8..7 in half the bytes, ``<weight>_q4``.

    Two columns a byte, the even one in its low half; an odd last column has zero beside it.
    """
    q = tensors[f"{weight}_q"]
    even = np.pad(q, ((0, 0), (0, q.shape[1] % 2))).view(np.uint8) & 0x0F
    halves = even[:, 0::2] | (even[:, 1::2] << 4)
    others = {name: value for name, value in tensors.items() if name != f"{weight}_q"}
    return {**others, f"{weight}_q4": halves}


def unpacked(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Read every ``<weight>_q4`` as int8 rows ``<weight>_q``, as wide as the weight.

    Raises:
        BundleError: the weight is not there, or of another shape.
    """
    whole = dict(tensors)
    for name in [name for name in tensors if name.endswith("_q4")]:
        weight_name = name.removesuffix("_q4")
        halves, weight = whole.pop(name), tensors.get(weight_name)
        scale = tensors.get(f"{weight_name}_scale", np.empty(0))
        if weight is None or weight.ndim != 2 or not scale.size or halves.dtype != np.uint8:
            raise BundleError(f"expected {name} to be the rows of a weight; pack the model again")
        n_rows = scale.size  # the weight itself may lie the other way
        n = weight.size // n_rows
        if halves.shape != (n_rows, (n + 1) // 2):
            raise BundleError(
                f"expected {name} of shape ({n_rows}, {(n + 1) // 2}), got {halves.shape}; "
                "pack the model again"
            )
        both = np.stack([halves << 4, halves & 0xF0], axis=2).view(np.int8) >> 4
        whole[name.removesuffix("4")] = both.reshape(n_rows, -1)[:, :n]
    return whole
