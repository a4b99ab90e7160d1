"""The files of a machine below one folder, and the process that asks: all that checks may read."""

from __future__ import annotations

import grp
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from functools import cached_property
from pathlib import Path

from edge_gru.engines.tensorrt.cudart import open_cuda
from edge_gru.engines.tensorrt.settings import WAITS
from edge_gru.service.stamp import is_clock_synced

_MODULES = ("tensorrt", "onnxruntime", "edge_gru.native._native")
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_SYSTEM_PACKAGES = re.compile(r"/usr/lib/python3[\d.]*/dist-packages")


def _group_names() -> frozenset[str]:
    numbers = {os.getegid(), *os.getgroups()}
    return frozenset(group.gr_name for group in grp.getgrall() if group.gr_gid in numbers)


@dataclass(frozen=True)
class Process:
    """What checks must know of the Python that runs them.

    ``modules`` has the folder that a module would be imported from, ``distributions`` the versions
    of installed packages; ``groups`` are those that the process has, not those of the account.
    """

    version: tuple[int, int] = field(default_factory=lambda: sys.version_info[:2])
    executable: str = sys.executable
    is_virtual: bool = field(default_factory=lambda: sys.prefix != sys.base_prefix)
    is_conda: bool = field(default_factory=(Path(sys.prefix) / "conda-meta").is_dir)
    sees_system_packages: bool = field(
        default_factory=lambda: any(_SYSTEM_PACKAGES.fullmatch(path) for path in sys.path)
    )
    architecture: str = field(default_factory=platform.machine)
    modules: Mapping[str, str] = field(default_factory=lambda: _found(_MODULES))
    distributions: Mapping[str, str] = field(default_factory=lambda: _versions(_MODULES[:2]))
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    groups: frozenset[str] = field(default_factory=_group_names)

    def may_open(self, path: Path) -> bool:
        """Whether the process may read and write a file."""
        return os.access(path, os.R_OK | os.W_OK)

    def free_bytes(self, path: Path) -> int:
        """Return the space that is left for this process where a file would be made."""
        while not path.exists() and path != path.parent:
            path = path.parent
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def gpu(self) -> str:
        """Start CUDA, and describe the first GPU.

        Raises:
            EngineUnavailableError: there is no CUDA, driver or GPU, or this process may not use it.
        """
        found = open_cuda(WAITS["block"]).device()
        runtime, driver = (f"{n // 1000}.{n % 1000 // 10}" for n in astuple(found)[:2])
        return (
            f"compute capability {found.compute_capability}, {found.n_multiprocessors} SMs, "
            f"CUDA {runtime} on a driver for {driver}"
        )

    def is_clock_synced(self) -> bool:
        """Whether something keeps the wall clock right."""
        return is_clock_synced()

    def wall_s(self) -> float:
        """Return the wall clock, in seconds since 1970."""
        return time.time()


class Machine:
    """Reads what Linux tells of a machine; what cannot be read is absent, never an error."""

    def __init__(self, root: Path = Path("/"), process: Process | None = None) -> None:
        self.root = root
        self.process = process or Process()

    def path(self, name: str) -> Path:
        """Return where a file of the machine lies: ``/etc/hosts`` below its root."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """Read a small file without the NULs and blanks at its end; None: it cannot be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
        except OSError:  # also what a sensor that is off answers
            return None

    def number(self, name: str) -> int | None:
        """Read a file that holds one whole number; None: it does not."""
        text = self.text(name)
        return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None

    def glob(self, pattern: str) -> list[str]:
        """Name the files that match, sorted, as the machine calls them."""
        return sorted(f"/{p.relative_to(self.root)}" for p in self.root.glob(pattern.lstrip("/")))

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.path(name).exists()

    @cached_property
    def packages(self) -> dict[str, str]:
        """Versions of the installed Debian packages; empty where there is no dpkg."""
        found = {}
        for paragraph in (self.text("/var/lib/dpkg/status") or "").split("\n\n"):
            fields = dict(
                line.split(": ", 1)
                for line in paragraph.splitlines()
                if line.startswith(("Package: ", "Status: ", "Version: "))
            )
            if fields.get("Status", "").endswith(" installed"):
                found[fields.get("Package", "")] = fields.get("Version", "")
        return found

    @cached_property
    def running(self) -> frozenset[str]:
        """Names of the processes that run."""
        names = (self.text(name) for name in self.glob("/proc/[0-9]*/comm"))
        return frozenset(name for name in names if name)

    @cached_property
    def l4t(self) -> tuple[int, ...] | None:
        """The version of Jetson Linux, such as (36, 4, 7); None: no Jetson."""
        match = _RELEASE.match(self.text("/etc/nv_tegra_release") or "")
        if match is None:
            return None
        return (int(match[1]), *map(int, match[2].split(".")))

    @property
    def is_jetson(self) -> bool:
        """Whether this is a Jetson board."""
        return self.l4t is not None


def dotted(version: Iterable[int]) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))


def _found(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except ImportError:  # the package around it needs what is not there
            continue
        if spec is not None and spec.origin is not None:
            found[name] = str(Path(spec.origin).parent)
    return found


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Find the versions of packages, whatever the case and dashes of their names."""
    wanted = tuple(names)
    return {
        name: found.version
        for found in importlib.metadata.distributions()
        if (name := (found.metadata["Name"] or "").lower().replace("-", "_")).startswith(wanted)
    }
