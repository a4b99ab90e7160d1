"""The way back to the board: what the model says, which alerts are active, what is asked of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from firmware_bridge.formats.requests import PendingRequest, Requester
from firmware_bridge.formats.session import LinkStatistics
from firmware_bridge.protocol.messages import (
    Ack,
    Alarm,
    Status,
    encode_message,
    max_outputs,
)

_log = logging.getLogger(__name__)

_ALARM_S = 1.0
_MAX_UART_LOAD = 0.5  # the rest is for pings and requests


class BackChannel:
    """Takes from any thread, without ever blocking it, what the reading thread then writes.

    One prediction waits at most: a newer one takes its place, and the older is counted as unsent.
    Alarms are a level, said at every change and every second.
    """

    def __init__(self, counts: LinkStatistics, requester: Requester) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.status: Status | None = None  # the board's last one
        self._counts = counts
        self._requester = requester
        self._lock = threading.Lock()
        self._is_awake = False
        self._is_open = False
        self._paced_baud: int | None = None
        self._prediction = b""
        self._prediction_due_s = 0.0
        self._alarms: int | None = None
        self._alarm_due_s = 0.0
        self._n_max_outputs = 0
        self._has_warned = False

    # For any thread

    @property
    def alarms(self) -> int:
        """The alarms last set; 0: none ever."""
        return self._alarms or 0

    def put_prediction(self, frame: bytes) -> bool:
        """Send this frame when the line takes it; False: there is no stream that it could be of."""
        with self._lock:
            is_open = self._is_open
            self._counts.unsent_predictions += bool(self._prediction) or not is_open
            if is_open:
                self._prediction = frame
        self._wake_once()
        return is_open

    def n_outputs(self, n_wanted: int) -> int:
        """Return how many of the outputs the board has room for."""
        if n_wanted > self._n_max_outputs and self._is_open and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the board takes %d of the model's %d outputs; build its firmware with a larger "
                "EDGE_LINK_RX_BODY_BYTES to have them all",
                self._n_max_outputs,
                n_wanted,
            )
        return min(n_wanted, self._n_max_outputs)

    def set_alarms(self, alarms: int) -> None:
        """Tell the board from now on that these alerts are active."""
        with self._lock:
            if alarms == self._alarms:
                return
            self._alarms = alarms
            self._alarm_due_s = 0.0
        self._wake_once()

    def ask(self, pending: PendingRequest) -> None:
        """Ask this of the board once it streams."""
        self._requester.add(pending)
        self._wake_once()

    def _wake_once(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self.wake()

    # For the thread that reads

    def open(self, paced_baud: int | None, n_max_body_bytes: int) -> None:
        """Begin: the board is known and streams."""
        with self._lock:
            self._n_max_outputs = max_outputs(n_max_body_bytes)
            self._is_open = True
            self._paced_baud = paced_baud
            self._prediction_due_s = self._alarm_due_s = 0.0

    def close(self, reason: str) -> None:
        """End: who waits for an answer waits in vain."""
        with self._lock:
            self._is_open = False
            self._counts.unsent_predictions += bool(self._prediction)
            self._prediction = b""
        self._requester.give_up(reason)

    @property
    def due_s(self) -> float:
        """When `take` has something to do."""
        if not self._is_open:
            return float("inf")
        alarm_s = float("inf") if self._alarms is None else self._alarm_due_s
        prediction_s = self._prediction_due_s if self._prediction else float("inf")
        return min(alarm_s, prediction_s, self._requester.due_s)

    def take(self, now_s: float) -> bytes:
        """Return the frames that are due."""
        self._is_awake = False
        if now_s < self.due_s:
            return b""
        frames = self._take_levels(now_s)
        request = self._requester.ask(now_s)
        return frames if request is None else frames + encode_message(request)

    def _take_levels(self, now_s: float) -> bytes:
        frames = b""
        with self._lock:
            if self._prediction and now_s >= self._prediction_due_s:
                frames = self._prediction
                self._prediction_due_s = now_s + self._line_s(len(self._prediction))
                self._prediction = b""
            if self._alarms is not None and now_s >= self._alarm_due_s:
                self._alarm_due_s = now_s + _ALARM_S
                frames += encode_message(Alarm(self._alarms))  # after a prediction from before it
        return frames

    def _line_s(self, n_bytes: int) -> float:
        """Return how long a UART may be kept from the next prediction by one of ``n_bytes``."""
        return 0.0 if self._paced_baud is None else 10 * n_bytes / _MAX_UART_LOAD / self._paced_baud

    def take_status(self, status: Status) -> None:
        """Keep the board's own counters."""
        self.status = status
        self._counts.board_dropped_samples = status.n_dropped
        self._counts.board_missed_samples = status.n_missed

    def take_ack(self, ack: Ack) -> PendingRequest | None:
        """Return the request that was granted, for the session to act upon and finish."""
        return self._requester.take(ack)


@runtime_checkable
class HasBackChannel(Protocol):
    """A session of a format that boards can be told something in."""

    back_channel: BackChannel
