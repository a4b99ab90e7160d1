"""Numbered samples to blocks and gaps: nothing is fed twice, out of order, or lost unnoticed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firmware_bridge.formats.session import LinkStatistics, TickClock
from firmware_bridge.sample import EpochChanged, Float32, Gap, Int64, Item, SampleBlock

_WRAP = 0x10000
_MAX_UNEXPLAINED_US = 1_000_000

LATE_S = 0.1


class SampleOrder:
    """Orders the samples of one epoch at a time by their 16-bit numbers, checked against time."""

    def __init__(self, clock: TickClock, counts: LinkStatistics) -> None:
        self._clock = clock
        self._counts = counts
        self.begin(0, 0)

    def begin(self, epoch: int, period_us: int) -> None:
        """Expect a new stream; its first sample may have any number."""
        self._epoch = epoch
        self._period_us = period_us
        self._next_seq: int | None = None
        self._last_ticks_us = 0

    def sort(
        self, seq: npt.NDArray[np.uint16], ticks_us: Int64, values: Float32, read_s: float
    ) -> list[Item]:
        """Return the items that samples ``(k,)`` amount to; ``values`` is ``(k, n)``."""
        breaks = np.flatnonzero(seq[1:] - seq[:-1] != 1) + 1 if len(seq) > 1 else ()
        items: list[Item] = []
        start = 0
        for stop in (*breaks, len(seq)):
            run = slice(start, stop)
            self._sort_run(seq[run], ticks_us[run], values[run], read_s, items)
            start = stop
        return items

    def _sort_run(
        self,
        seq: npt.NDArray[np.uint16],
        ticks_us: Int64,
        values: Float32,
        read_s: float,
        items: list[Item],
    ) -> None:
        """Append the items of consecutive samples."""
        if self._next_seq is None:
            self._next_seq = int(seq[0])
        elif (step := self._step(int(seq[0]), int(ticks_us[0]))) is None:
            items.append(self._jump(int(seq[0]), int(ticks_us[0]), read_s))
        elif step < 0:
            n_old = min(-step, len(seq))
            self._counts.duplicate_samples += n_old
            seq, ticks_us, values = seq[n_old:], ticks_us[n_old:], values[n_old:]
            if not len(seq):
                return
        elif step > 0:
            self._counts.lost_samples += step
            self._next_seq += step
            items.append(Gap(read_s, step))
        items.append(self._block(ticks_us, values, read_s))

    def _step(self, seq: int, ticks_us: int) -> int | None:
        """Return samples missing before this one; negative: it is that old; None: time jumped."""
        step = (seq - (self._next_seq or 0)) % _WRAP
        elapsed_us = ticks_us - self._last_ticks_us
        if step >= _WRAP // 2 and elapsed_us <= 0:
            return step - _WRAP
        unexplained_us = elapsed_us - (step + 1) * self._period_us
        if self._period_us:
            n_wraps = max(0, round(unexplained_us / (_WRAP * self._period_us)))
            step += n_wraps * _WRAP
            unexplained_us -= n_wraps * _WRAP * self._period_us
        tolerance_us = max(_MAX_UNEXPLAINED_US, self._period_us / 2)
        return step if elapsed_us > 0 and abs(unexplained_us) <= tolerance_us else None

    def _jump(self, seq: int, ticks_us: int, read_s: float) -> EpochChanged:
        jump_s = (ticks_us - self._last_ticks_us) * 1e-6
        self._clock.reset()
        self._next_seq = seq
        return EpochChanged(
            read_s, self._epoch, f"the board's clock jumped by {jump_s:.3f} s from one sample on"
        )

    def _block(self, ticks_us: Int64, values: Float32, read_s: float) -> SampleBlock:
        first = self._next_seq or 0
        self._next_seq = first + len(values)
        self._last_ticks_us = int(ticks_us[-1])
        self._counts.samples += len(values)
        self._clock.note_arrival(self._last_ticks_us, read_s)
        seq = np.arange(first, self._next_seq, dtype=np.int64)
        t_s = self._clock.to_host(ticks_us)
        if not self._clock.is_locked:
            self._counts.unlocked_samples += len(values)
        elif read_s - t_s[0] > LATE_S:
            self._counts.late_samples += int((read_s - t_s > LATE_S).sum())
        return SampleBlock(t_s, seq, values, read_s)
