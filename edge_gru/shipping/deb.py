"""The Debian package, written without root and without Debian's tools: the same bytes anywhere."""

from __future__ import annotations

import hashlib
import io
import logging
import lzma
from pathlib import Path
from typing import IO

from edge_gru.bundle import write_atomically
from edge_gru.shipping.source import Source
from edge_gru.shipping.stage import Stage, filled
from edge_gru.shipping.tree import Tree

_log = logging.getLogger(__name__)

_SCRIPTS = ("postinst", "prerm", "postrm")
_MAGIC = b"!<arch>\n"
_XZ_PRESET = 0  # of 200 MB; 1 takes twice as long and saves a twentieth


def write_deb(stage: Stage, source: Source, folder: Path) -> Path:
    """Write the package into a folder, and return its path; one that is there already is kept.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / stage.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    _log.info("packing %.0f MB", stage.tree.n_bytes / 1e6)
    write_atomically(path, _archive(stage, source))
    return path


def _archive(stage: Stage, source: Source) -> bytes:
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _packed(control_of(stage, source)),
        "data.tar.xz": _packed(stage.tree),
    }
    archive = io.BytesIO(_MAGIC)
    archive.seek(0, io.SEEK_END)
    for name, data in members.items():
        _add(archive, name, data, stage.tree.date_s)
    return archive.getvalue()


def _add(archive: IO[bytes], name: str, data: bytes, date_s: int) -> None:
    """Append a member as `ar` would; deb(5) has the columns."""
    archive.write(f"{name:<16}{date_s:<12}{0:<6}{0:<6}{0o100644:<8o}{len(data):<10}`\n".encode())
    archive.write(data + b"\n" * (len(data) % 2))


def _packed(tree: Tree) -> bytes:
    made = io.BytesIO()
    with lzma.open(made, "wb", preset=_XZ_PRESET) as file:
        tree.write_tar(file)
    return made.getvalue()


def control_of(stage: Stage, source: Source) -> Tree:
    """Make what dpkg reads: the fields, the scripts, the hashes."""
    made = Tree(stage.tree.date_s)
    folder = source.deploy / "debian"
    n_kib = sum(-(-node.n_bytes // 1024) for _, node in stage.tree) + len(stage.tree.folders)
    words = {"VERSION": stage.version, "SIZE": str(n_kib)}
    for name in ("control", "triggers"):
        made.put(name, filled((folder / name).read_text(), stage.target, **words))
    for name in _SCRIPTS:
        made.put(name, (folder / name).read_bytes(), is_program=True)
    sums = (
        f"{hashlib.md5(node.read(), usedforsecurity=False).hexdigest()}  {path}\n"
        for path, node in stage.tree
        if not node.target
    )
    made.put("md5sums", "".join(sums))
    return made
