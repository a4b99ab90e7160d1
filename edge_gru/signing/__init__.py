"""Keys and signatures in the files of minisign: Ed25519 over BLAKE2b-512, four lines of text."""

from edge_gru.signing.keys import KdfLimits, PublicKey, SecretKey, read_trusted_keys
from edge_gru.signing.release import Release
from edge_gru.signing.signature import SUFFIX, Signature, sign, verify

__all__ = [
    "SUFFIX",
    "KdfLimits",
    "PublicKey",
    "Release",
    "SecretKey",
    "Signature",
    "read_trusted_keys",
    "sign",
    "verify",
]
