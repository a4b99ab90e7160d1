"""The store on a device: a folder of bundles in which one rename decides what serves.

Layout below the root: ``state.json`` is the truth and replaced whole; ``current`` and ``previous``
are links made after it, for people and other tools; ``<name>-<version>-<hash8>/`` holds a bundle
and its signature as they came. Whatever instant the power goes, a start finds a whole bundle.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_gru import bundle as bundles
from edge_gru.errors import BundleError, StoreError
from edge_gru.store.admission import SignedBundle, check_admission
from edge_gru.store.disk import Disk, explain
from edge_gru.store.layout import BUNDLE, LEDGER
from edge_gru.store.ledger import Entry, Ledger, Trial, TrialPlan
from edge_gru.store.shelf import Shelf

_log = logging.getLogger(__name__)

_RETRY_S = 0.05


@dataclass(frozen=True)
class Candidate:
    """A bundle that is to serve, and how far its trial is, if it is on one."""

    folder: str
    entry: Entry
    path: Path
    trial: Trial | None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.entry.name} version {self.entry.version}"


class Store:
    """Changes the store by one process at a time; reading needs no lock.

    Waits up to ``patience_s`` for another process that changes it. ``disk`` is for tests.
    """

    def __init__(self, root: Path, *, patience_s: float = 10.0, disk: Disk | None = None) -> None:
        self.root = root
        self._patience_s = patience_s
        self._shelf = Shelf(disk or Disk(root))

    def read(self) -> Ledger:
        """Read what the store knows; where that is lost, find it again from what lies there.

        Raises:
            StoreError: there is no store.
        """
        return self._shelf.read()[0]

    def current(self) -> Candidate:
        """Tell which bundle is to serve, without counting a start.

        Raises:
            StoreError: there is no store, or nothing in it.
        """
        return self._candidate(self.read())

    def begin(self) -> Candidate:
        """Count a start of the current bundle, and tell which bundle that is to be.

        A bundle on trial that has no start left is rolled back. Where nothing can be written, a
        start cannot be counted, and the bundle from before the trial serves.

        Raises:
            StoreError: there is no store, or nothing in it.
        """
        try:
            ledger = self._update(Ledger.started)
        except StoreError as error:
            ledger = self.read()
            if ledger.trial is not None:
                _log.warning("no trial of %s now: %s", ledger.current, error)
                ledger = ledger.rolled_back("its start could not be counted")
        return self._candidate(ledger)

    def install(
        self, signed: SignedBundle, plan: TrialPlan | None = None, *, is_forced: bool = False
    ) -> tuple[Candidate, bool]:
        """Copy a bundle into the store and make it the current one; False: it already was.

        ``is_forced`` takes one that failed here, is older, or is another model.

        Raises:
            StoreError: it is not to be taken, or there is no space; what served goes on to.
        """
        entry = signed.entry
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, self.root) from error
        with self._changing():
            ledger = self._tidied()
            serving = ledger.entry(ledger.current)
            if serving is not None and serving.sha256 == entry.sha256 and ledger.current:
                self._shelf.mend(ledger.current, signed)
                return self._candidate(ledger), False
            if not is_forced:
                check_admission(ledger, entry)
            folder = self._shelf.add(ledger, signed)
            ledger = ledger.activated(folder, entry, plan or TrialPlan())
            self._shelf.commit(ledger)
        return self._candidate(ledger), True

    def rollback(self, reason: str) -> Candidate:
        """Make the previous bundle the current one again; the current one is not tried again.

        Raises:
            StoreError: there is none to go back to, or the store cannot be written.
        """
        return self._candidate(self._update(lambda ledger: ledger.rolled_back(reason)))

    def confirm(self) -> Candidate:
        """End the trial of the current bundle: it stays.

        Raises:
            StoreError: there is none, or the store cannot be written.
        """
        return self._candidate(self._update(Ledger.confirmed))

    def before(self, folder: str) -> Candidate | None:
        """Tell what would serve if a bundle were given up; None: there is no other.

        Raises:
            StoreError: there is no store.
        """
        ledger = self.read()
        if ledger.current != folder or ledger.previous is None:
            return None
        return self._candidate(ledger.rolled_back(""))

    def retreat(self, folder: str, reason: str) -> Candidate | None:
        """Give up a bundle that cannot serve and tell which one is to; None: there is no other.

        Where nothing can be written, the other one serves nevertheless.

        Raises:
            StoreError: there is no store.
        """
        ledger = self.read()
        if ledger.current != folder:  # somebody else has decided meanwhile
            return self._candidate(ledger)
        if ledger.previous is None:
            return None
        try:
            ledger = self._update(lambda found: _if_current(found, folder, reason))
        except StoreError as error:
            _log.warning("%s is not marked as failed: %s", folder, error)
            ledger = ledger.rolled_back(reason)
        return self._candidate(ledger)

    def note_served(self, folder: str, duration_s: float) -> Ledger:
        """Add seconds of good service to the trial of a bundle, if it is the current one.

        Raises:
            StoreError: the store cannot be written.
        """
        return self._update(
            lambda ledger: ledger.served(duration_s) if ledger.current == folder else ledger
        )

    def note_stopped(self, folder: str) -> Ledger:
        """Give a start back to a bundle that was told to stop, if it is the current one.

        Raises:
            StoreError: the store cannot be written.
        """
        return self._update(lambda ledger: ledger.stopped() if ledger.current == folder else ledger)

    def stamp(self) -> tuple[int, int, int] | None:
        """Give something that differs when the store changed; None: it cannot be told."""
        try:
            status = (self.root / LEDGER).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _candidate(self, ledger: Ledger) -> Candidate:
        entry = ledger.entry(ledger.current)
        if entry is None or ledger.current is None:
            raise StoreError(
                f"expected a bundle in {self.root}, found none; `edge-gru bundle install FILE`"
            )
        return Candidate(ledger.current, entry, self.root / ledger.current / BUNDLE, ledger.trial)

    def _update(self, change: Callable[[Ledger], Ledger]) -> Ledger:
        with self._changing():
            before = self._tidied()
            after = change(before)
            if after != before:
                self._shelf.commit(after)
        return after

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock; what the system refuses becomes a sentence."""
        try:
            handle = self._lock()
            try:
                yield
            finally:
                os.close(handle)
        except OSError as error:
            raise explain(error, self.root) from error

    def _lock(self) -> int:
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                return self._shelf.lock()
            except BlockingIOError as error:
                if time.monotonic() >= deadline_s:
                    raise StoreError(
                        f"another edge-gru changes the store {self.root}; try again"
                    ) from error
            time.sleep(_RETRY_S)

    def _tidied(self) -> Ledger:
        """Read the ledger and finish whatever a power cut left half done."""
        ledger, is_written = self._shelf.read()
        if is_written:
            self._shelf.follow(ledger)
        else:
            self._shelf.commit(ledger)
        return ledger


def _if_current(ledger: Ledger, folder: str, reason: str) -> Ledger:
    return ledger.rolled_back(reason) if ledger.current == folder else ledger


def whole(candidate: Candidate) -> bundles.Bundle:
    """Read the bundle of a candidate and make sure that it is the one that was accepted.

    Raises:
        BundleError: the disk has lost or changed it.
    """
    bundle = bundles.load(candidate.path)
    if bundle.hash != candidate.entry.model_hash:
        raise BundleError(
            f"{candidate.path} is not the bundle that was installed there; install it again"
        )
    return bundle
