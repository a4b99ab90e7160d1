"""Find out what a store holds where its state is lost: from the links, and from the bundles."""

from __future__ import annotations

import hashlib
import logging

from edge_gru import bundle as bundles
from edge_gru.errors import EdgeGruError
from edge_gru.signing import PublicKey, Release, Signature
from edge_gru.signing.text import MAX_BYTES as MAX_SIGNATURE_BYTES
from edge_gru.store.disk import Disk
from edge_gru.store.layout import BUNDLE, FOLDER, SIGNATURE
from edge_gru.store.ledger import Entry, Ledger

_log = logging.getLogger(__name__)


def rebuild(disk: Disk, current: str | None, previous: str | None) -> Ledger:
    """Describe the bundles that are whole; what ``current`` names serves, else the newest.

    No trial goes on: what was on trial is taken as it is. Signatures were checked when the bundles
    came in, and are not again, since no key may be at hand.

    Raises:
        OSError: there is no folder.
    """
    folders = [name for name in disk.names() if FOLDER.fullmatch(name)]
    entries = {folder: entry for folder in folders if (entry := _describe(disk, folder))}
    if current not in entries:
        current = max(entries, key=lambda folder: entries[folder].version, default=None)
    if previous not in entries or previous == current:
        previous = None
    highest: dict[str, int] = {}
    for entry in entries.values():
        highest[entry.name] = max(entry.version, highest.get(entry.name, 0))
    return Ledger(current=current, previous=previous, highest=highest, entries=entries)


def _describe(disk: Disk, folder: str) -> Entry | None:
    try:
        data = disk.read(f"{folder}/{BUNDLE}", bundles.MAX_BYTES)
        text = disk.read(f"{folder}/{SIGNATURE}", MAX_SIGNATURE_BYTES)
        bundle = bundles.parse(data)
        signature = Signature.parse(text.decode())
        release = Release.from_comment(signature.comment)
    except (OSError, EdgeGruError, UnicodeDecodeError) as error:
        _log.warning("%s is left out: %s", folder, error)
        return None
    return Entry(
        name=release.name,
        version=release.version,
        model_hash=bundle.hash,
        sha256=hashlib.sha256(data).hexdigest(),
        key=PublicKey(signature.key_id, b"").name,
        boards=release.boards,
        signed_at_s=release.signed_at_s,
        continues=release.continues,
        status="committed",
    )
