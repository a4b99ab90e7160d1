"""The counters of a run, and its latencies in bounded memory."""

from __future__ import annotations

import math

import msgspec

_BINS_PER_FACTOR_E = 100  # neighbouring bins are 1 % apart
_N_BINS = 2000  # up to e**20 us, eight minutes


class LatencyHistogram:
    """Counts latencies in 2000 logarithmic bins from 1 us: quantiles are right to one percent."""

    def __init__(self) -> None:
        self._counts = [0] * _N_BINS
        self.n = 0
        self.max_us = 0.0

    def add(self, latency_us: float) -> None:
        """Count one latency."""
        index = int(math.log(latency_us) * _BINS_PER_FACTOR_E) if latency_us > 1.0 else 0
        self._counts[min(index, _N_BINS - 1)] += 1
        self.n += 1
        self.max_us = max(self.max_us, latency_us)

    def quantile_us(self, q: float) -> float:
        """Give the latency that a share ``q`` of them does not exceed; 0.0 without any."""
        rank = math.ceil(q * self.n)
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return min(math.exp((index + 0.5) / _BINS_PER_FACTOR_E), self.max_us)
        return 0.0


class Latency(msgspec.Struct, frozen=True):
    """Quantiles from the read of a sample's bytes to its prediction, microseconds."""

    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float

    @classmethod
    def of(cls, histogram: LatencyHistogram) -> Latency:
        """Read the quantiles of a histogram."""
        p50, p90, p99 = (round(histogram.quantile_us(q), 1) for q in (0.5, 0.9, 0.99))
        return cls(p50, p90, p99, round(histogram.max_us, 1))


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did so far.

    Every sample that was read is predicted or rejected (not finite); ``repaired_samples`` were
    changed before by the policy for bad values. ``lost_samples`` never arrived, ``overrun_samples``
    arrived but were dropped because the loop did not keep up, ``dropped_events`` were predicted but
    no sink could take them in time. ``saturated`` has by channel how many samples lay beyond the
    grid that the model was quantized on, those with any; ``outside`` likewise those far beyond the
    range of its calibration, and ``stuck`` names the channels that repeat one value now.
    """

    model: str
    engine: str
    duration_s: float
    n_samples: int
    n_predictions: int
    rejected_samples: int
    repaired_samples: int = 0
    lost_samples: int
    overrun_samples: int
    frames_bad: int
    reconnects: int
    resets_gap: int
    resets_epoch: int
    resets_time: int
    held_gaps: int
    n_alerts: int
    dropped_events: int
    saturated: dict[str, int]
    outside: dict[str, int] = {}
    stuck: tuple[str, ...] = ()
    latency: Latency
    link: dict[str, int | float]  # every counter of the link by its name
