"""Which engine was the fastest here: remembered for a bundle, these versions, this CPU and GPU."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import platform
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from edge_gru.engines.measure import Measurement
from edge_gru.engines.tensorrt.board import Board
from edge_gru.version import __version__

_log = logging.getLogger(__name__)

_CPU_FIELDS = ("model name", "flags", "CPU part", "CPU variant", "Features")
_PACKAGES = ("numpy", "onnxruntime", "tensorrt")
_SETTINGS = ("EDGE_GRU_NATIVE", "EDGE_GRU_TENSORRT")
_EXTENSION = "_native*.so"


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The engine and precision that were the fastest, and the table that shows it.

    ``is_whole``: engines that need a build were measured too, or there are none here. ``wall_s`` is
    when that was, in seconds since 1970.
    """

    engine: str
    precision: str
    rows: tuple[Measurement, ...]
    is_whole: bool
    wall_s: float = 0.0


def recall(model_hash: str, precision: str | None) -> Choice | None:
    """Return what was chosen for a bundle here; None if nothing was, or it cannot be read."""
    path = _path(model_hash, precision)
    if path is None:
        return None
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Choice)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        _log.debug("no choice of an engine in %s: %s", path, error)
        return None


def remember(model_hash: str, precision: str | None, choice: Choice) -> None:
    """Keep a choice, whole or not at all; where nothing can be written it is measured again."""
    path = _path(model_hash, precision)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
    except OSError as error:
        _log.debug("the choice of an engine is not kept: %s", error)
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.msgpack.encode(choice))
        Path(name).replace(path)
    except OSError as error:
        _log.debug("the choice of an engine is not kept: %s", error)
        with suppress(OSError):
            Path(name).unlink()


def cache_folder() -> Path | None:
    """Find where choices are kept: systemd's folder, or the user's; None where there is neither."""
    if given := os.environ.get("CACHE_DIRECTORY"):  # systemd's may be several
        return Path(given.partition(":")[0])
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(folder) if folder else Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return None
    return cache / "edge-gru" / "engines"


def _path(model_hash: str, precision: str | None) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    facts = [model_hash, precision, *_surroundings()]
    key = hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
    return folder / f"{key}.choice"


def _surroundings() -> list[str]:
    """Return all that another engine could be the fastest for: versions, CPU, settings."""
    extensions = Path(__file__).parent.parent.joinpath("native").glob(_EXTENSION)
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_SETTINGS))
    return [
        __version__,
        sys.version,
        platform.machine(),
        *(_version_of(package) for package in _PACKAGES),
        "with native" if any(extensions) else "without native",
        *_cpu(),
        *_board(),
        *settings,
    ]


def _version_of(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def _board() -> list[str]:
    board = Board.read()
    return [board.name, board.l4t, board.power_mode, str(board.gpu_max_hz)]


def _cpu() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [platform.processor()]
    lines = {line.strip() for line in text.splitlines() if line.startswith(_CPU_FIELDS)}
    return sorted(lines)
