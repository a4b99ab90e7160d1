"""The way back to the sensor board: predictions and alerts, for its firmware to act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from edge_gru.service.events import AlertEvent, Event, ModelEvent, PredictionEvent


@runtime_checkable
class WayBack(Protocol):
    """What a sink for the board needs of a link."""

    def send_prediction(
        self, seq: int, values: Sequence[float], *, is_warming_up: bool = False
    ) -> bool:
        """Say what the model says of sample ``seq``, without waiting."""

    def set_alarms(self, alarms: int) -> None:
        """Say which alerts are active, bit i for alert i, without waiting."""


class BoardSink:
    """Sends each prediction as far as the line takes them, and keeps the board's alarms right.

    Bit i of the alarms is alert i of the model. A prediction that a newer one overtakes is no loss
    of an event: the link counts it.
    """

    def __init__(self, link: WayBack, alerts: Sequence[str]) -> None:
        self.n_dropped = 0
        self._link = link
        self._bits = {name: 1 << index for index, name in enumerate(alerts)}
        self._alarms = 0

    def write(self, event: Event) -> None:
        """Send what the event says, if it is one for the board."""
        if isinstance(event, PredictionEvent):
            values = list(event.y.values())
            self._link.send_prediction(event.sample_seq, values, is_warming_up=event.warming_up)
        elif isinstance(event, AlertEvent):
            bit = self._bits[event.name]
            self._alarms = self._alarms | bit if event.active else self._alarms & ~bit
            self._link.set_alarms(self._alarms)
        elif isinstance(event, ModelEvent):
            self._link.set_alarms(0)  # whatever an earlier run left lit

    def flush(self) -> bool:
        """Do nothing; all went out at once."""
        return True

    def close(self) -> None:
        """Do nothing; the link is not this sink's."""
