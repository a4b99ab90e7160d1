"""Plans that onnxruntime's TensorRT provider writes: sealed with hashes, checked before use."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edge_gru.engines.onnxruntime import Place
from edge_gru.engines.onnxruntime_build import build_apart
from edge_gru.engines.tensorrt.cache import PlanCache
from edge_gru.engines.tensorrt.folder import PrivateFolder, unwritable
from edge_gru.errors import EngineUnavailableError

_FOLDERS = "onnxruntime-"
_SEAL = "hashes.json"
_MAX_SEAL_BYTES = 1 << 16
_MAX_PLAN_BYTES = 1 << 30
_MAX_FOLDERS = 32
_STAGE = "onnxruntime's TensorRT plan"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """Where a plan lies that the provider takes instead of building one."""

    place: Place
    was_built: bool


class ProviderPlans:
    """Folders in the one of our own plans, each for one graph, these options and this machine.

    A plan is native code, and the provider trusts what it finds: a folder whose files are not the
    ones that were built here is emptied, and built anew.
    """

    def __init__(
        self,
        folder: Path,
        progress: Callable[[str, float], None] | None,
        cancel: threading.Event,
    ) -> None:
        self._folder = folder.absolute()  # a build runs elsewhere
        self._progress = progress
        self._cancel = cancel

    def prepare(
        self, graph: bytes, place: Place, facts: Sequence[object], *, force: bool = False
    ) -> Planned:
        """Find the plan of a graph, or build it; ``facts`` are all that it depends on beside both.

        Raises:
            EngineUnavailableError: it cannot be built or kept, or was stopped.
        """
        key = msgspec.json.encode((hashlib.sha256(graph).hexdigest(), place.options, facts))
        path = self._folder / (_FOLDERS + hashlib.sha256(key).hexdigest())
        cached = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(path)}
        place = replace(place, options={**place.options, **cached})
        if not force and self._is_sealed(path):
            return Planned(place, was_built=False)
        with PlanCache(self._folder).lock(self._cancel):
            if not force and self._is_sealed(path):  # by another process, meanwhile
                return Planned(place, was_built=False)
            self._build(graph, place, path)
            self._remove_old()
        return Planned(place, was_built=True)

    def _build(self, graph: bytes, place: Place, path: Path) -> None:
        self._report(0.0)
        with PrivateFolder.open(path) as folder:
            for name in folder.names():
                folder.remove(name)
            build_apart(graph, place, self._cancel)
            try:
                hashes = _hashes(folder)
                if not hashes:
                    raise EngineUnavailableError(
                        f"expected a plan of onnxruntime's {place.provider} in {path}, got none; "
                        "use another engine"
                    )
                folder.write(_SEAL, msgspec.json.encode(hashes))
            except OSError as error:
                raise unwritable(error) from error
        self._report(1.0)

    def _is_sealed(self, path: Path) -> bool:
        with PrivateFolder.open(self._folder), PrivateFolder.open(path) as folder:
            try:
                data = folder.read(_SEAL, _MAX_SEAL_BYTES)
                sealed = msgspec.json.decode(data, type=dict[str, str])
                found = _hashes(folder)
            except FileNotFoundError:
                return False
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.warning("a TensorRT plan cannot be read and is built again: %s", error)
                return False
        if found != sealed:
            _log.warning("a TensorRT plan is not what was built, and is built again: %s", path)
        return found == sealed

    def _remove_old(self) -> None:
        with PrivateFolder.open(self._folder) as folder:
            names = [name for name in folder.names() if name.startswith(_FOLDERS)]
            for name in folder.age_order(names)[_MAX_FOLDERS:]:
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def _report(self, done: float) -> None:
        if self._progress is not None:
            self._progress(_STAGE, done)


def _hashes(folder: PrivateFolder) -> dict[str, str]:
    return {
        name: hashlib.sha256(folder.read(name, _MAX_PLAN_BYTES)).hexdigest()
        for name in folder.names()
        if name != _SEAL
    }
