"""Whether finetuned weights are taken: only where data that they did not see says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from quantization.rounding import QuantizedRows

Rows: TypeAlias = Mapping[str, QuantizedRows]

SUFFIX = "+qat"


@dataclass(frozen=True)
class Finetuning:
    """What finetuning did to the SQNR of the outputs on held-out data: kept only if that rose.

    The best of several looks along the way counts.
    """

    n_steps: int
    sqnr_before_db: float
    sqnr_after_db: float
    is_kept: bool


def choose_finetuned(
    rows: Rows,
    names: Mapping[str, str],
    learnt: Sequence[Rows],
    score: Callable[[Rows], float],
    n_steps: int,
) -> tuple[Rows, Mapping[str, str], Finetuning]:
    """Take the best of what was learnt in ``n_steps`` steps if it beats what it began with.

    Args:
        rows: of each weight, as rounded.
        names: which rounding each weight has.
        learnt: the rows at several times, all weights in each.
        score: SQNR in dB, on a stream that nothing was fitted to, with given rows.
        n_steps: how many steps there were.

    Returns the rows and the names, and what finetuning did.
    """
    scores = [score(found) for found in learnt]
    before_db, after_db = score(rows), max(scores)
    is_kept = after_db > before_db
    finetuning = Finetuning(n_steps, before_db, after_db, is_kept)
    if not is_kept:
        return rows, names, finetuning
    best = learnt[scores.index(after_db)]
    return best, {weight: f"{name}{SUFFIX}" for weight, name in names.items()}, finetuning
