"""Get NVIDIA's parser and builder to work on a CPU, and ask them; see README.md for the licence.

python tests/quantization/tensorrt/builder.py    gets them
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("EDGE_GRU_TENSORRT_PARSE", HERE.parents[2] / ".cache/tensorrt-parse"))
BINDINGS = "tensorrt-cu12-bindings==11.4.0.106"
PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0"  # both are of one line of NVIDIA's code
_LIBRARY = re.compile(r"libtensorrt(_onnxparser)?_rtx\.so\.[\d.]+")
_NEEDED = re.compile(r"\(NEEDED\).*\[(lib(?:nv|cuda|cudnn|cublas)[^]]*)\]")
_PYTHON = FOLDER / "venv/bin/python"


@dataclass(frozen=True)
class Layer:
    """A layer of an engine: its kind, the types it reads, and the ONNX nodes in it."""

    kind: str
    inputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def is_int8_product(self) -> bool:
        """Whether it multiplies in INT8."""
        return self.kind == "gemm" and "Int8" in self.inputs


@dataclass(frozen=True)
class Built:
    """What became of a graph; ``error`` says why there is no engine."""

    error: str
    layers: tuple[Layer, ...] = ()

    @property
    def n_int8(self) -> int:
        """Number of products in INT8."""
        return sum(layer.is_int8_product for layer in self.layers)

    def is_int8(self, node: str) -> bool:
        """Whether an ONNX node is in a product in INT8."""
        return any(layer.is_int8_product and node in layer.nodes for layer in self.layers)


def is_there() -> bool:
    """Whether it was got."""
    return (FOLDER / "ready").exists()


def build_all(graphs: Sequence[Path], batch: tuple[int, int, int] = (1, 1, 1)) -> list[Built]:
    """Parse and build graphs, for a smallest, usual and largest batch."""
    lines = "".join(json.dumps([str(path), batch]) + "\n" for path in graphs)
    command = [str(_PYTHON), str(HERE / "worker.py")]
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, check=False, timeout=1200
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    if len(results) != len(graphs):
        raise RuntimeError(f"the builder ended at {graphs[len(results)]}: {done.stderr[-2000:]}")
    return [_built(result) for result in results]


def _built(result: dict) -> Built:
    layers = (
        Layer(row["kind"], tuple(row["inputs"]), tuple(row["nodes"]))
        for row in result.get("layers", ())
    )
    return Built(result["error"], tuple(layers))


def get() -> None:
    """Make the environment: the bindings, the two libraries, and what joins them."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("NVIDIA's builder for CPUs is there for Linux on x86-64 alone")
    venv.create(FOLDER / "venv", with_pip=True)
    _pip("install", "--no-deps", BINDINGS)
    _pip("install", "numpy")
    _pip("download", "--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64",
         "-d", str(FOLDER), PLUGIN)  # fmt: skip
    builder, parser = _unpacked(next(FOLDER.glob("onnxruntime_ep_*.whl")))
    packages = next((FOLDER / "venv/lib").glob("python3*/site-packages"))
    _compile(packages, builder, parser)
    (FOLDER / "ready").touch()


def _pip(*arguments: str) -> None:
    subprocess.run([str(_PYTHON), "-m", "pip", "-q", *arguments], check=True)


def _unpacked(wheel: Path) -> tuple[Path, Path]:
    """Take the libraries, and the texts that say whose they are, out of the plug-in's wheel."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = PurePosixPath(member).name
            if _LIBRARY.fullmatch(name) or name in ("README.txt", "Acknowledgements.txt"):
                (FOLDER / name).write_bytes(archive.read(member))
                found[name] = FOLDER / name
    parser = next(path for name, path in found.items() if "_onnxparser_" in name)
    builder = next(p for n, p in found.items() if _LIBRARY.fullmatch(n) and p != parser)
    return builder, parser


def _compile(packages: Path, builder: Path, parser: Path) -> None:
    """Make a package of libraries that satisfies the bindings, and the name that they go by."""
    bindings = packages / "tensorrt_bindings/tensorrt.so"
    table = subprocess.run(
        ["readelf", "-d", str(bindings)], capture_output=True, text=True, check=True
    ).stdout
    libraries = packages / "tensorrt_libs"
    libraries.mkdir(exist_ok=True)
    code = ["import ctypes, pathlib", "here = pathlib.Path(__file__).parent"]
    for name in _NEEDED.findall(table):
        is_ours = name.startswith("libnvinfer.")
        source = str(HERE / "forward.c") if is_ours else "/dev/null"
        defines = [f'-DBUILDER="{builder}"', f'-DPARSER="{parser}"'] if is_ours else []
        command = ["cc", "-shared", "-fPIC", *defines, "-x", "c", source, f"-Wl,-soname,{name}"]
        subprocess.run([*command, "-o", str(libraries / name), "-ldl"], check=True)
        code.append(f"ctypes.CDLL(str(here / {name!r}), mode=ctypes.RTLD_GLOBAL)")
    (libraries / "__init__.py").write_text("\n".join(code) + "\n")
    package = packages / "tensorrt"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("from tensorrt_bindings import *\n")


if __name__ == "__main__":
    get()
