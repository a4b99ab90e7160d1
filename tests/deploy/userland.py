"""Debian systems in a folder: made once of Debian's packages, changed in a copy on top of that."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
_OF_THE_KERNEL = ("proc", "sys", "dev", "run", "tmp")
_PACKAGES = "systemd,systemd-sysv,udev,python3,libstdc++6,openssh-server"


class Userland:
    """One system, as root of a chroot; a context manager that forgets all changes at its end.

    Args:
        folder: where systems are kept.
        release: of Debian, such as bookworm.
        arch: Debian's name; a foreign one needs qemu-user-static and binfmt_misc.
    """

    def __init__(self, folder: Path, release: str, arch: str) -> None:
        self.release = release
        self.arch = arch
        self._base = folder / f"{release}-{arch}"
        self._work = folder / f"{release}-{arch}-work"
        self.root = self._work / "root"

    def build(self) -> None:
        """Make what is not there yet: minutes, and an hour under emulation."""
        archive = self._base.with_suffix(".tar")
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            part = archive.with_suffix(".part")
            command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase"]
            command += [f"--arch={self.arch}", f"--include={_PACKAGES}", self.release, str(part)]
            subprocess.run(command, check=True)
            part.rename(archive)
        if not self._base.is_dir():
            part = self._base.with_suffix(".unpacked")
            part.mkdir()
            subprocess.run(["tar", "-xpf", archive, "-C", part, "--numeric-owner"], check=True)
            part.rename(self._base)

    def run(
        self, *command: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it."""
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        words = ["chroot", str(self.root), "env", "-i", path, "HOME=/root", "LC_ALL=C.UTF-8"]
        done = subprocess.run(
            [*words, *command], check=False, capture_output=True, text=True, input=stdin or ""
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done

    def names(self) -> set[str]:
        """List everything that is not in a file system of the kernel's."""
        tops = [path for path in self.root.iterdir() if path.name not in _OF_THE_KERNEL]
        found = [path for top in tops for path in [top, *top.rglob("*")]]
        return {str(path.relative_to(self.root)) for path in found}

    def __enter__(self) -> Userland:  # noqa: PYI034 - Self needs Python 3.11
        self.build()
        for name in ("root", "upper", "over"):
            (self._work / name).mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={self._base},upperdir={self._work}/upper,workdir={self._work}/over"
        _mount("-t", "overlay", "overlay", "-o", layers, self.root)
        _mount("-t", "proc", "proc", self.root / "proc")
        for name in ("null", "zero", "urandom", "random"):
            place = self.root / "dev" / name
            if not place.exists():
                place.touch()
                _mount("--bind", f"/dev/{name}", place)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", "--recursive", str(self.root)], check=True)
        _remove(self._work)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _remove(folder: Path) -> None:
    """Remove a folder, never what is mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
