"""The stream that judges: real sequences in their natural length, joined, the state not reset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantization.calibrate import Float32

# A unit that remembers longer never moves again on an int8 grid: changes slower than this show it.
SLOW_STEPS = 254
_SLOW_SHARE = 0.05
_HOLD_STEPS = 2 * SLOW_STEPS
_HOLD_EVERY_STEPS = 8 * SLOW_STEPS
_BLOCK_STEPS = 128
_N_CHOSEN_STEPS = 1 << 17


@dataclass(frozen=True)
class JoinedStream:
    """``n_streams`` independent joins of the same sequences, each ``n_steps`` long.

    Every one runs through all sequences in a seeded random order of its own, and again. Where
    ``has_holds``, the median input is held for 508 steps after 2,032 or more. Where ``resets``, a
    state is cleared at the beginning of each sequence. A short look ``begins_anywhere`` in its
    first sequence, so that it sees more than how sequences begin.
    """

    sequences: Sequence[Float32]
    n_streams: int
    n_steps: int
    has_holds: bool
    held: Float32
    seed: int = 0
    resets: bool = False
    begins_anywhere: bool = False

    @property
    def n_samples(self) -> int:
        """Number of samples of all streams."""
        return self.n_streams * self.n_steps

    def blocks(self) -> Iterator[tuple[Float32, npt.NDArray[np.bool_]]]:
        """Yield samples ``(n, n_streams, n_in)``, at most 128 steps, and where sequences begin.

        The second, ``(n, n_streams)``, tells whose state to clear before the step.
        """
        feeds = [_Feed(self._pieces(k)) for k in range(self.n_streams)]
        for start in range(0, self.n_steps, _BLOCK_STEPS):
            n = min(_BLOCK_STEPS, self.n_steps - start)
            block = np.empty((n, self.n_streams, len(self.held)), np.float32)
            begins = np.zeros((n, self.n_streams), np.bool_)
            for k, feed in enumerate(feeds):
                feed.fill(block[:, k], begins[:, k])
            yield block, begins & self.resets

    def _pieces(self, stream: int) -> Iterator[Float32]:
        rng = np.random.default_rng([self.seed, stream])
        hold = np.broadcast_to(self.held, (_HOLD_STEPS, len(self.held)))
        n_since_hold = 0
        if self.begins_anywhere:
            first = self.sequences[int(rng.integers(len(self.sequences)))]
            yield first[int(rng.integers(len(first))) :]
        while True:
            for k in rng.permutation(len(self.sequences)).tolist():
                yield self.sequences[k]
                n_since_hold += len(self.sequences[k])
                if self.has_holds and n_since_hold >= _HOLD_EVERY_STEPS:
                    yield hold
                    n_since_hold = 0


class _Feed:
    """Cuts pieces of any length into blocks."""

    def __init__(self, pieces: Iterator[Float32]) -> None:
        self._pieces = pieces
        self._piece = next(pieces)
        self._taken = 0

    def fill(self, rows: Float32, begins: npt.NDArray[np.bool_]) -> None:
        n_filled = 0
        while n_filled < len(rows):
            if self._taken == len(self._piece):
                self._piece, self._taken = next(self._pieces), 0
            begins[n_filled] = self._taken == 0
            part = self._piece[self._taken : self._taken + len(rows) - n_filled]
            rows[n_filled : n_filled + len(part)] = part
            self._taken += len(part)
            n_filled += len(part)


def median_input(sequences: Sequence[Float32]) -> Float32:
    """Take the median of every channel, of at most 131,072 evenly chosen samples."""
    return np.median(_chosen(sequences), axis=0).astype(np.float32)


def _chosen(sequences: Sequence[Float32]) -> Float32:
    stride = -(-sum(map(len, sequences)) // _N_CHOSEN_STEPS)
    return np.concatenate([sequence[::stride] for sequence in sequences])


def has_slow_stretch(sequences: Sequence[Float32]) -> bool:
    """Tell whether an input changes over more than 254 steps within a sequence.

    Means of 254 samples must hold 5 % of a channel's variance: of noise they hold 0.4 %.
    """
    means = [
        sequence[: len(sequence) // SLOW_STEPS * SLOW_STEPS]
        .reshape(-1, SLOW_STEPS, sequence.shape[1])
        .mean(axis=1, dtype=np.float64)
        for sequence in sequences
        if len(sequence) >= 2 * SLOW_STEPS
    ]
    if not means:
        return False
    slow = np.concatenate([part - part.mean(axis=0) for part in means])
    total = np.var(_chosen(sequences), axis=0, dtype=np.float64)
    return bool((np.mean(slow**2, axis=0) > _SLOW_SHARE * total).any())
