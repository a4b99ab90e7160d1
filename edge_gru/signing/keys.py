"""Key files as minisign has them: a public one for every device, a secret one behind a password."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_gru.errors import ConfigError
from edge_gru.signing.curve import load_curve
from edge_gru.signing.text import UNTRUSTED, comment_of, decode, encode, read_text, split_lines

ALGORITHM = b"Ed"
ID_BYTES = 8
_SCRYPT = b"Sc"
_PLAIN = b"\0\0"
_CHECKSUM = b"B2"
_SALT_BYTES = 32
_PUBLIC_BYTES = 32
_SEED_BYTES = 32
_SECRET_BYTES = ID_BYTES + _SEED_BYTES + _PUBLIC_BYTES + 32  # and a checksum
_MAX_SCRYPT_BYTES = (1 << 31) - 1  # what OpenSSL takes
_BLOCK = 8  # scrypt's r
PUBLIC_SUFFIX = ".pub"


@dataclass(frozen=True)
class PublicKey:
    """What a device trusts: an id of 8 bytes, by which people know the key, and 32 bytes of key."""

    id: bytes
    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key file, or the one line of it that counts.

        Raises:
            ConfigError: it is no public key.
        """
        what = "a public key"
        if is_secret(text):
            raise ConfigError(
                "this is a secret key, which belongs to who signs alone; name the public one"
            )
        line = text.strip()
        if "\n" in line:
            comment, line = split_lines(line, 2, what)
            comment_of(comment, UNTRUSTED, what)
        data = decode(line, len(ALGORITHM) + ID_BYTES + _PUBLIC_BYTES, what)
        if not data.startswith(ALGORITHM):
            raise ConfigError(
                f"expected {what} of Ed25519, got {data[:2]!r}; make it with minisign"
            )
        return cls(data[2:10], data[10:])

    @property
    def name(self) -> str:
        """The id as minisign prints it."""
        return self.id[::-1].hex().upper()

    @property
    def line(self) -> str:
        """The key as one word, for ``minisign -P``."""
        return encode(ALGORITHM + self.id + self.key)

    def to_text(self) -> str:
        """Write the key file."""
        return f"{UNTRUSTED}minisign public key {self.name}\n{self.line}\n"


