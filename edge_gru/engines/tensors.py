"""Arrays in the parts of a bundle: safetensors, in which there is no code."""

from __future__ import annotations

from typing import Any

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
