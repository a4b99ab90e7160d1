"""Which of the user's sequences are fitted to, which choose, and which judge: never the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_gru.errors import DataError
from quantization.calibrate import Calibration, Float32, Targets

_SHARES = (0.5, 0.25, 0.25)
_LEAST_OF_SHARE = 0.5
_SEED = 20


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of the sequences.

    ``fit`` is what rounding learns from, ``choose`` decides between roundings, ``judge`` is what
    the gate runs. ``by`` tells how: whole ``sequences``, or every sequence cut in ``time``.
    """

    fit: Calibration
    choose: Calibration
    judge: Calibration
    by: str


def split(data: Calibration) -> Parts:
    """Give half of the steps to fit, a quarter to choose and a quarter to judge.

    Whole sequences where there are enough of them, in an order that does not depend on the user's
    (recordings often come sorted by class); else every sequence is cut in time.

    Raises:
        DataError: too few steps for three parts.
    """
    parts = _whole(data.sequences)
    if parts is not None:
        fit, choose, judge = (_take(data, sorted(part)) for part in parts)
        return Parts(fit, choose, judge, "sequences")
    return _cut(data)


def _whole(sequences: Sequence[Float32]) -> list[list[int]] | None:
    """Deal the sequences, the longest first, to the part that is most short of its share."""
    lengths = np.array([len(sequence) for sequence in sequences])
    shuffled = np.random.default_rng(_SEED).permutation(len(sequences))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    wanted = np.array(_SHARES) * lengths.sum()
    found = np.zeros(len(_SHARES))
    parts: list[list[int]] = [[] for _ in _SHARES]
    for k in order.tolist():
        part = int(np.argmax(wanted - found))
        parts[part].append(k)
        found[part] += lengths[k]
    return parts if (found >= _LEAST_OF_SHARE * wanted).all() else None


def _take(data: Calibration, indices: Sequence[int]) -> Calibration:
    targets = None if data.targets is None else tuple(data.targets[k] for k in indices)
    return Calibration(tuple(data.sequences[k] for k in indices), targets)


def _cut(data: Calibration) -> Parts:
    pieces: tuple[list[Float32], ...] = ([], [], [])
    targets: list[Targets] = []
    for k, sequence in enumerate(data.sequences):
        n = len(sequence)
        half, late = n // 2, max(n // 2, n * 3 // 4)
        for piece, cut in zip(
            pieces, (slice(half), slice(half, late), slice(late, n)), strict=True
        ):
            if len(sequence[cut]):
                piece.append(sequence[cut])
        if data.targets is not None:
            target = data.targets[k]
            per_step = target.ndim > 0 and len(target) == n
            targets.append(target[late:] if per_step else target)
    if not all(pieces):
        raise DataError(
            f"expected calibration sequences with at least 4 steps, got {data.n_steps} in "
            f"{len(data.sequences)}; part is fitted to, part chooses, part judges"
        )
    fit, choose, judge = (Calibration(tuple(piece)) for piece in pieces)
    judged = Calibration(judge.sequences, None if data.targets is None else tuple(targets))
    return Parts(fit, choose, judged, "time")
