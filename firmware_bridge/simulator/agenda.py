"""What one thread has to do: at once, asked by others, or later."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable

Action = Callable[[], None]


class Agenda:
    """Actions for one thread, which is woken by a byte on ``wake_fd``.

    Open it before use; ``close`` releases the descriptors.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._orders: queue.SimpleQueue[Action] = queue.SimpleQueue()
        self._later: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self.wake_fd = self._wake_write = -1

    def open(self) -> None:
        """Make what ``wake`` writes to."""
        self.wake_fd, self._wake_write = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._wake_write, False)

    def close(self) -> None:
        """Release the descriptors; what was to be done later is forgotten."""
        os.close(self.wake_fd)
        os.close(self._wake_write)
        self._later.clear()

    def wake(self) -> None:
        """Let the thread look at its agenda; from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def order(self, action: Action) -> None:
        """Have ``action`` done and wait for it; from another thread.

        Raises:
            Exception: whatever ``action`` raised.
        """
        done = threading.Event()
        raised: list[Exception] = []

        def act() -> None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - raised again where it was asked for
                raised.append(error)
            done.set()

        self._orders.put(act)
        self.wake()
        done.wait()
        if raised:
            raise raised[0]

    def schedule(self, delay_s: float, action: Action) -> None:
        """Do ``action`` later; from the thread itself."""
        heapq.heappush(self._later, (self._clock() + delay_s, next(self._numbers), action))

    @property
    def wait_s(self) -> float:
        """Seconds until something is due."""
        return max(0.0, self._later[0][0] - self._clock()) if self._later else float("inf")

    def run(self) -> None:
        """Do what is due."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_fd, 4096)
        while not self._orders.empty():
            self._orders.get()()
        while self._later and self._later[0][0] <= self._clock():
            heapq.heappop(self._later)[2]()
