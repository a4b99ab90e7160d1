"""The files that go on a board, each with its mode, and the archives that are made of them.

The same tree always gives the same bytes: names sorted, everything root's, one date.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

_PROGRAM, _FILE, _FOLDER, _LINK = 0o755, 0o644, 0o755, 0o777


@dataclass(frozen=True)
class Node:
    """A file with ``content``, bytes or the file that has them; or a link to ``target``."""

    content: bytes | Path = b""
    mode: int = _FILE
    target: str = ""

    def read(self) -> bytes:
        """Return the bytes of the file."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    @cached_property
    def sha256(self) -> str:
        """Hash the bytes of the file, or the target of the link."""
        return hashlib.sha256(self.target.encode() if self.target else self.read()).hexdigest()

    @property
    def n_bytes(self) -> int:
        """The size of the file."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


class Tree:
    """Files by their path on the board, which has no slash in front."""

    def __init__(self, date_s: int) -> None:
        self.date_s = date_s
        self._nodes: dict[str, Node] = {}

    def put(self, path: str, content: bytes | str | Path, *, is_program: bool = False) -> None:
        """Add a file, or replace it."""
        data = content.encode() if isinstance(content, str) else content
        self._nodes[path] = Node(data, _PROGRAM if is_program else _FILE)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._nodes[path] = Node(mode=_LINK, target=target)

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        """Go through the files and links, sorted by path."""
        return iter(sorted(self._nodes.items()))

    def __getitem__(self, path: str) -> Node:
        """Return the file or link at a path."""
        return self._nodes[path]

    @property
    def folders(self) -> list[str]:
        """List every folder that the files need, parents first."""
        found = {str(up) for path in self._nodes for up in Path(path).parents if str(up) != "."}
        return sorted(found)

    @property
    def n_bytes(self) -> int:
        """The size of all files."""
        return sum(node.n_bytes for _, node in self)

    def digest(self) -> str:
        """Hash all paths, modes and contents."""
        whole = hashlib.sha256()
        for path, node in self:
            whole.update(f"{node.sha256} {node.mode:o} {path}\n".encode())
        return whole.hexdigest()

    def write_tar(self, file: IO[bytes]) -> None:
        """Write a tar archive whose names begin with ``./``."""
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
            folders = dict.fromkeys(["", *self.folders])
            for path in sorted({**folders, **self._nodes}):
                info = tarfile.TarInfo(f"./{path}" if path else ".")
                info.mtime, info.uname, info.gname = self.date_s, "root", "root"
                if path in folders:
                    info.type, info.mode = tarfile.DIRTYPE, _FOLDER
                    archive.addfile(info)
                else:
                    _add(archive, info, self._nodes[path])


def _add(archive: tarfile.TarFile, info: tarfile.TarInfo, node: Node) -> None:
    info.mode = node.mode
    if node.target:
        info.type, info.linkname = tarfile.SYMTYPE, node.target
        archive.addfile(info)
        return
    data = node.read()
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
