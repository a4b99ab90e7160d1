"""Pings: often at first, then every second, each answered once."""

from __future__ import annotations

import secrets

from firmware_bridge.formats.session import TickClock
from firmware_bridge.protocol.messages import Ping, Pong, encode_message

_N_FAST = 8
_FAST_S = 0.05
_SLOW_S = 1.0
_MAX_OPEN = 16


class Pinger:
    """Asks the board for its time when due at ``due_s``, and tells the clock the answers."""

    def __init__(self, clock: TickClock) -> None:
        self._clock = clock
        self._sent_s: dict[int, float] = {}
        self._token = secrets.randbits(62)  # no answer to an earlier host may look like ours
        self._n_fast_left = 0
        self.due_s = float("inf")

    def begin(self, now_s: float) -> None:
        """Ask often, from now on."""
        self._sent_s.clear()
        self._n_fast_left = _N_FAST
        self.due_s = now_s

    def pause(self) -> None:
        """Ask no more."""
        self.due_s = float("inf")

    def ask(self, now_s: float) -> bytes:
        """Return the frame of a ping."""
        self.due_s = now_s + (_FAST_S if self._n_fast_left else _SLOW_S)
        self._n_fast_left = max(0, self._n_fast_left - 1)
        if len(self._sent_s) >= _MAX_OPEN:
            self._sent_s.clear()
        self._token += 1
        self._sent_s[self._token] = now_s
        return encode_message(Ping(self._token), seq=self._token)

    def take(self, pong: Pong, answered_us: int, now_s: float) -> None:
        """Learn from an answer; one to somebody else's ping is ignored."""
        sent_s = self._sent_s.pop(pong.token, None)
        if sent_s is not None:
            self._clock.note_pong(sent_s, pong.arrived_us, answered_us, now_s)
