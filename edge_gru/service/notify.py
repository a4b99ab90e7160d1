"""Tell systemd how the service is: ready, stopping, alive, and a sentence for people."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from edge_gru.service.events import EngineEvent, Event, HealthEvent, LinkEvent

_log = logging.getLogger(__name__)


class Notifier:
    """Sends states to the socket of the service manager; without one it does nothing.

    ``alive`` feeds the watchdog. It is for the loop to call: a timer would vouch for a dead loop.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """Use the socket that systemd names in ``NOTIFY_SOCKET``."""
        return cls(environment.get("NOTIFY_SOCKET"))

    def ready(self) -> None:
        """The engine is proven; samples may come."""
        self._send("READY=1")

    def stopping(self) -> None:
        """No more samples are read; the rest is predicted and written."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """A step was made, or a silent interval was counted."""
        self._send("WATCHDOG=1")

    def status(self, sentence: str) -> None:
        """Show a sentence in ``systemctl status``."""
        self._send(f"STATUS={sentence}")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
                channel.sendto(os.fsencode(state), address)
        except OSError as error:
            _log.debug("the service manager did not take %s: %s", state, error)


class StatusSink:
    """Keeps the sentence in ``systemctl status`` up to date."""

    def __init__(self, notifier: Notifier) -> None:
        self.n_dropped = 0
        self._notifier = notifier

    def write(self, event: Event) -> None:
        """Say what a link or health event means."""
        if isinstance(event, EngineEvent):
            self._notifier.status(f"predicting on {event.engine}")
        elif isinstance(event, LinkEvent):
            state = "predicting from" if event.up else "waiting for"
            self._notifier.status(f"{state} {event.port} {event.reason}".rstrip())
        elif isinstance(event, HealthEvent):
            summary = event.summary
            self._notifier.status(
                f"{summary.n_predictions} predictions, {summary.lost_samples} samples lost, "
                f"p99 {summary.latency.p99_us:g} us"
            )

    def flush(self) -> bool:
        """Do nothing; a sentence is sent at once."""
        return True

    def close(self) -> None:
        """Do nothing; nothing is held."""
