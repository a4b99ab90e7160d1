"""The file system as the store uses it: every change is one call, so that tests can cut any."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from edge_gru.errors import StoreError

FOLDER_MODE = 0o755
FILE_MODE = 0o644


class Disk:
    """Changes below one folder; names are relative to it.

    A method that changes something makes one system call and raises its ``OSError``. Nothing
    follows a link in the last part of a name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def make_folder(self, name: str) -> None:
        """Make a folder, readable for all."""
        (self.root / name).mkdir(FOLDER_MODE)

    def create(self, name: str) -> int:
        """Make a file that must not exist, and open it for writing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.root / name, flags, FILE_MODE)

    def write(self, handle: int, data: memoryview) -> int:
        """Write what the system takes; return how much that was."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Make a file's content durable."""
        os.fsync(handle)

    def sync_folder(self, name: str = "") -> None:
        """Make the names in a folder durable, where the file system can."""
        handle = os.open(self.root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot
                raise
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        """Give a file, link or folder another name; what had it before is gone."""
        (self.root / old).rename(self.root / new)

    def link(self, target: str, name: str) -> None:
        """Make a symbolic link."""
        (self.root / name).symlink_to(target)

    def remove(self, name: str) -> None:
        """Remove a file or link."""
        (self.root / name).unlink()

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        (self.root / name).rmdir()

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read a regular file of at most ``max_bytes``.

        Raises:
            OSError: it is absent, a link, something else, or longer.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(self.root / name, flags)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            os.close(handle)
            raise OSError(errno.EINVAL, "not a regular file of the expected size", name)
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def names(self, name: str = "") -> list[str]:
        """List a folder, sorted."""
        return sorted(path.name for path in (self.root / name).iterdir())

    def target(self, name: str) -> str | None:
        """Tell where a symbolic link points; None: it is none."""
        try:
            return str((self.root / name).readlink())
        except OSError:
            return None

    def is_there(self, name: str) -> bool:
        """Tell whether something has a name."""
        return os.path.lexists(self.root / name)

    def is_folder(self, name: str) -> bool:
        """Tell whether a name is that of a folder, not of a link to one."""
        try:
            return stat.S_ISDIR(os.lstat(self.root / name).st_mode)
        except OSError:
            return False

    def n_free_bytes(self) -> int:
        """Tell how much can be written."""
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_frsize

    def lock(self, name: str) -> int:
        """Open a file and lock it for this process alone; closing the handle unlocks it.

        Raises:
            BlockingIOError: another process has it.
            OSError: the folder cannot be written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self.root / name, flags, FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle


def write_file(disk: Disk, name: str, data: bytes) -> None:
    """Make a new file with durable content; its name is durable once its folder is synced."""
    handle = disk.create(name)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[disk.write(handle, rest) :]
        disk.sync(handle)
    finally:
        os.close(handle)


def replace_file(disk: Disk, name: str, data: bytes) -> None:
    """Put a file in the place of another, so that there is always the old or the new one."""
    temporary = f".{name}.new"
    discard(disk, temporary)
    try:
        write_file(disk, temporary, data)
        disk.rename(temporary, name)
    except OSError:
        with suppress(OSError):  # the next change removes it
            discard(disk, temporary)
        raise
    disk.sync_folder()


def replace_link(disk: Disk, name: str, target: str | None) -> None:
    """Point a link elsewhere in one step, or remove it; not durable before the folder is synced."""
    if disk.target(name) == target:
        return
    if target is None:
        disk.remove(name)
        return
    temporary = f".{name}.new"
    discard(disk, temporary)
    disk.link(target, temporary)
    disk.rename(temporary, name)


def discard(disk: Disk, name: str) -> None:
    """Remove a file, link, or folder of files, if it is there."""
    if disk.is_folder(name):
        for inner in disk.names(name):
            disk.remove(f"{name}/{inner}")
        disk.remove_folder(name)
    elif disk.is_there(name):
        disk.remove(name)


def explain(error: OSError, root: Path, what: str = "change") -> StoreError:
    """Turn a failed call, which was to ``what`` the store, into the sentence that people need."""
    hints = {
        errno.ENOSPC: "make space there",
        errno.EDQUOT: "make space there",
        errno.EROFS: "mount it for writing",
        errno.EACCES: "run it as root, or as the user of the service",
        errno.EPERM: "run it as root, or as the user of the service",
        errno.ENOENT: "make the folder first",
    }
    hint = hints.get(error.errno or 0, "check the disk")
    return StoreError(f"cannot {what} the store {root}: {error.strerror or error}; {hint}")
