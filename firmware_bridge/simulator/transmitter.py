"""The board's way out: a ring of limited size, and a line that may be slow or bad."""

from __future__ import annotations

import time
from collections.abc import Callable

from firmware_bridge.simulator.line import Effect
from firmware_bridge.simulator.pseudo_port import PseudoPort

_RING_BYTES = 16384  # what waits on the board for a host that reads too slowly


class Transmitter:
    """Holds what the port does not take yet; a frame that finds no room is dropped whole.

    ``sample_effects`` spoil frames or lines of samples, ``line_effects`` everything that is sent.
    ``bytes_per_s`` limits the line, ``ring_bytes`` what may wait.
    """

    def __init__(self, port: PseudoPort, clock: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        self._clock = clock
        self._ring = bytearray()
        self.sample_effects: list[Effect] = []
        self.line_effects: list[Effect] = []
        self.ring_bytes = _RING_BYTES
        self.bytes_per_s = float("inf")
        self._allowed_at_s = 0.0

    def __bool__(self) -> bool:
        """Tell whether anything waits."""
        return bool(self._ring)

    @property
    def wait_s(self) -> float:
        """Seconds until the line takes more; 0 where only the port can say."""
        return max(0.0, self._allowed_at_s - self._clock()) if self._ring else 0.0

    def restart(self, wire: bytes) -> None:
        """Cut off what waits, wherever it is, and go on with ``wire``."""
        self._ring.clear()
        self.send(wire)

    def send(self, wire: bytes) -> None:
        """Send what is no sample."""
        if wire:
            for effect in self.line_effects:
                wire = effect(wire)
            self._ring += wire

    def send_sample(self, frame: bytes) -> bool:
        """Send a frame; False if it found no room."""
        if len(self._ring) + len(frame) > self.ring_bytes:
            self.write()  # after a stall of the host's machine a turn is longer than the ring
        if not self._port.has_host or len(self._ring) + len(frame) > self.ring_bytes:
            return not frame
        for effect in self.sample_effects:
            frame = effect(frame)
        self.send(frame)
        return True

    def write(self) -> None:
        """Give the port what it and the line's speed take."""
        if not self._ring or not self._port.has_host:
            return
        if self.bytes_per_s == float("inf"):
            del self._ring[: self._port.write(self._ring)]
            return
        now_s = self._clock()
        if now_s >= self._allowed_at_s:
            n_most = max(1, int(0.01 * self.bytes_per_s))
            n_bytes = self._port.write(self._ring[:n_most])
            del self._ring[:n_bytes]
            self._allowed_at_s = max(self._allowed_at_s, now_s - 0.01) + n_bytes / self.bytes_per_s
