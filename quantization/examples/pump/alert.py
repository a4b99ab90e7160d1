"""When the wear of a pump is called: a threshold that must hold for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firmware_bridge.sample import Float32
from firmware_bridge.simulator.pump import PumpScenario


@dataclass(frozen=True)
class AlertRule:
    """Called when the wear is above ``enter`` for ``for_s``; over when it falls below ``exit``."""

    enter: float
    exit: float
    for_s: float


@dataclass(frozen=True)
class Outcome:
    """When wear began (infinite: never) and when it was first called (None: never)."""

    onset_s: float
    called_s: float | None

    @property
    def false_alarm(self) -> bool:
        """Tell whether wear was called before it began."""
        return self.called_s is not None and self.called_s < self.onset_s

    @property
    def missed(self) -> bool:
        """Tell whether a worn bearing was never called."""
        return self.called_s is None and self.onset_s < math.inf

    @property
    def detected(self) -> bool:
        """Tell whether wear was called, and not too early."""
        return self.called_s is not None and self.called_s >= self.onset_s

    @property
    def delay_s(self) -> float:
        """Time from the onset to the call; infinite where there was none."""
        return math.inf if self.called_s is None else self.called_s - self.onset_s


DEFAULT_RULE = AlertRule(enter=0.06, exit=0.03, for_s=1.0)


def first_call_s(wear: npt.NDArray[np.floating], rate_hz: float, rule: AlertRule) -> float | None:
    """Return when the rule first calls ``wear`` ``(n_steps,)``, or None."""
    n_needed = round(rule.for_s * rate_hz) + 1
    n_above = np.concatenate([[0], np.cumsum(wear > rule.enter)])
    if len(n_above) <= n_needed:
        return None
    held = np.flatnonzero(n_above[n_needed:] - n_above[:-n_needed] == n_needed)
    return None if len(held) == 0 else float(held[0] + n_needed - 1) / rate_hz


def judged(
    scenarios: Sequence[PumpScenario], outputs: Sequence[Float32], rule: AlertRule
) -> list[Outcome]:
    """Apply a rule to the streamed wear ``(n_steps, 1)`` of each scenario."""
    return [
        Outcome(scenario.onset_s, first_call_s(y[:, 0], scenario.rate_hz, rule))
        for scenario, y in zip(scenarios, outputs, strict=True)
    ]
