"""Readings that a sensor hardly means: far beyond what the model knows, or always the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from edge_gru.manifest import InputRange
from firmware_bridge.sample import SampleBlock

_log = logging.getLogger(__name__)

_MARGIN = 0.5  # of the calibrated span, on either side: what follows is far from all that was seen


class Plausibility:
    """Watches channels and changes nothing; warns once of each.

    A reading is outside when it lies further from the range that the model was calibrated with than
    half the span of that range. A channel is stuck when it has given one value, to the last bit,
    for ``stuck_s`` seconds; 0: that is never asked.
    """

    def __init__(self, names: Sequence[str], limits: InputRange, stuck_s: float) -> None:
        low, high = (np.array(side, np.float32) for side in (limits.minimum, limits.maximum))
        margin = _MARGIN * (high - low)
        self._names = tuple(names)
        self._low, self._high = low - margin, high + margin
        self._stuck_s = stuck_s
        self._n_outside = np.zeros(low.size, np.int64)
        self._warned: set[tuple[str, str]] = set()
        self.begin()

    def begin(self) -> None:
        """Forget how long values have lasted, as at the begin of a stream."""
        self._last: np.ndarray | None = None
        self._since_s = np.zeros(self._n_outside.size)
        self._is_stuck = np.zeros(self._n_outside.size, np.bool_)

    @property
    def outside(self) -> dict[str, int]:
        """Count the readings outside by channel, those with any."""
        return {n: int(k) for n, k in zip(self._names, self._n_outside, strict=True) if k}

    @property
    def stuck(self) -> tuple[str, ...]:
        """Name the channels that are stuck now."""
        return tuple(n for n, is_stuck in zip(self._names, self._is_stuck, strict=True) if is_stuck)

    def look(self, block: SampleBlock) -> None:
        """Take notice of a block, as it came."""
        is_outside = (block.values < self._low) | (block.values > self._high)
        if is_outside.any():
            self._n_outside += is_outside.sum(axis=0)
            for name in self.outside:
                self._warn(name, "lies far beyond the range that the model was calibrated with")
        if self._stuck_s:
            self._look_for_change(block)

    def _look_for_change(self, block: SampleBlock) -> None:
        first = block.values[:1] if self._last is None else self._last[None]
        if self._last is None:
            self._since_s[:] = block.t_s[0]
        before = np.concatenate([first, block.values[:-1]])
        has_changed = block.values != before
        last = len(block) - 1 - has_changed[::-1].argmax(axis=0)
        self._since_s = np.where(has_changed.any(axis=0), block.t_s[last], self._since_s)
        self._is_stuck = block.t_s[-1] - self._since_s >= self._stuck_s
        self._last = block.values[-1]
        for name in self.stuck:
            self._warn(name, f"has given one value for {self._stuck_s:g} s; look at its sensor")

    def _warn(self, name: str, what: str) -> None:
        if (name, what) not in self._warned:
            self._warned.add((name, what))
            _log.warning("%s %s", name, what)
