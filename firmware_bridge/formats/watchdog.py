"""Notices that a framed line is wrong for too long, and finds the sentence that says how."""

from __future__ import annotations

from firmware_bridge.formats.session import NO_FRAME_S, SILENCE_S, LinkStatistics, n_bytes_text

_FOREIGN_EPOCH_S = 1.0


class Watchdog:
    """Keeps the moments at which frames and samples came last."""

    def __init__(self, counts: LinkStatistics) -> None:
        self._counts = counts
        self.connected(0.0)

    def connected(self, now_s: float) -> None:
        """Begin on a port just opened."""
        self.note_frame(now_s)
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """Begin a handshake."""
        self._was_welcomed = False
        self.note_samples(now_s)

    def note_frame(self, now_s: float) -> None:
        """Note that something came that was sent."""
        self._frame_s = now_s
        self._bytes_at_frame = self._counts.bytes_read

    def note_welcome(self) -> None:
        """Note that the board answers."""
        self._was_welcomed = True

    def note_samples(self, now_s: float) -> None:
        """Note that samples of our stream came, or may from now on."""
        self._sample_s = now_s
        self._foreign_since_s: float | None = None

    def note_foreign(self, now_s: float) -> None:
        """Note that samples of another stream came."""
        if self._foreign_since_s is None:
            self._foreign_since_s = now_s

    def is_foreign(self, now_s: float) -> bool:
        """Tell whether another stream than ours has been coming for long."""
        since_s = self._foreign_since_s
        return since_s is not None and now_s - since_s >= _FOREIGN_EPOCH_S

    def of_line(self, now_s: float, *, is_up: bool) -> str | None:
        """Return what is wrong with the line, if anything is."""
        quiet_s = now_s - self._frame_s
        n_bytes = self._counts.bytes_read - self._bytes_at_frame
        if n_bytes and quiet_s >= (SILENCE_S if is_up else NO_FRAME_S):
            return f"{n_bytes_text(n_bytes)} and no valid frame: wrong baud rate or format?"
        if quiet_s >= SILENCE_S:
            return f"no valid frame for {quiet_s:.0f} s: is the board alive?"
        return None

    def of_handshake(self, now_s: float) -> str | None:
        """Return what keeps a handshake from its end, if it takes too long."""
        if now_s - self._sample_s < SILENCE_S:
            return None
        if self._was_welcomed:
            return "the board answers but does not finish the handshake"
        return "the board sends but does not answer: does it receive?"

    def of_stream(self, now_s: float, period_us: int) -> str | None:
        """Return what is wrong with a stream that should have a sample every ``period_us``."""
        if now_s - self._sample_s < max(SILENCE_S, 3e-6 * period_us):
            return None
        return "the board answers but sends no samples"
