"""Debian systems in a folder: made once of Debian's packages, changed in a copy on top of that."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
ARCHS = {"amd64": "x86_64", "arm64": "aarch64"}
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

    @property
    def is_emulated(self) -> bool:
        """Whether its processor is another than this machine's."""
        return self.arch != ("arm64" if platform.machine() == "aarch64" else "amd64")

    def build(self) -> None:
        """Make what is not there yet: minutes, and an hour under emulation."""
        archive = self._base.with_suffix(".tar")
        bootstrap(archive, self.release, self.arch, f"--include={_PACKAGES}")
        if not self._base.is_dir():
            part = self._base.with_suffix(".unpacked")
            part.mkdir()
            subprocess.run(["tar", "-xpf", archive, "-C", part, "--numeric-owner"], check=True)
            part.rename(self._base)

    def run(
        self, *command: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it."""
        done = subprocess.run(
            self._entered(command), check=False, capture_output=True, text=True, input=stdin or ""
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done

    @contextmanager
    def running(
        self, *command: str, user: str = "root", environment: Mapping[str, str] | None = None
    ) -> Iterator[Path]:
        """Let a program run in it until this ends; yield the file that has what it printed."""
        log = self._work / f"{Path(command[0]).name}-{command[1]}.log"
        given = [f"{name}={value}" for name, value in (environment or {}).items()]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        words = self._entered(["env", *given, *become, *command])
        with log.open("w") as printed:
            process = subprocess.Popen(words, stdout=printed, stderr=subprocess.STDOUT)
        try:
            yield log
        finally:
            process.terminate()
            process.wait()

    def serving(self) -> int:
        """Tell which version of the model serves."""
        ledger = json.loads(self.run("edge-gru", "bundle", "list", "--json").stdout)
        return ledger["entries"][ledger["current"]]["version"]

    def version(self) -> str:
        """Tell which version of the package is installed."""
        return self.run("dpkg-query", "-W", "-f", "${Version}", "edge-gru").stdout

    def put(self, path: str, text: str) -> None:
        """Write a file into it."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def _entered(self, command: Sequence[str]) -> list[str]:
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        words = ["chroot", str(self.root), "env", "-i", path, "HOME=/root", "LC_ALL=C.UTF-8"]
        return [*words, *command]

    def names(self) -> set[str]:
        """List everything that is not in a file system of the kernel's."""
        tops = [path for path in self.root.iterdir() if path.name not in _OF_THE_KERNEL]
        found = [path for top in tops for path in [top, *top.rglob("*")]]
        return {str(path.relative_to(self.root)) for path in found}

    def _gid(self, group: str) -> str:
        lines = (self.root / "etc/group").read_text().splitlines()
        return next(line.split(":")[2] for line in lines if line.startswith(f"{group}:"))

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
        (self.root / "dev/pts").mkdir(exist_ok=True)
        settings = f"newinstance,ptmxmode=0666,mode=0660,gid={self._gid('dialout')}"
        _mount("-t", "devpts", "-o", settings, "devpts", self.root / "dev/pts")
        (self.root / "dev/ptmx").unlink(missing_ok=True)
        (self.root / "dev/ptmx").symlink_to("pts/ptmx")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", "--recursive", str(self.root)], check=True)
        _remove(self._work)


def bootstrap(archive: Path, release: str, arch: str, *options: str) -> None:
    """Write a small Debian system as an archive; one that is there already is kept."""
    if archive.exists():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(".part")
    command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--arch={arch}"]
    subprocess.run([*command, *options, release, str(part)], check=True)
    part.rename(archive)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _remove(folder: Path) -> None:
    """Remove a folder, never what is mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
