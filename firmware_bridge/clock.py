"""Device time to host time: 32-bit microseconds that wrap, to monotonic seconds that never step."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from firmware_bridge.sample import Float64, Int64

_N_PINGS_KEPT = 8
_MIN_ROUND_TRIP_S = -1e-3  # less than nothing: the board's clock jumped meanwhile
_MAX_SLEW = 0.05  # of elapsed device time: instants stay in order while the estimate moves


class DeviceClock:
    """Estimates the host instant of a device tick.

    Before the first answered ping the least delayed arrival stands for the sampling instant; from
    then on the ping with the smallest round trip of the last 8 decides. The estimate moves to a new
    value gradually, so host times of rising ticks rise strictly.
    """

    def __init__(self) -> None:
        self._last_ticks_us: int | None = None
        self.reset()

    def reset(self) -> None:
        """Forget how the two times compare, as after a reboot of the board."""
        self._pings: deque[tuple[float, float]] = deque(maxlen=_N_PINGS_KEPT)  # rtt, offset
        self._target_s = float("inf")
        self._offset_s: float | None = None
        self._converted_ticks_us = 0

    @property
    def is_locked(self) -> bool:
        """Whether a ping was answered, so that times rest on more than arrivals."""
        return bool(self._pings)

    @property
    def round_trip_s(self) -> float | None:
        """The smallest round trip of the last pings."""
        return min(self._pings)[0] if self._pings else None

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
        self._pings.append((round_trip_s, offset_s))
        self._target_s = min(self._pings)[1]

    def note_arrival(self, ticks_us: int, arrived_s: float) -> None:
        """Learn from the arrival of a sample taken at ``ticks_us``; nothing once locked."""
        if not self._pings:
            self._target_s = min(self._target_s, arrived_s - ticks_us * 1e-6)

    def to_host(self, ticks_us: Int64) -> Float64:
        """Return host seconds of rising ``ticks_us`` ``(k,)``, later than any before."""
        if self._offset_s is None:
            self._offset_s = self._target_s
        elif self._offset_s != self._target_s:
            limit_s = _MAX_SLEW * 1e-6 * max(0, int(ticks_us[0]) - self._converted_ticks_us)
            self._offset_s += min(max(self._target_s - self._offset_s, -limit_s), limit_s)
        self._converted_ticks_us = int(ticks_us[-1])
        return ticks_us.astype(np.float64) * 1e-6 + self._offset_s
