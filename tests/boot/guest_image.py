"""A bootable arm64 Debian, made of its packages: kernel, initial ramdisk and disk, kept for reuse.

Nothing of arm64 runs while it is made: packages are unpacked, and what their scripts would do for
a machine like this is done from outside. It has the system's own kernel, systemd, udev, D-Bus,
ModemManager and Python, and QEMU's agent, through which the host runs commands.
"""

from __future__ import annotations

import compileall
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

RELEASE = "bookworm"
PYTHON = "3.11"  # of that release
PACKAGES = (
    *("linux-image-arm64", "busybox-static", "qemu-guest-agent", "systemd", "systemd-sysv"),
    *("udev", "dbus", "kmod", "procps", "python3", "libstdc++6", "modemmanager"),
)
_DISK_MB = 2000
_N_TRIES = 4
_DISK_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
# Unpacked, not installed: what would ask questions at the first boot, or the network for updates.
_MASKED = ("systemd-firstboot.service", "apt-daily.timer", "apt-daily-upgrade.timer")
_NOT_NEEDED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "boot"),
    *(f"usr/lib/modules/*/kernel/{name}" for name in ("sound", "drivers/gpu", "drivers/media")),
    *(f"usr/lib/modules/*/kernel/drivers/{name}" for name in ("net/wireless", "net/ethernet")),
)
_FOLDERS = ("mnt", "opt", "srv", "media", "home", "var/opt", "var/mail", "usr/local/bin")
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module; done
until [ -b /dev/vda ]; do /bin/busybox usleep 50000; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""


class GuestImage:
    """The files a `Guest` boots from; the same packages are built once.

    Args:
        folder: where images are kept.
        packages: what is in it besides the essential ones.
        say: is told what takes time.

    Raises:
        PermissionError: not root.
        OSError, subprocess.CalledProcessError: no tool, or no package server.
    """

    def __init__(
        self, folder: Path, packages: Sequence[str] = PACKAGES, say: Callable[[str], None] = print
    ) -> None:
        recipe = json.dumps([RELEASE, *packages, Path(__file__).read_text()])
        self._packages = packages
        self._say = say
        self._folder = folder / hashlib.sha256(recipe.encode()).hexdigest()[:12]

    @property
    def kernel(self) -> Path:
        """The kernel of Debian's package."""
        return self._folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """A ramdisk that mounts the disk and hands over to its systemd."""
        return self._folder / "initrd.img"

    @property
    def disk(self) -> Path:
        """The root file system; to be left as it is, see `copy_disk`."""
        return self._folder / "disk.img"

    @property
    def rootfs(self) -> Path:
        """The prepared root file system as a tar archive, for who puts more into it."""
        return self._folder / "rootfs.tar"

    def build(self) -> None:
        """Make what is not there yet: minutes, and some 150 MB from the package server."""
        if self._folder.is_dir():
            return
        if os.geteuid():
            raise PermissionError("expected to run as root, who alone can keep owners of files")
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder.parent) as made:
            part = Path(made, "image")
            tree = Path(made, "tree")
            part.mkdir()
            tree.mkdir()
            self._fetch(Path(made, "packages.tar"))
            subprocess.run(["tar", "-xf", f"{made}/packages.tar", "-C", tree], check=True)
            self._say("packages are here; preparing the system")
            (kernel,) = (tree / "boot").glob("vmlinuz-*")
            shutil.copy(kernel, part / "vmlinuz")
            release = kernel.name.removeprefix("vmlinuz-")
            prepare(tree, release)
            write_ramdisk(tree, release, part / "initrd.img")
            subprocess.run(["tar", "-cf", part / "rootfs.tar", "-C", tree, "."], check=True)
            write_disk(tree, part / "disk.img")
            part.rename(self._folder)

    def _fetch(self, target: Path) -> None:
        """Download and unpack the packages; package servers have bad moments."""
        command = ["mmdebstrap", "--arch=arm64", "--variant=extract", "--quiet"]
        command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=?essential"]
        command += [f"--include={','.join(self._packages)}", "--aptopt=Acquire::Retries 5"]
        for attempt in range(_N_TRIES):
            self._say(f"fetching {len(self._packages)} packages and what they need")
            made = subprocess.run(
                [*command, RELEASE, target], check=False, capture_output=True, text=True
            )
            if made.returncode == 0:
                return
            self._say(f"attempt {attempt + 1} failed: {made.stderr[-300:]}")
        made.check_returncode()

    def copy_disk(self, target: Path) -> Path:
        """Return a disk of one's own, to be written to and booted more than once."""
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.disk, target], check=True)
        return target


def prepare(tree: Path, kernel_release: str) -> None:
    """Do what the scripts of the unpacked packages would have done."""
    for pattern in _NOT_NEEDED:
        for path in tree.glob(pattern):
            shutil.rmtree(path)
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    if not (tree / "var/run").is_symlink():  # where D-Bus is looked for
        shutil.rmtree(tree / "var/run", ignore_errors=True)
        (tree / "var/run").symlink_to("/run")
    for name in ("passwd", "group"):
        text = (tree / f"usr/share/base-passwd/{name}.master").read_text()
        (tree / "etc" / name).write_text(text.replace("root:*:", "root::"))
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/hostname").write_text("edge-gru-guest\n")
    (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (tree / "usr/bin/awk").symlink_to("mawk")
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        library = tree / f"usr/lib/python{PYTHON}"
        compileall.compile_dir(library, quiet=2, stripdir=str(tree), prependdir="/")
    subprocess.run(["depmod", "-b", tree, kernel_release], check=True)
    subprocess.run(["systemd-sysusers", f"--root={tree}"], check=True, capture_output=True)
    systemctl = ["systemctl", f"--root={tree}", "--quiet"]
    subprocess.run([*systemctl, "preset-all"], check=True, capture_output=True)
    subprocess.run([*systemctl, "mask", *_MASKED], check=True, capture_output=True)


def write_ramdisk(tree: Path, kernel_release: str, target: Path) -> None:
    """Write a ramdisk with the disk's drivers and a shell script that mounts it."""
    with tempfile.TemporaryDirectory() as made:
        top = Path(made)
        for name in ("bin", "dev", "root", "modules"):
            (top / name).mkdir()
        shutil.copy(tree / "bin/busybox", top / "bin/busybox")
        modules = [
            Path(line.split()[1])
            for name in _DISK_MODULES
            for line in subprocess.run(
                ["modprobe", "-d", tree, "-S", kernel_release, "--show-depends", name],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()
            if line.startswith("insmod ")
        ]
        names = list(dict.fromkeys(path.name for path in modules))
        for path in modules:
            shutil.copy(path, top / "modules")
        (top / "init").write_text(_INIT.format(modules=" ".join(names)))
        (top / "init").chmod(0o755)
        listed = "\n".join(str(p.relative_to(top)) for p in sorted(top.rglob("*")))
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"],
            check=True,
            cwd=top,
            input=listed.encode(),
            capture_output=True,
        )
    target.write_bytes(gzip.compress(packed.stdout, 1))


def write_disk(tree: Path, target: Path, *, n_mb: int = _DISK_MB, label: str = "root") -> None:
    """Write an ext4 file system with the files under ``tree``."""
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", str(tree), str(target)]
    subprocess.run([*command, f"{n_mb}M"], check=True, capture_output=True)
