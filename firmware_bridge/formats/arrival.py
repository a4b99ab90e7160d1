"""Sampling instants from arrivals alone, for formats without time."""

from __future__ import annotations

from collections import deque

import numpy as np

from firmware_bridge.sample import Float64

_GAIN_LATE = 0.02  # lateness is mostly the transport's doing
_GAIN_EARLY = 0.5  # nothing arrives before it was sampled
_MIN_GAP_PERIODS = 5
_MIN_GAP_S = 0.25
_MIN_STEP_S = 1e-6
_WINDOW_S = 1.0
_N_WINDOWS = 8
_MIN_WINDOWS = 6  # chance makes fewer agree too easily
_MIN_PER_WINDOW = 10
_STEADY = 0.02  # windows of a steady source differ by less than this, and a sample at the edges


class RateEstimate:
    """Counts samples by the second, and tells the rate once it is steady.

    A source that prints when something happens has no rate; one with a timer has.
    """

    def __init__(self) -> None:
        self._windows: deque[tuple[int, float]] = deque(maxlen=_N_WINDOWS)
        self._begun_s: float | None = None
        self._n_samples = 0

    def note(self, n_samples: int, arrived_s: float) -> None:
        """Count samples that arrived."""
        if self._begun_s is None:  # those of the first read were gathered over an unknown time
            self._begun_s = arrived_s
            return
        self._n_samples += n_samples
        elapsed_s = arrived_s - self._begun_s
        if elapsed_s >= _WINDOW_S and self._n_samples >= _MIN_PER_WINDOW:
            self._windows.append((self._n_samples, elapsed_s))
            self._begun_s, self._n_samples = arrived_s, 0

    def note_pause(self) -> None:
        """Begin a new window with the next sample: what passed since the last does not count."""
        self._begun_s, self._n_samples = None, 0

    @property
    def rate_hz(self) -> float | None:
        """Samples a second over the last windows; None until they agree."""
        if len(self._windows) < _MIN_WINDOWS:
            return None
        n_samples, elapsed_s = np.array(self._windows).T
        rate_hz = float(n_samples.sum() / elapsed_s.sum())
        differences = np.abs(n_samples - rate_hz * elapsed_s)
        is_steady = (differences <= 1.5 + _STEADY * n_samples).all()
        return rate_hz if is_steady else None


class ArrivalClock:
    """Stamps samples by their arrival; where the rate is known, jitter is smoothed and gaps show.

    A rate that was not given is estimated. The times of one call are later than those of the call
    before.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._given_hz = rate_hz
        self._estimate = RateEstimate()
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._last_s: float | None = None
        self._estimate.note_pause()

    @property
    def estimated_hz(self) -> float | None:
        """The rate at which samples do come; None until it is steady."""
        return self._estimate.rate_hz

    def stamp(
        self, n_samples: int, arrived_s: float, *, has_more: bool = False
    ) -> tuple[int, Float64]:
        """Return samples missing before, and instants ``(n_samples,)`` of those that arrived.

        Where ``has_more`` says that others wait to be read, lateness is no sign of a gap yet.
        """
        rate_hz = self._given_hz or self._estimate.rate_hz
        if rate_hz is None:
            times = self._spread(n_samples, arrived_s)
            n_missing = 0
        else:
            n_missing, first_s = self._place(n_samples, arrived_s, 1 / rate_hz, has_more=has_more)
            times = first_s + np.arange(n_samples, dtype=np.float64) / rate_hz
        self._last_s = float(times[-1])
        if n_missing:
            self._estimate.note_pause()
        self._estimate.note(n_samples, arrived_s)
        return n_missing, times

    def _spread(self, n_samples: int, arrived_s: float) -> Float64:
        """Share out the time since the last arrival."""
        back = np.arange(n_samples - 1, -1, -1, dtype=np.float64)
        if self._last_s is None:
            return arrived_s - _MIN_STEP_S * back
        span_s = max(arrived_s - self._last_s, _MIN_STEP_S * n_samples)
        return self._last_s + span_s - span_s / n_samples * back

    def _place(
        self, n_samples: int, arrived_s: float, period_s: float, *, has_more: bool
    ) -> tuple[int, float]:
        """Return samples missing, and the instant of the first of a burst ending now."""
        first_s = arrived_s - (n_samples - 1) * period_s
        if self._last_s is None:
            return 0, first_s
        expected_s = self._last_s + period_s
        error_s = first_s - expected_s
        if error_s > max(_MIN_GAP_PERIODS * period_s, _MIN_GAP_S):
            if has_more:
                return 0, expected_s
            return round(error_s / period_s), first_s
        gain = _GAIN_LATE if error_s > 0 else _GAIN_EARLY
        return 0, max(expected_s + gain * error_s, self._last_s + 0.1 * period_s)
