"""From a file that anybody may have brought to a bundle that is signed for this board."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_gru import bundle as bundles
from edge_gru.bundle import Bundle
from edge_gru.errors import BundleError, ConfigError, StoreError
from edge_gru.signing import SUFFIX, PublicKey, Release, Signature, verify
from edge_gru.signing.text import read_text
from edge_gru.store.board import fits
from edge_gru.store.ledger import Entry, Ledger


@dataclass(frozen=True)
class SignedBundle:
    """A bundle whose signature was checked: its bytes, and the text of the signature."""

    bundle: Bundle
    data: bytes = field(repr=False)
    signature_text: str = field(repr=False)
    release: Release
    key_name: str

    @property
    def entry(self) -> Entry:
        """What the store notes of it; whether it is on trial is not known yet."""
        release = self.release
        return Entry(
            name=release.name,
            version=release.version,
            model_hash=self.bundle.hash,
            sha256=hashlib.sha256(self.data).hexdigest(),
            key=self.key_name,
            boards=release.boards,
            signed_at_s=release.signed_at_s,
            continues=release.continues,
            status="trial",
        )


def read_signed(
    file: Path,
    *,
    keys: Sequence[PublicKey],
    boards: Sequence[str],
    signature_file: Path | None = None,
) -> SignedBundle:
    """Read a bundle and the signature beside it; nothing in it is parsed before that is checked.

    Raises:
        StoreError: it is not signed, or for another board.
        BundleError: the signature does not fit, or the bundle cannot be read.
        ConfigError: the signature is malformed, or none can be checked here.
    """
    place = signature_file or file.with_name(file.name + SUFFIX)
    data = bundles.read_bytes(file)
    try:
        text = read_text(place)
    except FileNotFoundError as error:
        raise StoreError(
            f"{file} is not signed: expected its signature in {place}, found none; "
            "sign it with `edge-gru keys sign`"
        ) from error
    try:
        signature = Signature.parse(text)
        key = verify(data, signature, keys)
        release = Release.from_comment(signature.comment)
        bundle = bundles.parse(data)
    except (BundleError, ConfigError) as error:
        raise type(error)(f"{file}: {error}") from error
    if release.name != bundle.manifest.name:
        raise BundleError(
            f"{file}: signed as {release.name!r}, but the model in it is "
            f"{bundle.manifest.name!r}; sign it again"
        )
    if not fits(release.boards, boards):
        raise StoreError(
            f"{file} is for {', '.join(release.boards)}, this board is {', '.join(boards)}; "
            "install the bundle for this one"
        )
    return SignedBundle(bundle, data, text, release, key.name)


def check_admission(ledger: Ledger, entry: Entry) -> None:
    """Refuse a bundle that is older than one that was here, failed here, or is another model.

    Raises:
        StoreError: it is.
    """
    what = f"{entry.name} version {entry.version}"
    serving = ledger.entry(ledger.current)
    if serving is not None and serving.name != entry.name:
        raise StoreError(
            f"{what} is another model than {serving.name}, which serves here; "
            "--force if that is meant"
        )
    known = [old for old in ledger.entries.values() if old.sha256 == entry.sha256]
    for old in known:
        if old.status == "failed":
            raise StoreError(
                f"{what} failed here before ({old.reason}); --force tries it once more"
            )
    highest = ledger.highest.get(entry.name, 0)
    if entry.version < highest:
        raise StoreError(
            f"{what} is older than version {highest}, which was here; --force if that is meant"
        )
    if entry.version == highest and not known:
        raise StoreError(
            f"{what} is another bundle than the version {highest} that was here; "
            "sign the new one with a higher version"
        )
