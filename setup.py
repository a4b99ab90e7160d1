"""The C extension of the native engine. Everything else of the package is in pyproject.toml.

Without a compiler, or with EDGE_GRU_NATIVE=0, the package is built without it: the engine table
then says that the native engine is absent.
"""

import os
from pathlib import Path

import numpy as np
from setuptools import Extension, setup

SOURCES = Path("edge_gru/native/src")
FLAGS = [
    "-std=c99",
    "-O3",
    "-ffp-contract=off",  # bit-identical everywhere: a * b + c is two roundings unless it says fma
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]

native = Extension(
    "edge_gru.native._native",
    sources=sorted(map(str, SOURCES.glob("*.c"))),
    depends=sorted(map(str, SOURCES.glob("*.h"))),
    include_dirs=[np.get_include()],
    extra_compile_args=FLAGS,
    optional=True,
)

setup(ext_modules=[] if os.environ.get("EDGE_GRU_NATIVE") == "0" else [native])
