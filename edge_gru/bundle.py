"""The artifact: one ``.egb`` file that holds a model in every form a board may need.

A zip archive, stored without compression, with flat names and a manifest that lists size and
SHA-256 of every part. The same model always gives the same bytes. Reading trusts nothing.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_gru import manifest as manifests
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.select import open_engine
from edge_gru.errors import BundleError
from edge_gru.manifest import Manifest, PartInfo

SUFFIX = ".egb"
MANIFEST = "manifest.json"
MAX_BYTES = 1 << 30
MAX_PARTS = 64

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: no clock in the bytes
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_REPACK = "copy or pack it again"
_N_BEGINNING = 64  # bytes, with the name of the first part in them
# Whatever zipfile makes of bytes that are no archive, or one in a form that it does not know.
_BROKEN = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Bundle:
    """A packed model: its manifest and the bytes of its parts."""

    manifest: Manifest
    parts: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def pack(cls, manifest: Manifest, parts: Mapping[str, bytes]) -> Bundle:
        """Make a bundle of a manifest whose ``parts`` are not filled in yet.

        Raises:
            BundleError: what ``load`` would refuse: an odd name, fields that contradict each other.
        """
        _check_names([MANIFEST, *parts])
        listed = {
            name: PartInfo(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in sorted(parts.items())
        }
        whole = msgspec.structs.replace(manifest, parts=listed)
        return cls(manifests.decode(manifests.encode(whole)), dict(parts))

    @property
    def hash(self) -> str:
        """SHA-256 of the manifest, which fixes every part."""
        return self.manifest.model_hash

    @property
    def source(self) -> EngineSource:
        """What engines are made from."""
        return EngineSource(self.manifest, self.parts)

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return len(self.to_bytes())

    def open(
        self, engine: str = "auto", *, streams: int = 1, precision: str | None = None
    ) -> Engine:
        """Open an engine on this model: ``auto``, or a name from the engine table.

        Raises:
            EngineUnavailableError: unknown, not installed, or not able to run this model.
            BundleError: a part that the engine reads is missing or broken.
        """
        return open_engine(engine, self.source, n_streams=streams, precision=precision)

    def to_bytes(self) -> bytes:
        """Write the archive; the same bundle always gives the same bytes."""
        text = manifests.encode(self.manifest)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, data in [(MANIFEST, text), *sorted(self.parts.items())]:
                info = zipfile.ZipInfo(name, _EPOCH)
                info.external_attr = 0o100644 << 16
                info.create_system = 3
                archive.writestr(info, data)
            archive.comment = hashlib.sha256(text).hexdigest().encode()
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file whole or not at all; return its path.

        Raises:
            BundleError: the folder is missing, full or not writable, or something that is no
                bundle stands there; nothing is left behind.
        """
        target = Path(path)
        check_place(target)
        try:
            write_atomically(target, self.to_bytes())
        except OSError as error:
            raise BundleError(
                f"cannot write {target}: {error.strerror or error}; "
                "choose a folder that exists and has space"
            ) from error
        return target


def check_place(target: Path) -> None:
    """Refuse a place that a bundle could not be saved to, before the work that makes one.

    Raises:
        BundleError: the folder is missing, or a recording, a model or a device stands there.
    """
    try:
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder does not exist")
        _check_replaceable(target)
    except OSError as error:
        raise BundleError(
            f"cannot write {target}: {error.strerror or error}; "
            "choose a folder that exists and has space"
        ) from error


def _check_replaceable(target: Path) -> None:
    """Refuse to write over a recording, a model or a device."""
    if target.is_dir() or not target.exists():
        return  # the folder says so itself
    if target.is_file():
        with target.open("rb") as file:
            beginning = file.read(_N_BEGINNING)
        if target.suffix == SUFFIX or not beginning or MANIFEST.encode() in beginning:
            return
    raise BundleError(
        f"{target} exists and is no bundle: it is left alone; give another name, or remove it"
    )


