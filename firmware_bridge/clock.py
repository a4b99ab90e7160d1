"""Device time to host time: 32-bit microseconds that wrap, to monotonic seconds that never step."""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from firmware_bridge.sample import Float64, Int64

_log = logging.getLogger(__name__)

_N_PINGS_A_POINT = 8  # of so many the one with the smallest round trip counts
_N_POINTS_KEPT = 64
_MIN_ROUND_TRIP_S = -1e-3  # less than nothing: the board's clock jumped meanwhile
_ROUND_TRIP_FLOOR_S = 5e-5  # below, round trips are equally good
_MIN_FIT_S = 4.0  # over less, jitter looks like drift
_MAX_DRIFT = 0.05  # more is no oscillator
_MAX_SLEW = 0.05  # of elapsed device time: instants stay in order while the estimate moves
_MAX_SURPRISE_S = 0.05  # beyond the round trip: the clock was set, what came before says nothing

DRIFT_ALARM_PPM = 200.0  # a crystal has 50, a ceramic resonator some thousand


class _Point(NamedTuple):
    """A ping: its round trip, and what is to be added to device time at ``ticks_us``."""

    round_trip_s: float
    ticks_us: int
    offset_s: float


class DeviceClock:
    """Estimates the host instant of a device tick.

    Before the first answered ping the least delayed arrival stands for the sampling instant. Then
    of every 8 pings the one with the smallest round trip counts, and a line through the last 64 of
    those gives offset and drift. The estimate moves to a new value gradually, so host times of
    rising ticks rise strictly.
    """

    def __init__(self) -> None:
        self._last_ticks_us: int | None = None
        self._n_drift_alarms = 0
        self.reset()

    def reset(self) -> None:
        """Forget how the two times compare, as after a reboot of the board."""
        self._recent: list[_Point] = []
        self._points: deque[_Point] = deque(maxlen=_N_POINTS_KEPT)
        self._drift = 0.0
        self._is_alarming = False
        self._target_s = float("inf")  # offset at _target_ticks_us
        self._target_ticks_us = 0
        self._offset_s: float | None = None
        self._converted_ticks_us = 0

    @property
    def is_locked(self) -> bool:
        """Whether a ping was answered, so that times rest on more than arrivals."""
        return bool(self._recent)

    @property
    def round_trip_s(self) -> float | None:
        """The smallest round trip of the last pings."""
        return min(self._recent).round_trip_s if self._recent else None

    @property
    def drift_ppm(self) -> float:
        """How much faster than the host's clock the board's runs; 0 until it can be told."""
        return -1e6 * self._drift

    @property
    def n_drift_alarms(self) -> int:
        """How often the drift became larger than `DRIFT_ALARM_PPM`."""
        return self._n_drift_alarms

    def extend(self, t_us: npt.NDArray[np.uint32]) -> Int64:
        """Return 64-bit ticks of the device times ``(k,)``, all within 35 min of the last known."""
        if self._last_ticks_us is None:
            self._last_ticks_us = int(t_us[0])
        last = np.uint32(self._last_ticks_us & 0xFFFFFFFF)
        ticks_us: Int64 = np.add((t_us - last).view(np.int32), self._last_ticks_us, dtype=np.int64)
        self._last_ticks_us = int(ticks_us[-1])
        return ticks_us

    def note_pong(
        self, sent_s: float, arrived_us: int, answered_us: int, received_s: float
    ) -> None:
        """Learn from a ping: sent, received in host time; arrived, answered in device time."""
        arrived, answered = self.extend(np.array([arrived_us, answered_us], np.uint32)).tolist()
        round_trip_s = (received_s - sent_s) - (answered - arrived) * 1e-6
        if round_trip_s < _MIN_ROUND_TRIP_S:
            return
        offset_s = ((sent_s - arrived * 1e-6) + (received_s - answered * 1e-6)) / 2
        self._note_point(_Point(max(round_trip_s, 0.0), answered, offset_s))

    def _note_point(self, point: _Point) -> None:
        surprise_s = abs(point.offset_s - self._offset_at(point.ticks_us))
        if self._recent and surprise_s > point.round_trip_s + _MAX_SURPRISE_S:
            self._points.clear()
            self._recent.clear()
            self._drift = 0.0
        if len(self._recent) == _N_PINGS_A_POINT:
            self._points.append(min(self._recent))
            self._recent.clear()
        self._recent.append(point)
        self._fit([*self._points, min(self._recent)])

    def _fit(self, points: list[_Point]) -> None:
        """Lay a line through points, the better ones weighing more."""
        round_trip_s, ticks_us, offset_s = np.array(points).T
        seconds = (ticks_us - ticks_us[-1]) * 1e-6
        span_s = np.ptp(seconds)
        if span_s < _MIN_FIT_S:
            best = min(points)
            self._target_ticks_us, self._target_s = best.ticks_us, best.offset_s
            return
        weights = 1 / (round_trip_s + _ROUND_TRIP_FLOOR_S) ** 2
        weights /= weights.sum()
        middle_s, middle_offset_s = weights @ seconds, weights @ offset_s
        spread = weights @ (seconds - middle_s) ** 2
        slope = weights @ ((seconds - middle_s) * (offset_s - middle_offset_s)) / spread
        self._drift = float(np.clip(slope, -_MAX_DRIFT, _MAX_DRIFT))
        self._target_ticks_us = int(ticks_us[-1] + middle_s * 1e6)
        self._target_s = float(middle_offset_s)
        self._watch(float(np.sort(round_trip_s)[:2].sum() / span_s))

    def _watch(self, uncertainty: float) -> None:
        """Raise the alarm, once, when the drift is surely too large."""
        is_alarming = (abs(self._drift) - uncertainty) * 1e6 > DRIFT_ALARM_PPM
        if is_alarming and not self._is_alarming:
            self._n_drift_alarms += 1
            _log.warning(
                "the board's clock runs %+.0f ppm against this machine's; is its oscillator right?",
                self.drift_ppm,
            )
        self._is_alarming = is_alarming

    def _offset_at(self, ticks_us: int) -> float:
        return self._target_s + self._drift * (ticks_us - self._target_ticks_us) * 1e-6

    def note_arrival(self, ticks_us: int, arrived_s: float) -> None:
        """Learn from the arrival of a sample taken at ``ticks_us``; nothing once locked."""
        if not self._recent:
            self._target_s = min(self._target_s, arrived_s - ticks_us * 1e-6)

    def to_host(self, ticks_us: Int64) -> Float64:
        """Return host seconds of rising ``ticks_us`` ``(k,)``, later than any before."""
        first_us, last_us = int(ticks_us[0]), int(ticks_us[-1])
        target_s = self._offset_at(last_us)
        if self._offset_s is None:
            self._offset_s = target_s
        elif self._offset_s != target_s:
            limit_s = _MAX_SLEW * 1e-6 * max(0, first_us - self._converted_ticks_us)
            self._offset_s += min(max(target_s - self._offset_s, -limit_s), limit_s)
        self._converted_ticks_us = last_us
        return ticks_us.astype(np.float64) * 1e-6 + self._offset_s
