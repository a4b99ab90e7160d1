"""NVIDIA's Linux_for_Tegra: what must hold before it is flashed, and the overlay on its rootfs.

The names are those of the Jetson Linux Developer Guide, r36.4 and r38.2: chapters "Quick Start"
(apply_binaries.sh, l4t_create_default_user.sh) and "Flashing Support" (flash.sh, rootfs,
l4t_initrd_flash.sh, BOARD.conf).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from edge_gru.bundle import write_atomically
from edge_gru.errors import ShippingError
from edge_gru.shipping.gates import Gate
from edge_gru.shipping.login import Login, people
from edge_gru.shipping.overlay import folders_of, overlay_of
from edge_gru.shipping.rootfs_edits import Before, apply, edits_of, remember, restore
from edge_gru.shipping.source import Source
from edge_gru.shipping.stage import Stage
from edge_gru.shipping.target import ONNXRUNTIME, Target, l4t_major

MANIFEST = "edge-gru-overlay.json"
_WIZARD = "nv-oem-config"
_SPARE_BYTES = 64 << 20


class _Record(msgspec.Struct, frozen=True):
    """What an overlay has brought, and what it has changed, as that was before."""

    version: str
    files: list[str]
    folders: list[str]
    edited: dict[str, Before] = {}


class LinuxForTegra:
    """One such folder.

    ``board`` names the board's configuration, such as ``jetson-orin-nano-devkit``; ``login`` is
    what its owner gets in with; ``debs`` is a folder of packages that the first boot installs.
    """

    def __init__(
        self,
        folder: Path,
        board: str | None = None,
        login: Login | None = None,
        debs: Path | None = None,
    ) -> None:
        self.folder = folder
        self.rootfs = folder / "rootfs"
        self._board = board
        self._login = login or Login()
        self._debs = sorted(debs.glob("*.deb")) if debs is not None else None

    @property
    def target(self) -> Target:
        """What its rootfs needs.

        Raises:
            ShippingError: it has no Python, or one that nothing can be built for.
        """
        return Target(self._python())

    def gates(self) -> list[Gate]:
        """Look at everything that must hold before the overlay, and so before the flash."""
        return [gate for look in self._looks() for gate in look]

    def _looks(self) -> Iterator[Iterator[Gate]]:
        yield self._layout()
        yield self._file_system()
        yield self._contents()
        yield self._users()
        if self._board is not None:
            yield self._configuration(self._board)
        if self._debs is not None:
            yield self._packages(self._debs)

    def _layout(self) -> Iterator[Gate]:
        names = ("apply_binaries.sh", "flash.sh", "rootfs")
        missing = [name for name in names if not (self.folder / name).exists()]
        found = f"no {', '.join(missing)}" if missing else str(self.folder)
        yield Gate("Linux_for_Tegra", not missing, found, "name the folder of NVIDIA's archive")

    def _file_system(self) -> Iterator[Gate]:
        may = os.access(self.rootfs, os.W_OK) and self._owner() in (None, os.geteuid())
        found = "may write rootfs" if may else "rootfs is another's"
        yield Gate("rights", may, found, "run it with sudo")
        sudo = _status(self.rootfs / "usr/bin/sudo")
        keeps = sudo is None or (bool(sudo.st_mode & stat.S_ISUID) and sudo.st_uid == 0)
        found = "keeps owners and setuid" if keeps else "usr/bin/sudo has lost its owner or setuid"
        yield Gate("file system", keeps, found, "unpack with sudo tar, on ext4, not NTFS or exFAT")

    def _owner(self) -> int | None:
        found = _status(self.rootfs)
        return None if found is None else found.st_uid

    def _contents(self) -> Iterator[Gate]:
        major = self._l4t()
        found = f"Jetson Linux r{major}" if major else "rootfs has no etc/nv_tegra_release"
        fix = "unpack the sample root file system, then: sudo ./apply_binaries.sh"
        yield Gate("drivers", major is not None, found, fix)
        if major is None:
            return
        version = self._python()
        fix = f"expected usr/bin/python3 to be one of {', '.join(ONNXRUNTIME)}; use JetPack 6 or 7"
        yield Gate("Python", version in ONNXRUNTIME, version or "rootfs has none", fix)

    def _python(self) -> str:
        """The version of the system's Python, told by the name that its link leads to."""
        link = self.rootfs / "usr/bin/python3"
        name = link.readlink().name if link.is_symlink() else ""
        return name.removeprefix("python")

    def _l4t(self) -> int | None:
        try:
            return l4t_major((self.rootfs / "etc/nv_tegra_release").read_text(errors="replace"))
        except OSError:
            return None

    def _users(self) -> Iterator[Gate]:
        names = [person.name for person in people(self.rootfs)]
        user = self._login.user
        is_there = user in names if user else bool(names)
        found = ", ".join(names) or "nobody can log in"
        fix = (
            f"sudo ./tools/l4t_create_default_user.sh -u {user or 'NAME'} -p PASSWORD "
            f"-n {self._login.hostname or 'HOST'} --accept-license"
        )
        if user and names and not is_there:
            found = f"{found}, and not {user} as in deploy.toml"
        yield Gate("default user", is_there, found, fix)
        target = self.rootfs / "etc/systemd/system/default.target"
        asks = target.is_symlink() and _WIZARD in str(target.readlink())
        found = "starts, and waits for somebody before there is ssh" if asks else "does not start"
        fix = "create the default user first, which switches it off"
        yield Gate("first-boot wizard", not asks, found, fix)

    def _configuration(self, board: str) -> Iterator[Gate]:
        known = sorted(path.stem for path in self.folder.glob("jetson-*.conf"))
        is_known = (self.folder / f"{board}.conf").is_file()
        found = board if is_known else f"there is no {board}.conf"
        yield Gate("board", is_known, found, f"name one of {', '.join(known) or 'another folder'}")

    def _packages(self, debs: Sequence[Path]) -> Iterator[Gate]:
        """Look at packages by their names: name_version_architecture.deb."""
        others = [deb.name for deb in debs if not deb.stem.endswith(("_arm64", "_all"))]
        found = f"{others[0]} is for another" if others else f"{len(debs)} for the first boot"
        yield Gate(
            "packages",
            bool(debs) and not others,
            found if debs else "there are none",
            "name a folder of *_arm64.deb, such as libnvinfer's and python3-libnvinfer",
        )

    def space_gate(self, n_bytes: int) -> Gate:
        """Tell whether the overlay fits where the rootfs lies."""
        n_free = shutil.disk_usage(self.folder).free
        n_bytes += sum(deb.stat().st_size for deb in self._debs or ())
        n_needed = n_bytes + _SPARE_BYTES
        found = f"{n_free / 1e6:.0f} MB free, {n_needed / 1e6:.0f} MB needed"
        return Gate("space", n_free >= n_needed, found, f"make space in {self.folder}")

    def lay(self, stage: Stage, source: Source) -> int:
        """Put the tree over the rootfs, enabled and known to its dpkg; return how many files.

        What an earlier overlay has brought is taken away first. Host name and ssh keys change files
        of the rootfs itself.

        Raises:
            ShippingError: something else has one of the files.
            ConfigError: a file of ssh keys does not hold what it should.
            OSError: they cannot be written.
        """
        self.remove()
        files = overlay_of(stage, source, self._debs or ())
        taken = [path for path in files if os.path.lexists(self.rootfs / path)]
        if taken:
            raise ShippingError(
                f"rootfs has {taken[0]} already, and not from here; take out what has brought it"
            )
        self._stay_inside(files)
        folders = [path for path in folders_of(files) if not (self.rootfs / path).is_dir()]
        edits = edits_of(self._login, self.rootfs)
        edited = remember(self.rootfs, edits)
        made = [e.folder for e in edits.values() if e.folder]
        folders += [path for path in made if not (self.rootfs / path).is_dir()]
        record = _Record(stage.version, sorted(files), folders, edited)
        write_atomically(self.folder / MANIFEST, msgspec.json.encode(record))
        for path in sorted(set(folders) - set(made)):
            (self.rootfs / path).mkdir()
            (self.rootfs / path).chmod(0o755)
        for path, (content, mode) in sorted(files.items()):
            _write(self.rootfs / path, content, mode)
        apply(self.rootfs, edits)
        return len(files)

    def changes(self) -> list[str]:
        """List the files of the rootfs itself that host name and ssh keys change.

        Raises:
            ConfigError: a file of ssh keys does not hold what it should.
            ShippingError: there is nobody whom they could let in.
        """
        return [str(self.rootfs / path) for path in edits_of(self._login, self.rootfs)]

    def _stay_inside(self, files: Iterable[str]) -> None:
        """Follow no link of the rootfs out of it: on this machine it leads somewhere else."""
        inside = self.rootfs.resolve()
        for path in files:
            place = (self.rootfs / path).parent.resolve()
            if not place.is_relative_to(inside):
                raise ShippingError(
                    f"rootfs/{path} would be written to {place}, out of rootfs; "
                    "replace the absolute link on the way by a relative one"
                )

    def brought(self) -> list[str]:
        """List what an overlay has brought or changed; nothing without one.

        Raises:
            ShippingError: the record of it cannot be read.
        """
        record = self._record()
        paths = [] if record is None else [*record.files, *record.edited]
        return [str(self.rootfs / path) for path in paths]

    def _record(self) -> _Record | None:
        place = self.folder / MANIFEST
        if not place.exists():
            return None
        try:
            return msgspec.json.decode(place.read_bytes(), type=_Record)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ShippingError(f"{place} is damaged ({error}); unpack the rootfs anew") from error

    def remove(self) -> int:
        """Take the overlay away; return how many files that were.

        Raises:
            ShippingError: the record of it cannot be read.
        """
        record = self._record()
        if record is None:
            return 0
        for path in record.files:
            (self.rootfs / path).unlink(missing_ok=True)
        restore(self.rootfs, record.edited)
        for path in reversed(record.folders):
            folder = self.rootfs / path
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        (self.folder / MANIFEST).unlink()
        return len(record.files)


def _write(place: Path, content: bytes | Path | str, mode: int) -> None:
    if isinstance(content, str):
        place.symlink_to(content)
        return
    place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    place.chmod(mode)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
