"""NVIDIA's own bindings, importable where there is no TensorRT: wheels, and libraries without code.

A wheel of the bindings has every class, enum and signature, and is linked to libraries that are not
in it. Empty ones of the same names take their place; the few functions that the bindings look for
return 0. So nothing can be built or run with it, and everything can be looked up. The wheels are
NVIDIA's: they stay in a folder of the cache, outside version control and packages.
"""

from __future__ import annotations

import ctypes
import fcntl
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "tensorrt"
_PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
_SYSTEM = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")
_NVIDIA = re.compile(r"\(NEEDED\).*\[(lib(?:nv|cu)[^]]*)\]")
_PACKAGE = """\
import tensorrt_bindings
from tensorrt_bindings import *
from tensorrt_bindings import __version__
"""


class UnavailableError(Exception):
    """Why there are no bindings here: no network, no compiler, no wheel for this Python."""


def fetch(version: str) -> Path:
    """Make one version importable; returns the folder to put on the path."""
    for tool in ("cc", "nm", "readelf"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not installed")
    folder = CACHE / version / _PYTHON
    with _alone():
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            unpack(f"tensorrt-cu12-bindings=={version}", folder)
            _add_libraries(folder)
            (folder / "tensorrt").mkdir()
            (folder / "tensorrt" / "__init__.py").write_text(_PACKAGE)
            (folder / "ready").touch()
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process make folders at a time: tests run in several."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch_runtime(requirement: str) -> Path:
    """Get a real CUDA runtime; returns its library."""
    folder = CACHE / re.sub(r"\W+", "-", requirement)
    with _alone():
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            unpack(requirement, folder)
            (folder / "ready").touch()
    return next(folder.rglob("libcudart.so.*"))


def unpack(requirement: str, folder: Path) -> None:
    """Download a wheel for this Python and unpack it."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--only-binary=:all:", "--dest", str(wheels), requirement],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise UnavailableError(f"pip has no {requirement}: {done.stderr.strip().splitlines()[-1:]}")
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    shutil.rmtree(wheels)


def _add_libraries(folder: Path) -> None:
    binding = folder / "tensorrt_bindings" / "tensorrt.so"
    libraries = folder / "tensorrt_libs"
    libraries.mkdir()
    source = folder / "nothing.c"
    names = _missing_functions(binding)
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    loads = ["import ctypes, pathlib", "here = pathlib.Path(__file__).parent"]
    for library in _NVIDIA.findall(_output("readelf", "-d", str(binding))):
        text = str(source) if library.startswith("libnvinfer.so") else "/dev/null"
        _output("cc", "-shared", "-fPIC", "-w", "-x", "c", text, f"-Wl,-soname,{library}",
                "-o", str(libraries / library))  # fmt: skip
        loads.append(f"ctypes.CDLL(str(here / {library!r}), mode=ctypes.RTLD_GLOBAL)")
    (libraries / "__init__.py").write_text("\n".join(loads) + "\n")


def _missing_functions(binding: Path) -> list[str]:
    """List what the bindings expect and neither Python nor the system has."""
    system = [ctypes.CDLL(name) for name in _SYSTEM]
    wanted = set()
    for line in _output("nm", "-D", "--undefined-only", str(binding)).splitlines():
        kind, _, name = line.strip().partition(" ")
        if kind == "U" and "@" not in name and not re.match(r"_?Py", name):
            wanted.add(name)
    return sorted(name for name in wanted if not any(hasattr(lib, name) for lib in system))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
