"""A service under test on a simulated board: its settings, its samples, what it says of itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.boot import payload

PORT = "/dev/edge-gru-test"
SETTINGS = f"""store = "/var/lib/edge-gru/bundles"
port = "{PORT}"
wait_for_port = true
outputs = ["/var/lib/edge-gru/predictions.jsonl"]
"""
HEALTH = "run/edge-gru/health.json"
_SLOW_S = 300.0  # of an emulated machine on a crowded host
_LOOK_S = 0.5


class ServiceError(RuntimeError):
    """The service does not come to do what is waited for."""


def recording() -> str:
    """Write samples of the model's channels as a table."""
    rows = np.random.default_rng(0).normal(size=(200, len(payload.CHANNELS)))
    lines = [",".join(f"{value:.4f}" for value in row) for row in rows]
    return "\n".join([",".join(payload.CHANNELS), *lines]) + "\n"


def simulation(table: str) -> list[str]:
    """The words after `edge-gru` that play such a table as a board for ever."""
    return ["simulate", table, "--loop", "--rate", str(payload.RATE_HZ), "--link", PORT]


class Service:
    """What a service says of itself.

    Args:
        read: returns the text of its health file, empty where there is none.
        log: returns what it printed, for who asks why it does not do what it should.
    """

    def __init__(self, read: Callable[[], str], log: Callable[[], str]) -> None:
        self._read = read
        self._log = log

    def health(self) -> dict[str, Any]:
        """What its health file says; empty: nothing yet."""
        return json.loads(self._read() or "{}")

    def until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until it predicts and something holds of its health; return that."""
        deadline_s = time.monotonic() + _SLOW_S
        while True:
            found = self.health()
            if found.get("state") == "predicting" and is_so(found):
                return found
            if time.monotonic() > deadline_s:
                raise ServiceError(f"{found}\n{self._log()[-2000:]}")
            time.sleep(_LOOK_S)

    def until_serving(self, version: int) -> int:
        """Wait until it predicts with a version of the model; return how often it has predicted."""
        found = self.until(lambda found: found["bundle"]["version"] == version)
        n_before, model = found["summary"]["n_predictions"], found["model_hash"]
        more = self.until(
            lambda found: (
                found["model_hash"] != model or found["summary"]["n_predictions"] > n_before
            )
        )
        if more["bundle"]["version"] != version:
            raise ServiceError(f"version {version} did not go on serving: {more}")
        return more["summary"]["n_predictions"]