def write_atomically(target: Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old or the new one, never a part.

    Raises:
        OSError: the folder is missing, full or not writable; nothing is left behind.
    """
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    temporary = f".{target.name}.{secrets.token_hex(4)}"
    try:
        _write_new(folder, temporary, data)
        os.replace(temporary, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        with suppress(OSError):  # some network file systems cannot, and the file is there
            os.fsync(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(folder)


def _write_new(folder: int, name: str, data: bytes) -> None:
    """Write a file that gets its name when it is whole, so that a kill on the way leaves nothing.

    Where the file system has no nameless files (vfat, NFS), it has its name from the beginning.
    """
    try:
        handle, is_nameless = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o644, dir_fd=folder), True
    except OSError:
        new = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        handle, is_nameless = os.open(name, new, 0o644, dir_fd=folder), False
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)
        if is_nameless:  # a folder handle makes Python follow the link in /proc
            os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=folder, dst_dir_fd=folder)


def load(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check every hash.

    Raises:
        BundleError: missing, truncated, tampered with, hostile, or of another format.
    """
    file = Path(path)
    data = read_bytes(file)
    try:
        return parse(data)
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error


def read_bytes(file: Path) -> bytes:
    """Read a file that may be a bundle.

    Raises:
        BundleError: it cannot be read, is no regular file, or is larger than a bundle can be.
    """
    try:
        return _read(file)
    except OSError as error:
        raise BundleError(
            f"cannot read bundle {file}: {error.strerror or error}; check the path"
        ) from error


def _read(file: Path) -> bytes:
    status = file.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device may never end
        raise BundleError(f"{file}: expected a file, got a device or pipe; check the path")
    if status.st_size > MAX_BYTES:
        raise BundleError(
            f"{file}: expected at most {MAX_BYTES} bytes, got {status.st_size}; is it a bundle?"
        )
    return file.read_bytes()


def parse(data: bytes) -> Bundle:
    """Read a bundle from its bytes.

    Raises:
        BundleError: see ``load``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist(), len(data))
            comment = archive.comment
            contents = {info.filename: archive.read(info) for info in archive.infolist()}
    except BundleError:
        raise
    except _BROKEN as error:
        raise BundleError(
            f"expected a bundle, got {len(data)} bytes that are truncated or no archive ({error}); "
            f"{_REPACK}"
        ) from error
    text = contents.pop(MANIFEST, None)
    if text is None:
        raise BundleError(f"expected a bundle with {MANIFEST}, got an archive without; {_REPACK}")
    if hashlib.sha256(text).hexdigest().encode() != comment:
        raise BundleError(f"the manifest was changed after packing: its hash differs; {_REPACK}")
    manifest = manifests.decode(text)
    _check_parts(manifest, contents)
    return Bundle(manifest, contents)


def _check_members(members: list[zipfile.ZipInfo], n_bytes: int) -> None:
    """Refuse, before anything is read, what no packer of ours writes."""
    if sum(info.file_size for info in members) > n_bytes:
        raise BundleError(f"parts claim more than the file's {n_bytes} bytes; do not trust it")
    _check_names([info.orig_filename for info in members])
    for info in members:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise BundleError(
                f"expected stored parts, got a packed {info.filename}; do not trust this file"
            )
        if not stat.S_ISREG(info.external_attr >> 16):
            raise BundleError(
                f"expected regular files, got {info.filename}; do not trust this file"
            )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise BundleError(f"expected flat part names, got {name!r}; do not trust this bundle")
    if len(names) > MAX_PARTS or len(set(names)) != len(names):
        raise BundleError(
            f"expected at most {MAX_PARTS} distinct parts, got {len(names)}; {_REPACK}"
        )


def _check_parts(manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    if set(manifest.parts) != set(contents):
        odd = sorted(set(manifest.parts) ^ set(contents))
        raise BundleError(f"parts and manifest disagree on {odd}; {_REPACK}")
    for name, info in manifest.parts.items():
        data = contents[name]
        if len(data) != info.n_bytes or hashlib.sha256(data).hexdigest() != info.sha256:
            raise BundleError(f"part {name} was changed after packing: its hash differs; {_REPACK}")
