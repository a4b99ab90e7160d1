"""Whether a new bundle does well: what it answers, how fast, and whether it answers at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

N_CONSTANT = 500
_N_MEASURED = 100  # predictions behind a p99 that says something
_MAX_STEP_S = 5.0  # between two looks: more is time in which nobody looked


@dataclass(frozen=True)
class TrialLimits:
    """What a bundle on trial must keep to.

    ``n_constant`` predictions that are all the same, of samples that are not, show a model that is
    stuck (None: this one may answer so); ``silence_s`` seconds of samples without a prediction, one
    that does not keep up or hangs; ``p99_us`` None: any latency will do.
    """

    n_constant: int | None = N_CONSTANT
    silence_s: float = 10.0
    p99_us: float | None = None


class TrialJudge:
    """Follows one bundle on trial; ``fault`` says why it must go, once there is a reason.

    ``served_s`` counts the seconds in which it predicted, ``take_served`` hands them out once.
    """

    def __init__(self, limits: TrialLimits) -> None:
        self.fault: str | None = None
        self.served_s = 0.0
        self._limits = limits
        self._first: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        self._n_same = 0
        self._has_input_moved = False
        self._before: tuple[float, int, int] | None = None
        self._silent_s = 0.0

    def observe(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Take one prediction ``y`` (n_out,) of the sample ``x`` (n_in,)."""
        if self.fault is not None:
            return
        n_constant = self._limits.n_constant
        if not all(map(math.isfinite, y)):
            self.fault = "its output is not finite"
            return
        if n_constant is None:
            return
        here = (tuple(x), tuple(y))
        if self._first is None or self._first[1] != here[1]:
            self._first, self._n_same, self._has_input_moved = here, 0, False
        self._n_same += 1
        self._has_input_moved |= self._first[0] != here[0]
        if self._n_same >= n_constant and self._has_input_moved:
            self.fault = f"its output is the same in {self._n_same} predictions"

    def look(self, now_s: float, *, n_arrived: int, n_answered: int, p99_us: float) -> None:
        """Compare the counters with those of the last look.

        ``n_arrived`` samples came in until now, those that were dropped too; ``n_answered`` of
        them were predicted from or were no numbers.
        """
        before, self._before = self._before, (now_s, n_arrived, n_answered)
        limit_us = self._limits.p99_us
        if limit_us is not None and p99_us > limit_us and n_answered >= _N_MEASURED:
            self.fault = f"its p99 is {p99_us:.0f} us, over the limit of {limit_us:.0f} us"
        if before is None:
            return
        elapsed_s = min(now_s - before[0], _MAX_STEP_S)
        if n_answered > before[2]:
            self.served_s += elapsed_s
            self._silent_s = 0.0
        elif n_arrived > before[1]:
            self._silent_s += elapsed_s
        if self._silent_s >= self._limits.silence_s:
            self.fault = f"samples came for {self._silent_s:.0f} s and it answered none"

    def take_served(self) -> float:
        """Hand out the seconds of good service since the last time."""
        served_s, self.served_s = self.served_s, 0.0
        return served_s
