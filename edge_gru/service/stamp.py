"""Whose an event is, its number and when it was: the fields that all events share."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_CLOCK_CHECK_S = 10.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIMEX_BYTES = 512  # struct timex is 208 bytes; all zero asks and changes nothing
_TIME_ERROR = 5


def boot_id() -> str:
    """Name the host's boot; empty where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def is_clock_synced() -> bool:
    """Ask the kernel whether something, such as NTP, keeps the wall clock right."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return False
    state: int = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR


class Stamp:
    """The fields that every event has: whose it is, its number, when it was."""

    def __init__(self, device: str, stream: str, clock: Callable[[], float]) -> None:
        self._whose = {
            "device": device,
            "stream": stream,
            "boot": boot_id(),
            "run": os.urandom(4).hex(),
        }
        self._clock = clock
        self._n_events = 0
        self._wall_minus_mono_s = 0.0
        self._is_synced = False
        self._check_due_s = float("-inf")

    def refresh(self) -> None:
        """Read the wall clock again, which may have been set since."""
        now_s = self._clock()
        self._wall_minus_mono_s = time.time() - now_s
        if now_s >= self._check_due_s:
            self._is_synced = is_clock_synced()
            self._check_due_s = now_s + _CLOCK_CHECK_S

    def at(self, t_s: float) -> dict[str, Any]:
        """Make the fields for the next event, which was at host monotonic second ``t_s``."""
        self._n_events += 1
        return {
            **self._whose,
            "seq": self._n_events - 1,
            "wall": datetime.fromtimestamp(t_s + self._wall_minus_mono_s, timezone.utc),
            "mono_ns": int(t_s * 1e9),
            "clock_synced": self._is_synced,
        }
