"""A folder that is ours alone: no links are followed, and files appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_gru.errors import EngineUnavailableError

_TEMPORARY = ".part"
_LOCK = "lock"
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_POLL_S = 0.2


class PrivateFolder:
    """Files in a folder that belongs to this user and that no other can write to.

    All names are resolved in the folder that was checked, so nobody can put another in its place.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[PrivateFolder]:
        """Open it; make it, for its owner alone, where it is not there.

        Raises:
            EngineUnavailableError: it cannot be made, is a link, or others could write to it.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise EngineUnavailableError(
                f"expected a folder {path} for TensorRT plans, got {error.strerror}; "
                "set EDGE_GRU_TENSORRT_CACHE to one that you can write to"
            ) from error
        try:
            _check(path, descriptor)
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read a file.

        Raises:
            OSError: it is not there, no regular file of ours, or longer than ``max_bytes``.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no waiting for a pipe
        with open(os.open(name, flags, dir_fd=self._descriptor), "rb") as file:  # noqa: PTH123 - relative to a folder
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise OSError(f"{name} is not a regular file of this user")
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise OSError(f"{name} is longer than {max_bytes} bytes")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file: on a power cut, either the old one or the whole new one is there.

        Raises:
            OSError: it cannot be written.
        """
        temporary = f"{name}.{secrets.token_hex(8)}{_TEMPORARY}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(temporary, flags, 0o600, dir_fd=self._descriptor)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(data)
                file.flush()
                os.fsync(handle)
            os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except OSError:
            self.remove(temporary)
            raise
        os.fsync(self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where it cannot be."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)

    def names(self) -> list[str]:
        """List what is in it."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208 - of a descriptor

    def age_order(self, names: list[str]) -> list[str]:
        """Sort files, the one written last first; without those that are gone."""
        times: dict[str, int] = {}
        for name in names:
            with suppress(OSError):
                found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                times[name] = found.st_mtime_ns
        return sorted(times, key=times.__getitem__, reverse=True)

    def remove_temporary(self) -> None:
        """Remove what writers left that were killed; only where no other can be writing."""
        for name in self.names():
            if name.endswith(_TEMPORARY):
                self.remove(name)

    @contextmanager
    def locked(self, cancel: threading.Event, on_wait: Callable[[], None]) -> Iterator[None]:
        """Keep all others out who lock it; a lock ends with its process, however that ends.

        Raises:
            EngineUnavailableError: ``cancel`` was set while waiting, or there can be no lock here.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(_LOCK, flags, 0o600, dir_fd=self._descriptor)
        except OSError as error:
            raise unwritable(error) from error
        try:
            if not _try_lock(handle):
                on_wait()
                while not _try_lock(handle):
                    if cancel.wait(_POLL_S):
                        raise EngineUnavailableError(
                            "waiting for another process to build a TensorRT plan was stopped"
                        )
            yield
        finally:
            os.close(handle)


def unwritable(error: OSError) -> EngineUnavailableError:
    """Explain why plans cannot be kept: better no engine than a build at every start."""
    return EngineUnavailableError(
        f"expected to write to the folder of TensorRT plans, got {error.strerror or error}; "
        "free space, or set EDGE_GRU_TENSORRT_CACHE to a folder that you can write to"
    )


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise unwritable(error) from error
    return True


def _check(path: Path, descriptor: int) -> None:
    """A plan is native code: whoever can write here can run code as this user."""
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        raise EngineUnavailableError(
            f"expected the folder of TensorRT plans {path} to belong to user {os.geteuid()}, got "
            f"{found.st_uid}; set EDGE_GRU_TENSORRT_CACHE to another"
        )
    if found.st_mode & _OTHERS_WRITE:
        raise EngineUnavailableError(
            f"expected that only its owner can write to the folder of TensorRT plans {path}, got "
            f"mode {stat.S_IMODE(found.st_mode):o}; empty it, and chmod 700 it"
        )
    if found.st_mode & _OTHERS:
        os.fchmod(descriptor, 0o700)
