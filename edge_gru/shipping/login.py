"""Who gets in to a board that is flashed, with which keys, and what the board calls itself."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from edge_gru.errors import ConfigError

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # what useradd takes
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, one label
_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@", "sk-ecdsa-sha2-")
_MAX_KEYS_BYTES = 1 << 16
_FIRST_UID, _NOBODY_UID = 1000, 65534


@dataclass(frozen=True)
class Person:
    """A user of a rootfs who may log in; ``home`` has no slash in front."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class Login:
    """What a rootfs gets so that its owner gets in; empty: it stays as it is there.

    ``ssh_keys`` are files of public keys for ``user``, or for the first person there is.

    Raises:
        ConfigError: no name of a user, or of a host.
    """

    user: str = ""
    hostname: str = ""
    ssh_keys: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.user and not _USER.fullmatch(self.user):
            raise ConfigError(
                f"expected a user such as jetson (a to z, 0 to 9, _ and -), got {self.user!r}"
            )
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise ConfigError(
                f"expected a hostname such as pump-4 (a to z, 0 to 9 and -), got {self.hostname!r}"
            )

    def key_lines(self) -> list[str]:
        """Read the public keys, one a line, each once.

        Raises:
            ConfigError: a file cannot be read, is secret, or holds something else.
        """
        return list(dict.fromkeys(line for path in self.ssh_keys for line in _read_keys(path)))


def people(rootfs: Path) -> list[Person]:
    """List who may log in, as ``etc/passwd`` has it; nobody where there is none."""
    try:
        lines = (rootfs / "etc/passwd").read_text(errors="replace").splitlines()
    except OSError:
        return []
    rows = (line.split(":") for line in lines)
    return [
        Person(row[0], int(row[2]), int(row[3]), row[5].strip("/"))
        for row in rows
        if len(row) == 7 and row[2].isdigit() and row[3].isdigit()
        if _FIRST_UID <= int(row[2]) < _NOBODY_UID
    ]


def _read_keys(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_KEYS_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"expected public ssh keys in {path}, got other bytes") from error
    if "PRIVATE KEY" in text:
        raise ConfigError(
            f"{path} is a secret ssh key, which must not leave this machine; name {path}.pub"
        )
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    odd = next((line for line in keys if not _is_key(line)), None)
    if odd is not None or not keys:
        got = "nothing" if odd is None else repr(odd[:40])
        raise ConfigError(
            f"expected public ssh keys in {path}, one a line such as 'ssh-ed25519 AAAA... you', "
            f"got {got}"
        )
    return keys


def _is_key(line: str) -> bool:
    """Tell whether a line is a key alone: options before it would narrow or widen what it may."""
    kind, _, rest = line.partition(" ")
    try:
        data = base64.b64decode(rest.split(" ")[0], validate=True)
    except (binascii.Error, ValueError):
        return False
    named = data[4 : 4 + int.from_bytes(data[:4], "big")]  # RFC 4253, 6.6: it says again what it is
    return kind.startswith(_KINDS) and named == kind.encode()
