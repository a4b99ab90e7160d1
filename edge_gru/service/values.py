"""What is done with readings that no sensor can have meant, before they reach the model."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import numpy as np

from edge_gru.manifest import InputRange
from firmware_bridge.sample import Float32, SampleBlock

BadValues: TypeAlias = Literal["reject", "hold", "clip"]


class ValueRepair:
    """Repairs readings by one policy; what it leaves not finite, the predictor rejects.

    ``reject`` changes nothing. ``hold`` puts a channel's last finite value in the place of one that
    is not. ``clip`` brings values, infinite ones too, into the range that the model was calibrated
    with.
    """

    def __init__(self, policy: BadValues, limits: InputRange) -> None:
        self._policy = policy
        self._low = np.array(limits.minimum, np.float32)
        self._high = np.array(limits.maximum, np.float32)
        self.n_repaired = 0
        self.begin()

    def begin(self) -> None:
        """Forget the last values, as at the begin of a stream."""
        self._last: Float32 | None = None

    def apply(self, block: SampleBlock) -> SampleBlock:
        """Return the block with its values repaired; itself where there is nothing to do."""
        if self._policy == "reject":
            return block
        values = block.values
        if self._policy == "clip":
            repaired = np.clip(values, self._low, self._high)
        else:
            repaired = self._hold(values)
        is_changed = (repaired != values) & np.isfinite(repaired)
        n_changed = int(is_changed.any(axis=1).sum())
        if not n_changed:
            return block
        self.n_repaired += n_changed
        return dataclasses.replace(block, values=repaired)

    def _hold(self, values: Float32) -> Float32:
        """Carry the last finite value of each channel forward."""
        held = values.copy()
        for row in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
            before = held[row - 1] if row else self._last
            if before is not None:
                held[row] = np.where(np.isfinite(held[row]), held[row], before)
        self._last = held[-1]
        return held
