"""What the store knows, as one value: which bundle serves, which did before, which failed and why.

Every change is a new value; the store writes it in one step. Nothing here touches a disk. Fields
that a later release has added are passed over: after its package was rolled back this one reads on.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from edge_gru.errors import StoreError

FORMAT = 1
_N_FAILED_KEPT = 64

Status: TypeAlias = Literal["trial", "committed", "failed"]
_Count = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0)]


class TrialPlan(msgspec.Struct, frozen=True):
    """How long a new bundle must serve well, and how often it may be started until then.

    With 0 seconds it is trusted at once.
    """

    duration_s: _Seconds = 600.0
    n_starts: Annotated[int, Meta(ge=1)] = 5


class Trial(msgspec.Struct, frozen=True):
    """How far the trial of the current bundle is; it ends when ``served_s`` is ``duration_s``."""

    duration_s: _Seconds
    starts_left: _Count
    n_starts: _Count
    served_s: _Seconds = 0.0


class Entry(msgspec.Struct, frozen=True):
    """One bundle that was accepted: what it is, who signed it, and what became of it."""

    name: str
    version: int
    model_hash: str
    sha256: str  # of the file
    key: str  # that signed it, by name
    boards: tuple[str, ...]
    signed_at_s: int
    continues: tuple[str, ...]
    status: Status
    reason: str = ""  # why it failed


class Ledger(msgspec.Struct, frozen=True):
    """The whole state of a store; ``entries`` by the names of their folders."""

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    highest: dict[str, int] = {}  # newest version of each name that was ever accepted
    entries: dict[str, Entry] = {}
    format: int = FORMAT

    def entry(self, folder: str | None) -> Entry | None:
        """Look up a bundle."""
        return None if folder is None else self.entries.get(folder)

    @property
    def kept(self) -> set[str]:
        """The folders that may be needed: to serve, and to go back to."""
        return {folder for folder in (self.current, self.previous) if folder is not None}

    def activated(self, folder: str, entry: Entry, plan: TrialPlan) -> Ledger:
        """Make a bundle the current one, on trial if there is one to go back to.

        The one to go back to is always one that was committed.
        """
        serving = self.entry(self.current)
        is_proven = serving is not None and serving.status == "committed"
        earlier = self.current if is_proven else self.previous
        if earlier == folder:  # back to where the trial began
            earlier = None
        is_trial = earlier is not None and plan.duration_s > 0
        entries = dict(self.entries)
        if serving is not None and not is_proven and self.current not in (None, folder):
            entries[self.current] = replace(
                serving, status="failed", reason=f"version {entry.version} took its place"
            )
        entries.pop(folder, None)  # the newest stands last
        entries[folder] = replace(entry, status="trial" if is_trial else "committed", reason="")
        return replace(
            self,
            current=folder,
            previous=earlier,
            trial=Trial(plan.duration_s, plan.n_starts, plan.n_starts) if is_trial else None,
            highest={
                **self.highest,
                entry.name: max(entry.version, self.highest.get(entry.name, 0)),
            },
            entries=_without_old_failures(entries, {folder, earlier}),
        )

    def rolled_back(self, reason: str) -> Ledger:
        """Make the previous bundle the current one; the current one failed for ``reason``.

        Raises:
            StoreError: there is none to go back to.
        """
        failed = self.entry(self.current)
        if self.previous is None or self.current is None or failed is None:
            raise StoreError(
                "expected an earlier bundle to go back to, the store has none; install another"
            )
        entries = {**self.entries, self.current: replace(failed, status="failed", reason=reason)}
        return replace(self, current=self.previous, previous=None, trial=None, entries=entries)

    def confirmed(self) -> Ledger:
        """End the trial of the current bundle: it stays."""
        serving = self.entry(self.current)
        if serving is None or self.current is None:
            raise StoreError("expected a bundle to confirm, the store has none; install one")
        entries = {**self.entries, self.current: replace(serving, status="committed")}
        return replace(self, trial=None, entries=entries)

    def started(self) -> Ledger:
        """Count a start of the current bundle before it happens; roll back if none is left."""
        trial = self.trial
        if trial is None:
            return self
        if trial.starts_left == 0:
            return self.rolled_back(f"it did not stay up in {trial.n_starts} starts")
        return replace(self, trial=replace(trial, starts_left=trial.starts_left - 1))

    def stopped(self) -> Ledger:
        """Give the start back: the current bundle was stopped, it did not fail."""
        trial = self.trial
        if trial is None:
            return self
        n_left = min(trial.starts_left + 1, trial.n_starts)
        return replace(self, trial=replace(trial, starts_left=n_left))

    def served(self, duration_s: float) -> Ledger:
        """Add seconds of good service; the trial ends when they are enough."""
        trial = self.trial
        if trial is None:
            return self
        served_s = trial.served_s + duration_s
        if served_s >= trial.duration_s:
            return self.confirmed()
        return replace(self, trial=replace(trial, served_s=served_s))


def _without_old_failures(entries: dict[str, Entry], kept: set[str | None]) -> dict[str, Entry]:
    gone = [folder for folder in entries if folder not in kept]
    dropped = set(gone[: max(0, len(gone) - _N_FAILED_KEPT)])
    return {folder: entry for folder, entry in entries.items() if folder not in dropped}


def encode(ledger: Ledger) -> bytes:
    """Write a ledger as JSON."""
    return msgspec.json.format(msgspec.json.encode(ledger), indent=1) + b"\n"


def decode(data: bytes) -> Ledger:
    """Read a ledger.

    Raises:
        StoreError: it is none, of another format, or names bundles that it does not have.
    """
    try:
        ledger = msgspec.json.decode(data, type=Ledger)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"expected the store's state in JSON, got {error}") from error
    if ledger.format != FORMAT:
        raise StoreError(f"expected the store's state in format {FORMAT}, got {ledger.format}")
    if not ledger.kept <= set(ledger.entries):
        raise StoreError("the store's state names bundles that it does not describe")
    if ledger.trial is not None and (ledger.current is None or ledger.previous is None):
        raise StoreError("the store's state has a trial without a bundle to go back to")
    return ledger
