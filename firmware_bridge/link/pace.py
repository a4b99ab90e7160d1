"""How long the reader may let bytes gather: not at all, unless samples come in thousands."""

from __future__ import annotations

from firmware_bridge.formats.session import FULL_CHUNK_BYTES

_WINDOW_S = 0.1
_FAST_HZ = 3000.0  # below, samples are further apart than a wake-up takes
_PAUSE_S = 0.004


class Pace:
    """Watches how many samples come, and says how long to wait before the next read.

    A wake-up costs as much as some forty samples, so a fast line is read every 4 ms; a slow one is
    read at once, and so is one with more waiting.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._n_samples = 0
        self._is_fast = False

    def pause_s(self, now_s: float, n_samples: int, n_bytes: int) -> float:
        """Return the seconds to wait after a read of ``n_bytes`` with ``n_samples`` in them."""
        self._n_samples += n_samples
        elapsed_s = now_s - self._since_s
        if elapsed_s >= _WINDOW_S:
            self._is_fast = self._n_samples > _FAST_HZ * elapsed_s
            self._since_s, self._n_samples = now_s, 0
        return _PAUSE_S if self._is_fast and n_bytes < FULL_CHUNK_BYTES else 0.0