def read_trusted_keys(path: Path) -> list[PublicKey]:
    """Read a public key, or every ``*.pub`` of a folder, in the order of their names.

    Raises:
        ConfigError: there is none, or one of them cannot be read.
    """
    files = sorted(path.glob(f"*{PUBLIC_SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(
            f"expected a key to trust in {path}, found no *{PUBLIC_SUFFIX} there; "
            "copy the signer's public key to it"
        )
    return [_read_public(file) for file in files]


def _read_public(file: Path) -> PublicKey:
    try:
        return PublicKey.parse(read_text(file))
    except FileNotFoundError as error:
        raise ConfigError(
            f"expected a key to trust in {file}, found no such file; "
            "copy the signer's public key to it"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


@dataclass(frozen=True)
class KdfLimits:
    """What guessing a password costs: libsodium's two limits, operations and bytes."""

    n_operations: int = 1 << 25
    n_bytes: int = 1 << 30

    @property
    def cost(self) -> tuple[int, int]:
        """Compute scrypt's N and p for r = 8, as libsodium's ``pickparams`` does."""
        operations = max(self.n_operations, 1 << 15)
        is_short = operations < self.n_bytes // 32
        largest = operations // (_BLOCK * 4) if is_short else self.n_bytes // (_BLOCK * 128)
        exponent = 1
        while exponent < 63 and (1 << exponent) <= largest // 2:
            exponent += 1
        if is_short:
            return 1 << exponent, 1
        passes = min((operations // 4) >> exponent, 0x3FFFFFFF) // _BLOCK
        return 1 << exponent, max(passes, 1)

    def derive(self, password: bytes, salt: bytes) -> bytes:
        """Derive the pad that hides a secret key.

        Raises:
            ConfigError: the limits ask for more memory than there can be.
        """
        n, p = self.cost
        n_bytes = 128 * _BLOCK * (n + p + 3)
        if n_bytes > _MAX_SCRYPT_BYTES:
            raise ConfigError(
                f"expected a key that needs at most {_MAX_SCRYPT_BYTES} bytes to open, "
                f"got one that needs {n_bytes}; is it a key of minisign?"
            )
        try:
            return hashlib.scrypt(
                password, salt=salt, n=n, r=_BLOCK, p=p, maxmem=n_bytes, dklen=_SECRET_BYTES
            )
        except (ValueError, MemoryError) as error:
            raise ConfigError(
                f"the password needs {n_bytes} bytes of memory to be tried ({error}); "
                "use a machine that has them"
            ) from error


@dataclass(frozen=True)
class SecretKey:
    """What signs: the seed of an Ed25519 key, and the key's id."""

    public: PublicKey
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SecretKey:
        """Make a new key.

        Raises:
            ConfigError: the package that computes keys is not installed here.
        """
        seed = secrets.token_bytes(_SEED_BYTES)
        return cls(PublicKey(secrets.token_bytes(ID_BYTES), load_curve().public_of(seed)), seed)

    @classmethod
    def parse(cls, text: str, password: bytes | None = None) -> SecretKey:
        """Read a key file.

        Raises:
            ConfigError: it is no secret key, or another password opens it.
        """
        what = "a secret key"
        comment, line = split_lines(text.strip(), 2, what)
        comment_of(comment, UNTRUSTED, what)
        n_head = 6 + _SALT_BYTES + 16
        data = decode(line, n_head + _SECRET_BYTES, what)
        kdf, hidden = data[2:4], data[n_head:]
        if data[:2] != ALGORITHM or data[4:6] != _CHECKSUM or kdf not in (_SCRYPT, _PLAIN):
            raise ConfigError(f"expected {what} of minisign, got {data[:6]!r}; make a new one")
        if kdf == _SCRYPT:
            if password is None:
                raise ConfigError("expected the password of the secret key, got none; give it")
            limits = KdfLimits(
                int.from_bytes(data[38:46], "little"), int.from_bytes(data[46:54], "little")
            )
            hidden = _mask(hidden, limits.derive(password, data[6:38]))
        return cls._from_payload(hidden, is_checked=kdf == _SCRYPT)

    @classmethod
    def _from_payload(cls, payload: bytes, *, is_checked: bool) -> SecretKey:
        key_id, secret, check = payload[:8], payload[8:72], payload[72:]
        if is_checked and not hmac.compare_digest(check, _checksum(key_id, secret)):
            raise ConfigError("the password does not open the secret key; try again")
        seed, public = secret[:_SEED_BYTES], secret[_SEED_BYTES:]
        if load_curve().public_of(seed) != public:
            raise ConfigError("the two halves of the secret key differ; copy it again")
        return cls(PublicKey(key_id, public), seed)

    def to_text(self, password: bytes | None = None, limits: KdfLimits | None = None) -> str:
        """Write the key file, behind a password if one is given.

        Raises:
            ConfigError: there is not enough memory to hide it.
        """
        secret = self.seed + self.public.key
        kind = f"{UNTRUSTED}minisign encrypted secret key"
        if password is None:
            head = ALGORITHM + _PLAIN + _CHECKSUM + bytes(_SALT_BYTES + 16)
            return f"{kind}\n{encode(head + self.public.id + secret + bytes(32))}\n"
        limits = limits or KdfLimits()
        salt = secrets.token_bytes(_SALT_BYTES)
        payload = self.public.id + secret + _checksum(self.public.id, secret)
        costs = limits.n_operations.to_bytes(8, "little") + limits.n_bytes.to_bytes(8, "little")
        head = ALGORITHM + _SCRYPT + _CHECKSUM + salt + costs
        return f"{kind}\n{encode(head + _mask(payload, limits.derive(password, salt)))}\n"


def is_hidden(text: str) -> bool:
    """Tell whether a secret key file needs a password.

    Raises:
        ConfigError: it is no secret key.
    """
    line = split_lines(text.strip(), 2, "a secret key")[1]
    return decode(line, 6 + _SALT_BYTES + 16 + _SECRET_BYTES, "a secret key")[2:4] == _SCRYPT


def is_secret(text: str) -> bool:
    """Tell whether a text is a secret key file; nothing is checked."""
    try:
        is_hidden(text)
    except ConfigError:
        return False
    return True


def names_of(keys: Sequence[PublicKey]) -> str:
    """List keys for a sentence."""
    return ", ".join(key.name for key in keys)


def _checksum(key_id: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(ALGORITHM + key_id + secret, digest_size=32).digest()


def _mask(data: bytes, pad: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, pad, strict=True))
