"""Sampling instants from arrivals alone, for formats without time."""

from __future__ import annotations

import numpy as np

from firmware_bridge.sample import Float64

_GAIN_LATE = 0.02  # lateness is mostly the transport's doing
_GAIN_EARLY = 0.5  # nothing arrives before it was sampled
_MIN_GAP_PERIODS = 5
_MIN_GAP_S = 0.25
_MIN_STEP_S = 1e-6


class ArrivalClock:
    """Stamps samples by their arrival; where the rate is known, jitter is smoothed and gaps show.

    The times of one call are later than those of the call before.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._period_s = None if rate_hz is None else 1 / rate_hz
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._last_s: float | None = None

    def stamp(self, n_samples: int, arrived_s: float) -> tuple[int, Float64]:
        """Return samples missing before, and instants ``(n_samples,)`` of those that arrived."""
        if self._period_s is None:
            times = self._spread(n_samples, arrived_s)
            n_missing = 0
        else:
            n_missing, first_s = self._place(n_samples, arrived_s, self._period_s)
            times = first_s + self._period_s * np.arange(n_samples, dtype=np.float64)
        self._last_s = float(times[-1])
        return n_missing, times

    def _spread(self, n_samples: int, arrived_s: float) -> Float64:
        """Share out the time since the last arrival."""
        back = np.arange(n_samples - 1, -1, -1, dtype=np.float64)
        if self._last_s is None:
            return arrived_s - _MIN_STEP_S * back
        span_s = max(arrived_s - self._last_s, _MIN_STEP_S * n_samples)
        return self._last_s + span_s - span_s / n_samples * back

    def _place(self, n_samples: int, arrived_s: float, period_s: float) -> tuple[int, float]:
        """Return samples missing, and the instant of the first of a burst ending now."""
        first_s = arrived_s - (n_samples - 1) * period_s
        if self._last_s is None:
            return 0, first_s
        expected_s = self._last_s + period_s
        error_s = first_s - expected_s
        if error_s > max(_MIN_GAP_PERIODS * period_s, _MIN_GAP_S):
            return round(error_s / period_s), first_s
        gain = _GAIN_LATE if error_s > 0 else _GAIN_EARLY
        return 0, max(expected_s + gain * error_s, self._last_s + 0.1 * period_s)
