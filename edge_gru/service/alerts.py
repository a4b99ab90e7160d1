"""Thresholds on outputs that do not flap: above ``enter`` for a while, until below ``exit``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_gru.errors import ConfigError
from edge_gru.manifest import Alert

_PREFIX = "y."


@dataclass(frozen=True)
class AlertChange:
    """An alert fired, or cleared, on ``value``."""

    alert: Alert
    active: bool
    value: float


class AlertRule:
    """Follows one output; every duration is counted in the time of the samples.

    An output that is not a number, or whose model still warms up, decides nothing: an active alert
    stays active, and a pending one starts to count anew.

    Raises:
        ConfigError: the output does not exist, or the thresholds are in the wrong order.
    """

    def __init__(self, alert: Alert, outputs: Sequence[str]) -> None:
        output = alert.on.removeprefix(_PREFIX)
        if output not in outputs:
            raise ConfigError(
                f"alert {alert.name!r}: expected an output of {', '.join(outputs)}, "
                f"got {alert.on!r}"
            )
        if not alert.exit <= alert.enter or not alert.for_s >= 0:
            raise ConfigError(
                f"alert {alert.name!r}: expected exit <= enter and for_s >= 0, got "
                f"exit {alert.exit}, enter {alert.enter}, for_s {alert.for_s}"
            )
        self.alert = alert
        self.is_active = False
        self._index = outputs.index(output)
        self._above_since_s: float | None = None

    def update(
        self, t_s: float, values: Sequence[float], *, is_warming_up: bool
    ) -> AlertChange | None:
        """Take the outputs at sample time ``t_s``; return what changed, if anything did."""
        value = values[self._index]
        if is_warming_up:
            self._above_since_s = None
            return None
        if self.is_active:
            if value < self.alert.exit:
                return self._change(value, active=False)
            return None
        if not value > self.alert.enter:
            self._above_since_s = None
            return None
        if self._above_since_s is None or t_s < self._above_since_s:
            self._above_since_s = t_s
        if t_s - self._above_since_s >= self.alert.for_s:
            return self._change(value, active=True)
        return None

    def _change(self, value: float, *, active: bool) -> AlertChange:
        self.is_active = active
        self._above_since_s = None
        return AlertChange(self.alert, active, value)
