"""How long the reader may let bytes gather: not at all, unless samples come in thousands."""

from __future__ import annotations

from firmware_bridge.formats.session import FULL_CHUNK_BYTES

_WINDOW_S = 0.1
_FAST_HZ = 3000.0  # below, samples are further apart than a wake-up takes
_MAX_PAUSE_S = 0.008
_PORTION_BYTES = 3600  # what gathers should fit one read, with room for unevenness


class Pace:
    """Watches how much comes, and says how long to wait before the next read.

    A wake-up from sleep, caches cold, costs as much as some hundred samples, so a fast line is read
    every 8 ms, or as often as one read can take it all; a slow one is read at once, and so is one
    with more waiting.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._n_samples = self._n_bytes = 0
        self._pause_s = 0.0

    def pause_s(self, now_s: float, n_samples: int, n_bytes: int) -> float:
        """Return the seconds to wait after a read of ``n_bytes`` with ``n_samples`` in them."""
        self._n_samples += n_samples
        self._n_bytes += n_bytes
        elapsed_s = now_s - self._since_s
        if elapsed_s >= _WINDOW_S:
            self._pause_s = 0.0
            if self._n_samples > _FAST_HZ * elapsed_s:
                self._pause_s = min(_MAX_PAUSE_S, _PORTION_BYTES * elapsed_s / self._n_bytes)
            self._since_s, self._n_samples, self._n_bytes = now_s, 0, 0
        return self._pause_s if n_bytes < FULL_CHUNK_BYTES else 0.0
