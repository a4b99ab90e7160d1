"""How the package's build compiles the C part; loaded by setuptools, never on a device.

Without a compiler, or with EDGE_GRU_NATIVE=0, the package is built without it: the engine table
then says that the native engine is absent. EDGE_GRU_NATIVE=aarch64 compiles for a board, with the
cross compiler of that name: of a Python's headers only the sizes of types differ between machines,
and those are the same on all 64-bit ones with Linux.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

_FLAGS = [
    "-std=c99",
    "-O3",
    "-ffp-contract=off",  # bit-identical everywhere: a * b + c is two roundings unless it says fma
    "-fvisibility=hidden",
    "-g0",
    "-Wall",
    "-Wextra",
]


_WANTED = os.environ.get("EDGE_GRU_NATIVE", "1")
_IS_WANTED = _WANTED != "0"
_BOARD = _WANTED if _WANTED not in ("0", "1") else None


class BuildNative(build_ext):
    """Adds to the extension that pyproject.toml names what cannot be written there."""

    def finalize_options(self) -> None:
        """Find the sources, numpy's headers and the flags."""
        super().finalize_options()
        self.extensions = self.extensions if _IS_WANTED else []
        for extension in self.extensions:
            folder = Path(extension.sources[0]).parent
            extension.sources = sorted(map(str, folder.glob("*.c")))
            extension.depends = sorted(map(str, folder.glob("*.h")))
            extension.include_dirs = [np.get_include()]
            extension.extra_compile_args = list(_FLAGS)
            extension.optional = _BOARD is None  # who names a board wants it compiled

    def build_extensions(self) -> None:
        """Compile, for a board with the compiler for it."""
        if _BOARD is not None:
            command = [f"{_BOARD}-linux-gnu-gcc"]
            self.compiler.set_executables(
                compiler_so=[*command, "-fPIC"], linker_so=[*command, "-shared"]
            )
        super().build_extensions()

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file as the Python of the board looks for it."""
        if _BOARD is None:
            return super().get_ext_filename(fullname)
        tag = f"cpython-{sys.version_info[0]}{sys.version_info[1]}-{_BOARD}-linux-gnu"
        return f"{fullname.replace('.', os.sep)}.{tag}.so"


class Wheel(bdist_wheel):
    """Without the extension, a wheel for every platform; with one for a board, for that alone."""

    def finalize_options(self) -> None:
        """Forget the extension where it is not wanted, or name the board."""
        if not _IS_WANTED:
            self.distribution.ext_modules = []
        if _BOARD is not None:
            self.plat_name = f"linux_{_BOARD}"
        super().finalize_options()
