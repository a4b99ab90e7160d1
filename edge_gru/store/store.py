"""The store on a device: a folder of bundles in which one rename decides what serves.

Layout below the root: ``state.json`` is the truth and replaced whole; ``current`` and ``previous``
are links made after it, for people and other tools; ``<name>-<version>-<hash8>/`` holds a bundle
and its signature as they came. Whatever instant the power goes, a start finds a whole bundle.
"""

from __future__ import annotations

import hashlib
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
from edge_gru.store.disk import (
    Disk,
    discard,
    explain,
    replace_file,
    replace_link,
    write_file,
)
from edge_gru.store.layout import (
    BUNDLE,
    CURRENT,
    FOLDER,
    INCOMING,
    LEDGER,
    LEFTOVER,
    LOCK,
    PREVIOUS,
    RESTORED,
    SIGNATURE,
    folder_of,
)
from edge_gru.store.ledger import Entry, Ledger, Trial, TrialPlan, decode, encode
from edge_gru.store.recovery import rebuild

_log = logging.getLogger(__name__)

_MAX_LEDGER_BYTES = 1 << 20
_SPARE_BYTES = 1 << 16  # folders, links and the state
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
        self._disk = disk or Disk(root)

    def read(self) -> Ledger:
        """Read what the store knows; where that is lost, find it again from what lies there.

        Raises:
            StoreError: there is no store.
        """
        return self._read()[0]

    def _read(self) -> tuple[Ledger, bool]:
        """Return the ledger, and whether it stands on the disk so."""
        try:
            return decode(self._disk.read(LEDGER, _MAX_LEDGER_BYTES)), True
        except (OSError, StoreError) as error:
            problem = error
        try:
            ledger = rebuild(self._disk, self._disk.target(CURRENT), self._disk.target(PREVIOUS))
        except OSError as error:
            raise StoreError(
                f"expected a store of bundles in {self.root}, got: {error.strerror}; "
                "`edge-gru bundle install` makes it"
            ) from error
        if ledger.current is not None:
            _log.warning("%s/%s is lost (%s); read it from the bundles", self.root, LEDGER, problem)
        return ledger, not ledger.entries

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
                self._restore(ledger.current, signed)
                return self._candidate(ledger), False
            if not is_forced:
                check_admission(ledger, entry)
            folder = self._copy(ledger, signed)
            ledger = ledger.activated(folder, entry, plan or TrialPlan())
            self._commit(ledger)
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
                self._commit(after)
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
                return self._disk.lock(LOCK)
            except BlockingIOError as error:
                if time.monotonic() >= deadline_s:
                    raise StoreError(
                        f"another edge-gru changes the store {self.root}; try again"
                    ) from error
            time.sleep(_RETRY_S)

    def _tidied(self) -> Ledger:
        """Read the ledger and finish whatever a power cut left half done."""
        ledger, is_written = self._read()
        if is_written:
            self._follow(ledger)
        else:
            self._commit(ledger)
        return ledger

    def _commit(self, ledger: Ledger) -> None:
        """Make a ledger the truth; what comes after that can be done again at any time."""
        replace_file(self._disk, LEDGER, encode(ledger))
        self._follow(ledger)

    def _follow(self, ledger: Ledger) -> None:
        """Let the links follow, then remove what nobody needs; only in this order."""
        try:
            links = {CURRENT: ledger.current, PREVIOUS: ledger.previous}
            if any(self._disk.target(name) != target for name, target in links.items()):
                for name, target in links.items():
                    replace_link(self._disk, name, target)
                self._disk.sync_folder()
            self._prune(ledger)
        except OSError as error:
            _log.warning("%s is tidied another time: %s", self.root, error)

    def _prune(self, ledger: Ledger) -> None:
        for name in self._disk.names():
            is_ours = FOLDER.fullmatch(name) and self._disk.is_folder(name)
            if (is_ours and name not in ledger.kept) or LEFTOVER.fullmatch(name):
                discard(self._disk, name)

    def _copy(self, ledger: Ledger, signed: SignedBundle) -> str:
        """Write a bundle into a folder of its own; return the folder's name."""
        entry = signed.entry
        folder = folder_of(entry.name, entry.version, entry.sha256)
        if folder in ledger.kept:
            self._restore(folder, signed)
            return folder
        self._check_space(len(signed.data))
        try:
            self._disk.make_folder(INCOMING)
            write_file(self._disk, f"{INCOMING}/{BUNDLE}", signed.data)
            write_file(self._disk, f"{INCOMING}/{SIGNATURE}", signed.signature_text.encode())
            self._disk.sync_folder(INCOMING)
            self._disk.rename(INCOMING, folder)
            self._disk.sync_folder()
        except OSError:
            self._give_up(INCOMING)
            raise
        return folder

    def _restore(self, folder: str, signed: SignedBundle) -> None:
        """Put the bytes of a bundle back in place if the disk has lost them."""
        if self._has(folder, signed.entry.sha256):
            return
        self._check_space(len(signed.data))
        try:
            write_file(self._disk, RESTORED, signed.data)
            self._disk.rename(RESTORED, f"{folder}/{BUNDLE}")
            self._disk.sync_folder(folder)
        except OSError:
            self._give_up(RESTORED)
            raise
        _log.warning("%s was damaged and is whole again", folder)

    def _has(self, folder: str, sha256: str) -> bool:
        try:
            data = self._disk.read(f"{folder}/{BUNDLE}", bundles.MAX_BYTES)
        except OSError:
            return False
        return hashlib.sha256(data).hexdigest() == sha256

    def _check_space(self, n_bytes: int) -> None:
        n_free = self._disk.n_free_bytes()
        if n_free < n_bytes + _SPARE_BYTES:
            raise StoreError(
                f"expected {n_bytes + _SPARE_BYTES} bytes of space in {self.root}, found {n_free}; "
                "make space there"
            )

    def _give_up(self, name: str) -> None:
        try:
            discard(self._disk, name)
        except OSError as error:
            _log.debug("%s stays behind for now: %s", name, error)


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
