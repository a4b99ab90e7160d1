"""What the gate says: its checks, its verdict, and the figures that they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from edge_gru.manifest import GateResult
from quantization.stuck import StuckTest, TimeConstants

Verdict: TypeAlias = Literal["pass", "warn", "fail", "info"]


class Check(msgspec.Struct, frozen=True):
    """One row of the gate: what was found, what is needed, and why that is the verdict."""

    name: str
    verdict: Verdict
    found: str
    needs: str
    reason: str


class TaskScore(msgspec.Struct, frozen=True, kw_only=True):
    """The task metric of both twins, and how much worse the candidate is, relative to fp32."""

    metric: str
    fp32: float
    candidate: float
    worsening: float
    tolerance: float
    n_sequences: int


class StreamShape(msgspec.Struct, frozen=True, kw_only=True):
    """What was streamed; ``data_sha256`` is of the judged sequences, in order."""

    n_streams: int
    n_steps: int
    seed: int
    has_holds: bool
    resets: bool
    n_sequences: int
    n_data_steps: int
    data_sha256: str


class Unit(msgspec.Struct, frozen=True):
    """A unit of a state: its SQNR along the stream and its time constant in steps."""

    name: str
    sqnr_db: float
    tau_steps: float


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says, and everything that it rests on."""

    precision: str
    checks: list[Check]
    task: TaskScore | None
    control_sqnr_db: float | None
    stuck: StuckTest
    time_constants: TimeConstants
    one_step_error_std: float
    worst_units: list[Unit]
    share_beyond_grid: list[float] | None
    stream: StreamShape

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """The worst of the checks."""
        found = {check.verdict for check in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    @property
    def result(self) -> GateResult:
        """What the manifest says of it."""
        sentences = tuple(
            f"{c.name}: {c.reason}" for c in self.checks if c.verdict in ("warn", "fail")
        )
        return GateResult(self.verdict, sentences)

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == "fail"]


def refusal(judgement: Judgement, recipe: str, alternatives: Sequence[str]) -> str:
    """Say which checks failed and what to do."""
    reasons = "; ".join(f"{check.name}: {check.reason}" for check in judgement.failures)
    others = ", ".join(alternatives) or "fp32"
    return (
        f"recipe {recipe} does not pass the gate: {reasons}. Use another recipe ({others}), or "
        "insist with accept_failure=True (--accept-failure), and the bundle will say so"
    )
