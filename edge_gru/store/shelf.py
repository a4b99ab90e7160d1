"""The files of a store, and the order in which they change: the state first, the rest after."""

from __future__ import annotations

import errno
import hashlib
import logging

from edge_gru import bundle as bundles
from edge_gru.errors import StoreError
from edge_gru.store.admission import SignedBundle
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
    RESERVE,
    RESTORED,
    SIGNATURE,
    folder_of,
)
from edge_gru.store.ledger import Ledger, decode, encode
from edge_gru.store.recovery import rebuild

_log = logging.getLogger(__name__)

_MAX_LEDGER_BYTES = 1 << 20
_RESERVE_BYTES = 1 << 16  # more than a state takes
_SPARE_BYTES = 1 << 17  # the reserve, a state, folders and links
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Shelf:
    """Reads and changes the files of one store; whoever changes them holds the lock.

    All raises the ``OSError`` of the disk, and leaves what was there before.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def lock(self) -> int:
        """Lock the store for this process until the handle is closed."""
        return self._disk.lock(LOCK)

    def read(self) -> tuple[Ledger, bool]:
        """Return the ledger, and whether it stands on the disk so.

        Raises:
            StoreError: there is no store, or it is not for this user to read.
        """
        root = self._disk.root
        try:
            return decode(self._disk.read(LEDGER, _MAX_LEDGER_BYTES)), True
        except PermissionError as error:  # it is not lost: somebody else may read it
            raise explain(error, root, "read") from error
        except (OSError, StoreError) as error:
            problem = error
        try:
            ledger = rebuild(self._disk, self._disk.target(CURRENT), self._disk.target(PREVIOUS))
        except OSError as error:
            raise StoreError(
                f"expected a store of bundles in {root}, got: {error.strerror}; "
                "`edge-gru bundle install` makes it"
            ) from error
        if ledger.current is not None:
            _log.warning("%s/%s is lost (%s); read it from the bundles", root, LEDGER, problem)
        return ledger, not ledger.entries

    def commit(self, ledger: Ledger) -> None:
        """Make a ledger the truth; what comes after that can be done again at any time.

        On a full disk the reserve makes room for it, so that going back is always possible.
        """
        try:
            replace_file(self._disk, LEDGER, encode(ledger))
        except OSError as error:
            if error.errno not in _NO_SPACE or not self._disk.is_there(RESERVE):
                raise
            self._disk.remove(RESERVE)
            replace_file(self._disk, LEDGER, encode(ledger))
        self.follow(ledger)

    def follow(self, ledger: Ledger) -> None:
        """Let the links follow, then remove what nobody needs; only in this order."""
        try:
            links = {CURRENT: ledger.current, PREVIOUS: ledger.previous}
            if any(self._disk.target(name) != target for name, target in links.items()):
                for name, target in links.items():
                    replace_link(self._disk, name, target)
                self._disk.sync_folder()
            self._prune(ledger)
            if not self._disk.is_there(RESERVE):
                self._write_new(RESERVE, RESERVE, bytes(_RESERVE_BYTES))
        except OSError as error:
            _log.warning("%s is tidied another time: %s", self._disk.root, error)

    def _prune(self, ledger: Ledger) -> None:
        for name in self._disk.names():
            is_ours = FOLDER.fullmatch(name) and self._disk.is_folder(name)
            if (is_ours and name not in ledger.kept) or LEFTOVER.fullmatch(name):
                discard(self._disk, name)

    def add(self, ledger: Ledger, signed: SignedBundle) -> str:
        """Write a bundle into a folder of its own; return the folder's name.

        Raises:
            StoreError: there is no space for it.
        """
        entry = signed.entry
        folder = folder_of(entry.name, entry.version, entry.sha256)
        if folder in ledger.kept:
            self.mend(folder, signed)
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

    def mend(self, folder: str, signed: SignedBundle) -> None:
        """Put the bytes of a bundle back in place if the disk has lost them.

        Raises:
            StoreError: there is no space for it.
        """
        if self._has(folder, signed.entry.sha256):
            return
        self._check_space(len(signed.data))
        self._write_new(RESTORED, f"{folder}/{BUNDLE}", signed.data)
        self._disk.sync_folder(folder)
        _log.warning("%s was damaged and is whole again", folder)

    def _write_new(self, temporary: str, name: str, data: bytes) -> None:
        try:
            write_file(self._disk, temporary, data)
            if temporary != name:
                self._disk.rename(temporary, name)
        except OSError:
            self._give_up(temporary)
            raise

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
                f"expected {n_bytes + _SPARE_BYTES} bytes of space in {self._disk.root}, "
                f"found {n_free}; make space there"
            )

    def _give_up(self, name: str) -> None:
        try:
            discard(self._disk, name)
        except OSError as error:
            _log.debug("%s stays behind for now: %s", name, error)
