"""Any order of updates, starts, verdicts and power cuts: a bundle that is whole serves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from edge_gru.errors import StoreError
from edge_gru.store import SignedBundle, Store, TrialPlan
from edge_gru.store.store import whole

VERSIONS = st.integers(1, 6)
CUTS = st.one_of(st.none(), st.integers(0, 30))


class Updates(RuleBasedStateMachine):
    """Beside the store: which versions failed, and the newest that was ever taken."""

    signed: Callable[[int], SignedBundle]
    faulty_disk: type
    power_cut: type[BaseException]

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp()) / "bundles"
        self.highest = 0
        self.failed: set[int] = set()
        self.proven: set[int] = set()
        Store(self.root).install(self.signed(1))
        self.note()

    def note(self) -> None:
        """Learn from the store what a change, or what was left of it, came to."""
        ledger = Store(self.root).read()
        entries = ledger.entries.values()
        self.highest = max(self.highest, *(entry.version for entry in entries))
        self.failed = {entry.version for entry in entries if entry.status == "failed"}
        self.proven |= {entry.version for entry in entries if entry.status == "committed"}

    def attempt(self, change, cut_at: int | None, kept: float) -> None:
        """Make a change; the power may go at one of its steps."""

        def cut() -> None:
            raise self.power_cut

        disk = self.faulty_disk(self.root, -1 if cut_at is None else cut_at, cut)
        try:
            change(Store(self.root, disk=disk))
        except self.power_cut:
            disk.lose(kept)
        except StoreError:
            pass
        self.note()

    @rule(version=VERSIONS, cut_at=CUTS, kept=st.floats(-1, 1))
    def install(self, version: int, cut_at: int | None, kept: float) -> None:
        serving = Store(self.root).current().entry.version
        is_old = version < self.highest or version in self.failed
        plan = TrialPlan(duration_s=10, n_starts=2)
        self.attempt(lambda store: store.install(self.signed(version), plan), cut_at, kept)
        if is_old and version != serving:
            assert Store(self.root).current().entry.version == serving

    @rule(cut_at=CUTS, kept=st.floats(-1, 1))
    def start(self, cut_at: int | None, kept: float) -> None:
        self.attempt(Store.begin, cut_at, kept)

    @rule(cut_at=CUTS, kept=st.floats(-1, 1))
    def roll_back(self, cut_at: int | None, kept: float) -> None:
        self.attempt(lambda store: store.rollback("no good"), cut_at, kept)

    @rule(seconds=st.floats(0, 10), cut_at=CUTS, kept=st.floats(-1, 1))
    def serve(self, seconds: float, cut_at: int | None, kept: float) -> None:
        self.attempt(lambda store: store.note_served(store.current().folder, seconds), cut_at, kept)

    @rule()
    def stop(self) -> None:
        self.attempt(lambda store: store.note_stopped(store.current().folder), None, 1.0)

    @invariant()
    def a_whole_bundle_serves(self) -> None:
        candidate = Store(self.root).current()
        assert whole(candidate).hash == self.signed(candidate.entry.version).bundle.hash

    @invariant()
    def what_serves_did_not_fail(self) -> None:
        assert Store(self.root).current().entry.version not in self.failed

    @invariant()
    def a_trial_can_go_back_to_a_proven_one(self) -> None:
        ledger = Store(self.root).read()
        earlier = ledger.entry(ledger.previous)
        assert earlier is None or earlier.version in self.proven
        assert ledger.trial is None or earlier is not None

    def teardown(self) -> None:
        shutil.rmtree(self.root.parent)


def test_any_order_of_updates_starts_verdicts_and_power_cuts(signed, faulty_disk, power_cut):
    tools = {"signed": staticmethod(signed), "faulty_disk": faulty_disk, "power_cut": power_cut}
    run_state_machine_as_test(
        type("Updates", (Updates,), tools),
        settings=settings(
            max_examples=20,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
