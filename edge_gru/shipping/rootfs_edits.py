"""Files of a rootfs that are changed, not brought: what was there before is kept for the undo."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_gru.errors import ShippingError
from edge_gru.shipping.login import Login, Person, people

_LOOPBACK = "127.0.1.1"
_PRIVATE_FILE, _PRIVATE_FOLDER, _FILE = 0o600, 0o700, 0o644


class Before(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was; ``content`` None: there was none."""

    content: bytes | None = None
    mode: int = 0
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Edit:
    """What a file is to be; ``folder`` is made for it, its owner's alone, if it is not there."""

    content: bytes
    mode: int
    owner: tuple[int, int] | None = None
    folder: str = ""


def edits_of(login: Login, rootfs: Path) -> dict[str, Edit]:
    """List the files that a login changes, by their paths in the rootfs.

    Raises:
        ConfigError: a file of keys does not hold what it should.
        ShippingError: there is nobody whom the keys could let in.
    """
    edits: dict[str, Edit] = {}
    if login.hostname:
        hosts = _read(rootfs / "etc/hosts").decode(errors="surrogateescape")
        named = _with_host(hosts, login.hostname).encode(errors="surrogateescape")
        edits["etc/hostname"] = Edit(f"{login.hostname}\n".encode(), _FILE)
        edits["etc/hosts"] = Edit(named, _FILE)
    lines = login.key_lines()
    if lines:
        person = _whose(login, rootfs)
        folder = f"{person.home}/.ssh"
        place = f"{folder}/authorized_keys"
        content = _with_keys(_read(rootfs / place), lines)
        edits[place] = Edit(content, _PRIVATE_FILE, (person.uid, person.gid), folder)
    return edits


def remember(rootfs: Path, paths: Mapping[str, Edit]) -> dict[str, Before]:
    """Keep what is there now.

    Raises:
        ShippingError: one of the files is a link or something else, or its folder is not there.
    """
    return {path: _before(rootfs, path, edit) for path, edit in paths.items()}


def apply(rootfs: Path, edits: Mapping[str, Edit]) -> None:
    """Change the files.

    Raises:
        OSError: one of them cannot be written, or given to its owner.
    """
    for path, edit in edits.items():
        if edit.folder and not (rootfs / edit.folder).is_dir():
            (rootfs / edit.folder).mkdir()
            _own(rootfs / edit.folder, _PRIVATE_FOLDER, edit.owner)
        place = rootfs / path
        mode = edit.mode if edit.owner or not place.exists() else place.stat().st_mode
        place.write_bytes(edit.content)
        _own(place, stat.S_IMODE(mode), edit.owner)


def restore(rootfs: Path, before: Mapping[str, Before]) -> None:
    """Put the files back as they were.

    Raises:
        OSError: one of them cannot be written.
    """
    for path, was in before.items():
        place = rootfs / path
        if was.content is None:
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(was.content)
            _own(place, was.mode, (was.uid, was.gid))


def _before(rootfs: Path, path: str, edit: Edit) -> Before:
    place = rootfs / path
    parent = (rootfs / edit.folder).parent if edit.folder else place.parent
    inside = parent.is_dir() and parent.resolve().is_relative_to(rootfs.resolve())
    if not inside or place.is_symlink() or place.parent.is_symlink():
        raise ShippingError(
            f"expected {parent} to be a folder of the rootfs, and {place} no link; "
            "unpack the sample root file system anew"
        )
    if not place.exists():
        return Before()
    status = place.stat()
    return Before(place.read_bytes(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _own(place: Path, mode: int, owner: tuple[int, int] | None) -> None:
    status = place.stat()
    if owner is not None and owner != (status.st_uid, status.st_gid):
        os.chown(place, *owner)
    place.chmod(mode)


def _whose(login: Login, rootfs: Path) -> Person:
    found = [p for p in people(rootfs) if p.name == login.user or not login.user]
    if not found or not found[0].home:
        raise ShippingError(
            f"expected a user {login.user or 'with a home'} in rootfs for the ssh keys, "
            "found none; make the default user first"
        )
    return found[0]


def _with_host(hosts: str, hostname: str) -> str:
    """Let the host name lead to this machine, or every sudo on the board waits for a network."""
    line = f"{_LOOPBACK}\t{hostname}"
    changed, n_found = re.subn(rf"^{re.escape(_LOOPBACK)}\s.*$", line, hosts, flags=re.MULTILINE)
    if n_found:
        return changed
    return f"{hosts.rstrip()}\n{line}\n".lstrip()


def _with_keys(present: bytes, lines: list[str]) -> bytes:
    known = present.decode(errors="surrogateescape").splitlines()
    added = [line for line in lines if line not in known]
    text = "".join(f"{line}\n" for line in [*known, *added])
    return text.encode(errors="surrogateescape")


def _read(place: Path) -> bytes:
    return place.read_bytes() if place.is_file() and not place.is_symlink() else b""
