"""The user's sequences: read, checked, and described."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_gru.errors import DataError
from edge_gru.manifest import InputRange
from firmware_bridge.sample import Schema

Float32 = npt.NDArray[np.float32]
Targets: TypeAlias = npt.NDArray[Any]

MIN_STEPS = 2
_BLOCK_STEPS = 4096


@dataclass(frozen=True)
class Calibration:
    """Sequences ``(n_steps, n_in)`` float32 in physical units, each from a fresh start.

    ``targets``, where there are any, has the truth of each sequence: one row a step, or that of the
    last step alone.
    """

    sequences: tuple[Float32, ...]
    targets: tuple[Targets, ...] | None = None

    @property
    def n_channels(self) -> int:
        """Number of input channels."""
        return int(self.sequences[0].shape[1])

    @property
    def n_steps(self) -> int:
        """Number of samples in all sequences."""
        return sum(len(sequence) for sequence in self.sequences)

    @property
    def sha256(self) -> str:
        """Hash of shapes and values, in order."""
        digest = hashlib.sha256()
        for sequence in self.sequences:
            digest.update(repr(sequence.shape).encode())
            for start in range(0, len(sequence), _BLOCK_STEPS):
                rows = sequence[start : start + _BLOCK_STEPS]
                digest.update(np.ascontiguousarray(rows, "<f4").tobytes())
        return digest.hexdigest()

    @property
    def input_range(self) -> InputRange:
        """Smallest and largest value of each channel."""
        low = np.min([s.min(axis=0) for s in self.sequences], axis=0)
        high = np.max([s.max(axis=0) for s in self.sequences], axis=0)
        return InputRange(tuple(map(float, low)), tuple(map(float, high)))

    def joined(self, n_steps: int) -> Float32:
        """One stream of ``n_steps`` samples: the sequences in order, again from the first."""
        rows: list[Float32] = []
        n_left = n_steps
        for sequence in itertools.cycle(self.sequences):
            rows.append(sequence[:n_left])
            n_left -= len(rows[-1])
            if not n_left:
                break
        return np.concatenate(rows)


def check_sequences(
    sequences: Iterable[npt.ArrayLike],
    schema: Schema | None,
    targets: Sequence[npt.ArrayLike] | None = None,
) -> Calibration:
    """Check and convert sequences of ``(n_steps, n_in)`` values, and their targets.

    Raises:
        DataError: none, not two-dimensional, other channel counts, too short, NaN or infinite; not
            one target a sequence.
    """
    checked = [_check_one(k, sequence) for k, sequence in enumerate(sequences)]
    if not checked:
        raise DataError("expected at least one calibration sequence, got none")
    widths = sorted({sequence.shape[1] for sequence in checked})
    if len(widths) > 1:
        raise DataError(f"expected the same channels in all sequences, got {widths} of them")
    if schema is not None and widths[0] != schema.n_channels:
        raise DataError(
            f"expected sequences of {schema.n_channels} channels ({', '.join(schema.names)}), "
            f"got {widths[0]}"
        )
    names = (schema or Schema.unnamed(widths[0])).names
    for k, sequence in enumerate(checked):
        _check_finite(k, sequence, names)
    return Calibration(tuple(checked), _check_targets(targets, len(checked)))


def _check_targets(
    targets: Sequence[npt.ArrayLike] | None, n_sequences: int
) -> tuple[Targets, ...] | None:
    if targets is None:
        return None
    if len(targets) != n_sequences:
        raise DataError(
            f"expected one target array for each of {n_sequences} sequences, got {len(targets)}"
        )
    checked = tuple(np.asarray(target) for target in targets)
    for k, target in enumerate(checked):
        if target.dtype.kind not in "biuf":
            raise DataError(
                f"expected targets as numbers, got {target.dtype} for sequence {k}; "
                "give classes as the index of their label"
            )
    return checked


def _check_one(k: int, sequence: npt.ArrayLike) -> Float32:
    try:
        array = np.asarray(sequence, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"calibration sequence {k} holds values that are no numbers") from error
    if array.ndim != 2 or len(array) < MIN_STEPS:
        raise DataError(
            f"expected calibration sequences of shape (n_steps, n_in) with at least {MIN_STEPS} "
            f"steps, got {array.shape} in sequence {k}"
        )
    return array


def _check_finite(k: int, sequence: Float32, names: Sequence[str]) -> None:
    first, n_wrong = None, 0
    for start in range(0, len(sequence), _BLOCK_STEPS):
        wrong = np.argwhere(~np.isfinite(sequence[start : start + _BLOCK_STEPS]))
        if len(wrong) and first is None:
            first = (start + int(wrong[0, 0]), int(wrong[0, 1]))
        n_wrong += len(wrong)
    if first is not None:
        step, channel = first
        raise DataError(
            f"expected finite calibration values, got {sequence[step, channel]} in sequence {k}, "
            f"step {step}, channel {names[channel]} ({n_wrong} such values); drop these steps"
        )
