"""The wheels that a board needs, gathered on the host: this tree's own, and what it asks for."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_gru.errors import ShippingError
from edge_gru.shipping.requirements import missing
from edge_gru.shipping.source import Source
from edge_gru.shipping.target import ONNXRUNTIME, Target

_log = logging.getLogger(__name__)

EXTRAS = "onnxruntime,record,signed"
_N_ROUNDS = 5
_GLIBC_MINORS = range(35, 16, -1)  # 2.35 is that of the oldest supported board
_IGNORED = ("build", "dist", "runs", "tests", "*.egg-info", "__pycache__", "*.so", ".*")
_TARGET = "TARGET"


def gather(source: Source, target: Target, folder: Path) -> Path:
    """Return a folder with the wheels, made below ``folder`` where it is not there yet.

    Raises:
        ShippingError: the wheel cannot be built, or others cannot be had.
    """
    made = folder / f"{target.python}-{target.arch}-{source.digest()[:12]}"
    if made.is_dir():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    _log.info(
        "gathering wheels for Python %s on %s, a minute or more; they are kept in %s",
        *(target.python, target.arch, folder),
    )
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as work:
        part = Path(work) / "wheels"
        part.mkdir()
        own = _build(source, target, part, Path(work))
        _download(target, part, [f"{own}[{EXTRAS}]", f"onnxruntime=={ONNXRUNTIME[target.python]}"])
        _complete(target, part)
        (part / _TARGET).write_text(f"{target.python} {target.arch}\n")
        part.rename(made)
    return made


def check(folder: Path, target: Target) -> None:
    """Make sure that a folder was made by ``gather`` for such a board.

    Raises:
        ShippingError: it was not, or for another one.
    """
    try:
        words = (folder / _TARGET).read_text().split()
    except OSError as error:
        raise ShippingError(
            f"expected a folder of wheels in {folder}, found no file {_TARGET} in it; "
            "leave --wheels out to have them gathered"
        ) from error
    if words != [target.python, target.arch]:
        raise ShippingError(
            f"the wheels in {folder} are for Python {' on '.join(words)}, the board has "
            f"{target.python} on {target.arch}; leave --wheels out to have others gathered"
        )


def _build(source: Source, target: Target, part: Path, work: Path) -> Path:
    """Build the wheel of a copy: an old build/ in the tree would smuggle deleted modules in."""
    copy = work / "source"
    shutil.copytree(source.root, copy, ignore=shutil.ignore_patterns(*_IGNORED), symlinks=True)
    python, native = _builder(target)
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    _run(
        [*command, "--wheel-dir", part, copy],
        "the wheel of edge-gru could not be built",
        EDGE_GRU_NATIVE=native,
    )
    (own,) = part.glob("edge_gru-*.whl")
    return own


def _builder(target: Target) -> tuple[str, str]:
    """Find who compiles the native engine: a Python of the board's version, and a compiler."""
    # By its long name for this machine, too, whose Python may link in a way of its own.
    compiler = f"{target.arch}-linux-gnu-gcc"
    python = _python_of(target.python)
    if python is None:
        lacks = f"a python{target.python} on this host to compile for"
    elif shutil.which(compiler) is None:
        package = f"gcc-{target.arch.replace('_', '-')}-linux-gnu"
        lacks = f"the compiler {compiler}, of Debian's {package}"
    else:
        return python, target.arch
    _log.warning("the native engine is left out: expected %s, found none", lacks)
    return sys.executable, "0"


def _python_of(version: str) -> str | None:
    """Find an interpreter of this version that starts, and has pip; a shim may not."""
    tells = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
    for python in (sys.executable, shutil.which(f"python{version}")):
        if python is None:
            continue
        told = subprocess.run([python, "-c", tells], check=False, capture_output=True, text=True)
        if told.stdout.strip() == version:
            return python
    return None


def _download(target: Target, part: Path, requirements: Sequence[str]) -> None:
    tags = [f"manylinux_2_{minor}" for minor in _GLIBC_MINORS] + ["manylinux2014", "linux"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(part)]
    command += ["--find-links", str(part), "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", target.python, "--abi", f"cp{target.python.replace('.', '')}"]
    command += ["--abi", "abi3", "--abi", "none"]
    command += [word for tag in tags for word in ("--platform", f"{tag}_{target.arch}")]
    _run([*command, *requirements], f"no wheels for Python {target.python} on {target.arch}")


def _complete(target: Target, part: Path) -> None:
    root = f"edge-gru[{EXTRAS}]"
    lacking = missing(part, root, target)
    for _ in range(_N_ROUNDS):
        if not lacking:
            return
        _download(target, part, lacking)
        lacking = missing(part, root, target)
    raise ShippingError(
        f"after {_N_ROUNDS} rounds of downloads there is still no {', '.join(lacking)}; "
        "look at what these packages ask for"
    )


def _run(command: Sequence[str | Path], what: str, **settings: str) -> None:
    environment: Mapping[str, str] = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | settings
    made = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, env=environment
    )
    if made.returncode:
        lines = [line for line in made.stderr.splitlines() if line.strip()]
        raise ShippingError(f"{what}: {lines[-1] if lines else made.returncode}; try pip by hand")
