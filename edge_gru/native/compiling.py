"""How the package's build compiles the C part; loaded by setuptools, never on a device.

Without a compiler, or with EDGE_GRU_NATIVE=0, the package is built without it: the engine table
then says that the native engine is absent.
"""

from __future__ import annotations

import os
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


_IS_WANTED = os.environ.get("EDGE_GRU_NATIVE") != "0"


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


class Wheel(bdist_wheel):
    """Without the extension, a wheel for every platform."""

    def finalize_options(self) -> None:
        """Forget the extension where it is not wanted."""
        if not _IS_WANTED:
            self.distribution.ext_modules = []
        super().finalize_options()
