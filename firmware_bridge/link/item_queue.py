"""Between reader and consumer: bounded, in order, and what is dropped leaves a gap behind."""

from __future__ import annotations

import threading
from collections import deque

from firmware_bridge.sample import EpochChanged, Event, Gap, Item, SampleBlock

_MAX_EVENTS = 256


class ItemQueue:
    """Hands items from one thread to another; when full the oldest samples go, counted.

    In the place of dropped samples stands one ``Gap``, preceded by the last events that still
    matter: which link and which epoch the samples after it belong to.
    """

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._items: deque[Item] = deque()
        self._n_samples = 0
        self._n_events = 0
        self._error: Exception | None = None
        self._is_closed = False
        self.overrun_samples = 0
        self._lock = threading.Lock()
        # Held while nothing is new; cheaper by half than a Condition, a thousand times a second.
        self._news = threading.Lock()
        self._news.acquire()
        self._is_waiting = False

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left and nothing will come."""
        with self._lock:
            return self._is_closed and not self._items and self._error is None

    def put(self, items: list[Item]) -> None:
        """Append ``items``; make room at the old end."""
        with self._lock:
            for item in items:
                self._count(item, 1)
            self._items.extend(items)
            if self._is_over:
                self._shrink()
            self._wake()

    def close(self, error: Exception | None = None) -> None:
        """End, once: after what is queued comes ``error``, if any, and then nothing."""
        with self._lock:
            if not self._is_closed:
                self._is_closed, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        """Let the consumer go on; the caller holds the lock."""
        if self._is_waiting:
            self._is_waiting = False
            self._news.release()

    def get(self, timeout_s: float) -> Item | None:
        """Take the oldest item; None if none comes in time, or ever. For one consumer.

        Raises:
            Exception: the one given to `close`, once, after everything queued before it.
        """
        with self._lock:
            self._is_waiting = not self._items and not self._is_closed
            is_waiting = self._is_waiting
            self._news.acquire(blocking=False)  # a wait cut short may have left it free
        if is_waiting:
            self._news.acquire(timeout=max(0.0, timeout_s))
        with self._lock:
            if self._items:
                item = self._items.popleft()
                self._count(item, -1)
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    @property
    def _is_over(self) -> bool:
        return self._n_samples > self._max_samples or self._n_events > _MAX_EVENTS

    def _count(self, item: Item, sign: int) -> None:
        if isinstance(item, SampleBlock):
            self._n_samples += sign * len(item)
        else:
            self._n_events += sign

    def _shrink(self) -> None:
        """Fold the oldest items into at most a LinkUp or LinkDown, an EpochChanged and a Gap."""
        link: Event | None = None
        epoch: Event | None = None
        n_missing = 0
        t_s = 0.0
        while self._items and (self._is_over or isinstance(self._items[0], Gap)):
            item = self._items.popleft()
            self._count(item, -1)
            if isinstance(item, SampleBlock):
                self.overrun_samples += len(item)
                n_missing += len(item)
                t_s = item.read_s
            elif isinstance(item, Gap):
                n_missing += item.n_missing
                t_s = item.t_s
            elif isinstance(item, EpochChanged):
                epoch, n_missing = item, 0
            else:
                link, epoch, n_missing = item, None, 0
        gap = Gap(t_s, n_missing) if n_missing else None
        for event in (gap, epoch, link):
            if event is not None:
                self._items.appendleft(event)
                self._n_events += 1
