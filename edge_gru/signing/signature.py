"""Detached signatures as minisign writes them: of a file, and of a comment that can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_gru.errors import BundleError, ConfigError
from edge_gru.signing.curve import load_curve
from edge_gru.signing.keys import ALGORITHM, ID_BYTES, PublicKey, SecretKey, names_of
from edge_gru.signing.text import UNTRUSTED, comment_of, decode, encode, split_lines

SUFFIX = ".minisig"
_PREHASHED = b"ED"
_TRUSTED = "trusted comment: "
_SIGNATURE_BYTES = 64
_MAX_TRUSTED_BYTES = 8192  # what minisign reads


@dataclass(frozen=True)
class Signature:
    """The content of a ``.minisig`` file.

    ``signature`` is of the file's BLAKE2b-512, ``global_signature`` of that and ``comment``.
    """

    key_id: bytes
    signature: bytes = field(repr=False)
    comment: str
    global_signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read a signature file.

        Raises:
            ConfigError: it is none, or one of minisign's old form.
        """
        what = "a signature"
        untrusted, line, comment, last = split_lines(text, 4, what)
        comment_of(untrusted, UNTRUSTED, what)
        data = decode(line, 2 + ID_BYTES + _SIGNATURE_BYTES, what)
        if data[:2] == ALGORITHM:
            raise ConfigError(
                "expected a signature of the file's hash, got one of minisign's old form; "
                "sign it again without -l"
            )
        if data[:2] != _PREHASHED:
            raise ConfigError(f"expected {what} of minisign, got {data[:2]!r}; sign it again")
        return cls(
            key_id=data[2:10],
            signature=data[10:],
            comment=comment_of(comment, _TRUSTED, what),
            global_signature=decode(last, _SIGNATURE_BYTES, what),
        )

    def to_text(self) -> str:
        """Write the signature file."""
        return (
            f"{UNTRUSTED}signature from edge-gru\n"
            f"{encode(_PREHASHED + self.key_id + self.signature)}\n"
            f"{_TRUSTED}{self.comment}\n"
            f"{encode(self.global_signature)}\n"
        )


def sign(data: bytes, key: SecretKey, comment: str) -> Signature:
    """Sign bytes, and a comment of one line.

    Raises:
        ConfigError: the comment has line ends in it or is too long, or keys do not work here.
    """
    written = comment.encode()
    if len(written) > _MAX_TRUSTED_BYTES or not comment.replace("\t", "").isprintable():
        raise ConfigError("expected a comment of one printable line; leave the rest out")
    curve = load_curve()
    signature = curve.sign(key.seed, _digest(data))
    return Signature(
        key_id=key.public.id,
        signature=signature,
        comment=comment,
        global_signature=curve.sign(key.seed, signature + written),
    )


def verify(data: bytes, signature: Signature, keys: Sequence[PublicKey]) -> PublicKey:
    """Make sure that a trusted key signed the bytes and the comment; return that key.

    Raises:
        BundleError: none did: another key, other bytes, another comment.
        ConfigError: signatures cannot be checked here.
    """
    curve = load_curve()
    known = [key for key in keys if key.id == signature.key_id]
    if not known:
        stranger = PublicKey(signature.key_id, b"").name
        raise BundleError(
            f"expected a signature by {names_of(keys) or 'a trusted key'}, got one by {stranger}, "
            "which is not trusted here; sign it with the right key"
        )
    digest = _digest(data)
    for key in known:
        if curve.is_signed(key.key, digest, signature.signature):
            sealed = signature.signature + signature.comment.encode()
            if curve.is_signed(key.key, sealed, signature.global_signature):
                return key
            raise BundleError("the signed comment was changed after signing; copy both files again")
    raise BundleError(
        "the signature is of other bytes: the file was changed after signing, or it is that of "
        "another file; copy both again"
    )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()
