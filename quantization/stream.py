"""The stream that judges: real sequences in their natural length, joined, the state not reset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quantization.calibrate import Float32

SLOW_STEPS = 254  # changes slower than this are what an int8 state does not follow
_SLOW_SHARE = 0.05
_HOLD_STEPS = 2 * SLOW_STEPS
_HOLD_EVERY_STEPS = 8 * SLOW_STEPS
_BLOCK_STEPS = 128
_N_MEDIAN_STEPS = 1 << 17


@dataclass(frozen=True)
class JoinedStream:
    """``n_streams`` independent joins of the same sequences, each ``n_steps`` long.

    Every one runs through all sequences in a seeded random order of its own, and again. Where
    ``has_holds``, the median input is held for 508 steps in every 2,032. A short look
    ``begins_anywhere`` in its first sequence, so that it sees more than how sequences begin.
    """

    sequences: Sequence[Float32]
    n_streams: int
    n_steps: int
    has_holds: bool
    held: Float32
    seed: int = 0
    begins_anywhere: bool = False

    @property
    def n_samples(self) -> int:
        """Number of samples of all streams."""
        return self.n_streams * self.n_steps

    def blocks(self) -> Iterator[Float32]:
        """Yield ``(n, n_streams, n_in)``, at most 128 steps at a time."""
        feeds = [_Feed(self._pieces(k)) for k in range(self.n_streams)]
        for start in range(0, self.n_steps, _BLOCK_STEPS):
            n = min(_BLOCK_STEPS, self.n_steps - start)
            block = np.empty((n, self.n_streams, len(self.held)), np.float32)
            for k, feed in enumerate(feeds):
                feed.fill(block[:, k])
            yield block

    def _pieces(self, stream: int) -> Iterator[Float32]:
        rng = np.random.default_rng([self.seed, stream])
        hold = np.broadcast_to(self.held, (_HOLD_STEPS, len(self.held)))
        n_since_hold = 0
        if self.begins_anywhere:
            first = self.sequences[int(rng.integers(len(self.sequences)))]
            yield first[int(rng.integers(len(first))) :]
        while True:
            for k in rng.permutation(len(self.sequences)).tolist():
                for piece in _pieces_of(self.sequences[k]):
                    yield piece
                    n_since_hold += len(piece)
                    if self.has_holds and n_since_hold >= _HOLD_EVERY_STEPS:
                        yield hold
                        n_since_hold = 0


class _Feed:
    """Cuts pieces of any length into blocks."""

    def __init__(self, pieces: Iterator[Float32]) -> None:
        self._pieces = pieces
        self._rest = next(pieces)

    def fill(self, rows: Float32) -> None:
        n_filled = 0
        while n_filled < len(rows):
            if not len(self._rest):
                self._rest = next(self._pieces)
            taken = self._rest[: len(rows) - n_filled]
            rows[n_filled : n_filled + len(taken)] = taken
            self._rest = self._rest[len(taken) :]
            n_filled += len(taken)


def _pieces_of(sequence: Float32) -> Iterator[Float32]:
    for start in range(0, len(sequence), _HOLD_EVERY_STEPS):
        yield sequence[start : start + _HOLD_EVERY_STEPS]


def median_input(sequences: Sequence[Float32]) -> Float32:
    """Take the median of every channel, of at most 131,072 evenly chosen samples."""
    stride = -(-sum(map(len, sequences)) // _N_MEDIAN_STEPS)
    rows = np.concatenate([sequence[::stride] for sequence in sequences])
    return np.median(rows, axis=0).astype(np.float32)


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
    total = np.var(np.concatenate([s[::4] for s in sequences]), axis=0, dtype=np.float64)
    return bool((np.mean(slow**2, axis=0) > _SLOW_SHARE * total).any())
