"""The board's free-running timer, which may be wrong."""

from __future__ import annotations

import time
from collections.abc import Callable


class BoardClock:
    """Microseconds since power-on, from ``first_us`` on; it may drift and jump."""

    def __init__(self, first_us: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_us = float(first_us)
        self._since_s = clock()
        self._speed = 1.0

    def restart(self, first_us: int | None = None) -> None:
        """Begin again, at power-on."""
        if first_us is not None:
            self._first_us = float(first_us)
        self._since_s = self._clock()

    @property
    def now_us(self) -> int:
        """The time now; it does not wrap."""
        return int(self._first_us + (self._clock() - self._since_s) * self._speed * 1e6)

    def drift(self, ppm: float) -> None:
        """Run faster than the host's clock by ``ppm`` from now on."""
        self._first_us, self._since_s = float(self.now_us), self._clock()
        self._speed = 1 + ppm * 1e-6

    def jump(self, duration_us: int) -> None:
        """Step forward."""
        self._first_us += duration_us

    def true_s(self, duration_us: float) -> float:
        """Return the host's seconds in a time of this clock."""
        return duration_us * 1e-6 / self._speed
