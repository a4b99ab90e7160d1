from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_gru.bundle import Bundle
from edge_gru.signing import Release, Signature
from edge_gru.store import Disk, SignedBundle

CHANGES = (
    "make_folder", "create", "write", "sync", "sync_folder", "rename", "link", "remove",
    "remove_folder",
)  # fmt: skip


Tear = Callable[[bytes], bytes]


def nul_tail(content: bytes) -> bytes:
    """The length is there, the second half of the content is not."""
    whole = len(content) // 2
    return content[:whole] + bytes(len(content) - whole)


def cut_short(content: bytes) -> bytes:
    """The second half was never allocated."""
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    """Nothing was allocated, as with delayed allocation; the name is there."""
    return b""


def all_nul(content: bytes) -> bytes:
    """All of it was allocated, and none written."""
    return bytes(len(content))


TEARS = (nul_tail, cut_short, emptied, all_nul)


class PowerCutError(BaseException):
    """Nothing runs after it."""


class FaultyDisk(Disk):
    """Fails at one change: the ``at``-th is not made, a write is made by half; ``fail`` is called.

    Remembers what is not durable yet, so that ``lose`` can take it away as a power cut does.
    """

    def __init__(self, root: Path, at: int, fail: Callable[[], None]) -> None:
        super().__init__(root)
        self.n_changes = 0
        self.log: list[str] = []
        self._at = at
        self._fail = fail
        self._undo: list[tuple[str, Callable[[], None]]] = []
        self._dirty: set[Path] = set()
        self._open: dict[int, Path] = {}
        self._moved: dict[str, str] = {}  # folders
        self._renames: list[Callable[[], None]] = []

    def _count(self, what: str, before: Callable[[], None] = lambda: None) -> None:
        if self.n_changes == self._at:
            before()
            self._fail()
        self.n_changes += 1
        self.log.append(what)

    def _folder(self, name: str) -> str:
        return name.rpartition("/")[0]

    def _now(self, name: str) -> Path:
        folder, _, inner = name.rpartition("/")
        return self.root / self._moved.get(folder, folder) / inner

    def make_folder(self, name: str) -> None:
        self._count(f"mkdir {name}")
        super().make_folder(name)
        self._undo.append((self._folder(name), lambda: shutil.rmtree(self.root / name)))

    def create(self, name: str) -> int:
        self._count(f"create {name}")
        handle = super().create(name)
        self._open[handle] = self.root / name
        self._dirty.add(self.root / name)
        self._undo.append((self._folder(name), lambda: self._now(name).unlink(missing_ok=True)))
        return handle

    def write(self, handle: int, data: memoryview) -> int:
        half = bytes(data[: len(data) // 2])
        self._count("write", lambda: os.write(handle, half))
        self._dirty.add(self._open[handle])
        return super().write(handle, data)

    def sync(self, handle: int) -> None:
        self._count("fsync")
        super().sync(handle)
        self._dirty.discard(self._open[handle])

    def sync_folder(self, name: str = "") -> None:
        self._count(f"fsync {name or '.'}")
        super().sync_folder(name)
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != name]

    def rename(self, old: str, new: str) -> None:
        self._count(f"rename {old} {new}")
        put_back = self._saved(new)
        if self.root / old in self._dirty:
            self._dirty.remove(self.root / old)
            self._dirty.add(self.root / new)
        super().rename(old, new)
        if self.is_folder(new):
            self._moved[old] = new

        def undo() -> None:
            if not os.path.lexists(self.root / new):  # removed since
                return
            self._moved.pop(old, None)
            (self.root / new).rename(self.root / old)
            put_back()

        self._undo.append((self._folder(new), undo))
        self._renames.append(undo)

    def link(self, target: str, name: str) -> None:
        self._count(f"symlink {name}")
        super().link(target, name)
        self._undo.append((self._folder(name), (self.root / name).unlink))

    def remove(self, name: str) -> None:
        self._count(f"unlink {name}")
        put_back = self._saved(name)
        super().remove(name)
        self._undo.append((self._folder(name), put_back))

    def remove_folder(self, name: str) -> None:
        self._count(f"rmdir {name}")
        super().remove_folder(name)
        self._undo.append((self._folder(name), (self.root / name).mkdir))

    def _saved(self, name: str) -> Callable[[], None]:
        """Make what puts a name back as it is now."""
        path = self.root / name
        if path.is_symlink():
            target = path.readlink()
            return lambda: path.symlink_to(target)
        if path.is_file():
            content = path.read_bytes()
            return lambda: _write(path, content)
        return lambda: None

    @property
    def is_dirty(self) -> bool:
        """Whether there is a file whose content was not synced."""
        return any(path.is_file() for path in self._dirty)

    def lose(self, kept: float, tear: Tear = nul_tail) -> None:
        """Take away what was not made durable: of the names, all but the first share ``kept``.

        A negative share takes the first rename alone, as a file system without a journal may.
        ``tear`` says what is left of the content of files that was not synced.
        """
        undos = [undo for _, undo in self._undo]
        lost = undos[round(kept * len(undos)) :]
        if kept < 0:
            lost = [undo for undo in undos if undo in self._renames][:1]
        for undo in reversed(lost):
            undo()
        for path in self._dirty:
            if path.is_file():
                path.write_bytes(tear(path.read_bytes()))


def _write(path: Path, content: bytes) -> None:
    if path.parent.is_dir():  # a folder whose removal is durable has lost what was in it
        path.write_bytes(content)


def signed_of(bundle: Bundle, version: int, **changes: object) -> SignedBundle:
    """A bundle that counts as checked; its signature is text alone."""
    release = Release(bundle.manifest.name, version, **changes)
    comment = release.to_comment("tiny.egb")
    text = Signature(bytes(8), bytes(64), comment, bytes(64)).to_text()
    return SignedBundle(bundle, bundle.to_bytes(), text, release, "0000000000000000")


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: `FaultyDisk` models what a power cut leaves of it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def faulty_disk() -> type[FaultyDisk]:
    return FaultyDisk


@pytest.fixture
def tears() -> tuple[Tear, ...]:
    return TEARS


@pytest.fixture
def power_cut() -> type[BaseException]:
    return PowerCutError


@pytest.fixture
def signed(pack, schema) -> Callable[..., SignedBundle]:
    """Make version n of the tiny model; other versions have other weights."""
    made: dict[int, Bundle] = {}

    def make(version: int, **changes: object) -> SignedBundle:
        if version not in made:
            made[version] = pack(schema, seed=version)
        return signed_of(made[version], version, **changes)

    return make
