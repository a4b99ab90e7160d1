"""Plans that were built on this board: found by all that they depend on, checked before use."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_gru.engines.tensorrt.folder import PrivateFolder, unwritable

_PLAN, _SIDECAR, _TIMINGS = ".plan", ".json", ".timings"
_MAX_ENTRIES = 32
_MAX_SIDECAR_BYTES = 1 << 16
_MAX_TIMINGS_BYTES = 1 << 28
_HASH_BYTES = 32

_log = logging.getLogger(__name__)


class PlanKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a plan depends on."""

    bundle_sha256: str
    graph_sha256: str
    precision: str
    min_batch: int
    opt_batch: int
    max_batch: int
    tensorrt: str
    cuda_runtime: int
    cuda_driver: int
    compute_capability: str
    n_multiprocessors: int
    board: str
    l4t: str
    workspace_bytes: int
    optimization_level: int
    verbosity: str
    builder_flags: tuple[str, ...] = ("STRONGLY_TYPED", "no TF32")

    @property
    def digest(self) -> str:
        """The name of the plan's files."""
        return _digest(self)

    @property
    def purpose(self) -> tuple[str, str, int, int, int]:
        """What the plan is for: of two plans with one purpose here, one is out of date."""
        batches = self.min_batch, self.opt_batch, self.max_batch
        return (self.bundle_sha256, self.precision, *batches)

    @property
    def timings(self) -> str:
        """The name of the timings that builds on this board share."""
        builder = (self.tensorrt, self.cuda_runtime, self.compute_capability)
        return _digest((*builder, self.n_multiprocessors, self.board)) + _TIMINGS


class PlanInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside a plan. ``power_mode`` and ``gpu_max_hz`` are those of its build."""

    key: PlanKey
    plan_sha256: str
    n_bytes: int
    duration_s: float
    power_mode: str
    gpu_max_hz: int | None


@dataclass(frozen=True)
class CachedPlan:
    """A plan that this board built from exactly what is asked for now."""

    plan: bytes
    info: PlanInfo
    path: Path


class PlanCache:
    """Plans in one folder, with a sidecar each that is written last.

    Whatever does not fit, is cut short, or cannot be read, is as good as absent: it is built again,
    and the log says why. Only a folder that cannot be trusted or written to is an error.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: PlanKey) -> CachedPlan | None:
        """Find a plan.

        Raises:
            EngineUnavailableError: the folder cannot be trusted, or made.
        """
        with PrivateFolder.open(self.folder) as folder:
            names = folder.names()
            if key.digest + _SIDECAR not in names:
                _explain_absence(folder, names, key)
                return None
            try:
                info = _read_sidecar(folder, key.digest)
                plan = folder.read(key.digest + _PLAN, info.n_bytes)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.warning("a TensorRT plan cannot be read and is built again: %s", error)
                return None
        if faults := [*_differences(info.key, key), *_content_faults(info, plan)]:
            _log.warning("a TensorRT plan is not used and is built again: %s", "; ".join(faults))
            return None
        return CachedPlan(plan, info, self.folder / (key.digest + _PLAN))

    def store(self, info: PlanInfo, plan: bytes, timings: bytes) -> CachedPlan:
        """Keep a plan and the timings of its build; remove what it replaces. Hold the lock.

        Raises:
            EngineUnavailableError: the folder cannot be trusted, or written to.
        """
        digest = info.key.digest
        with PrivateFolder.open(self.folder) as folder:
            try:
                folder.remove_temporary()
                folder.write(digest + _PLAN, plan)
                folder.write(digest + _SIDECAR, msgspec.json.encode(info))
                folder.write(info.key.timings, hashlib.sha256(timings).digest() + timings)
            except OSError as error:
                raise unwritable(error) from error
            _remove_old(folder, info.key)
        return CachedPlan(plan, info, self.folder / (digest + _PLAN))

    def remove(self, key: PlanKey) -> None:
        """Remove a plan that TensorRT does not take."""
        with PrivateFolder.open(self.folder) as folder:
            _remove_entry(folder, key.digest)

    def timings(self, key: PlanKey) -> bytes:
        """Return the timings of earlier builds on this board; none where they are spoilt."""
        with PrivateFolder.open(self.folder) as folder:
            try:
                data = folder.read(key.timings, _MAX_TIMINGS_BYTES)
            except OSError as error:
                _log.debug("no timings of earlier builds: %s", error)
                return b""
        timings = data[_HASH_BYTES:]
        return timings if hashlib.sha256(timings).digest() == data[:_HASH_BYTES] else b""

    @contextmanager
    def lock(self, cancel: threading.Event | None = None) -> Iterator[None]:
        """Let one process build at a time: two at once would also spoil each other's timings.

        Raises:
            EngineUnavailableError: ``cancel`` was set while waiting for another.
        """

        def tell() -> None:
            _log.info("another process builds a TensorRT plan: waiting for it")

        with (
            PrivateFolder.open(self.folder) as folder,
            folder.locked(cancel or threading.Event(), tell),
        ):
            yield


def _digest(facts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def _read_sidecar(folder: PrivateFolder, digest: str) -> PlanInfo:
    data = folder.read(digest + _SIDECAR, _MAX_SIDECAR_BYTES)
    return msgspec.json.decode(data, type=PlanInfo)


def _differences(found: PlanKey, wanted: PlanKey) -> list[str]:
    was, now = msgspec.structs.asdict(found), msgspec.structs.asdict(wanted)
    return [f"{name} was {was[name]}, is {now[name]}" for name in now if was[name] != now[name]]


def _content_faults(info: PlanInfo, plan: bytes) -> list[str]:
    if hashlib.sha256(plan).hexdigest() != info.plan_sha256:
        return [f"its {len(plan)} bytes are not the {info.n_bytes} that were built"]
    return []


def _entries(folder: PrivateFolder, names: list[str]) -> Iterator[tuple[str, PlanKey | None]]:
    """List every entry's digest and key, None where its sidecar does not tell."""
    for name in names:
        digest = name.removesuffix(_SIDECAR)
        if digest != name:
            try:
                yield digest, _read_sidecar(folder, digest).key
            except (OSError, msgspec.DecodeError, UnicodeDecodeError):
                yield digest, None


def _explain_absence(folder: PrivateFolder, names: list[str], key: PlanKey) -> None:
    for _, other in _entries(folder, names):
        if other is not None and other.purpose == key.purpose:
            differences = "; ".join(_differences(other, key))
            _log.info("the TensorRT plan from before does not fit any more: %s", differences)


def _remove_old(folder: PrivateFolder, key: PlanKey) -> None:
    """Remove what has the same purpose, what cannot be read, and the oldest of too many."""
    names = folder.names()
    kept = []
    for digest, other in _entries(folder, names):
        is_old = other is None or (other.purpose == key.purpose and digest != key.digest)
        if is_old or digest + _PLAN not in names:
            _remove_entry(folder, digest)
        else:
            kept.append(digest + _SIDECAR)
    for name in folder.age_order(kept)[_MAX_ENTRIES:]:
        _remove_entry(folder, name.removesuffix(_SIDECAR))
    for name in names:
        digest = name.removesuffix(_PLAN)
        if digest != name and digest + _SIDECAR not in names:
            folder.remove(name)


def _remove_entry(folder: PrivateFolder, digest: str) -> None:
    folder.remove(digest + _SIDECAR)
    folder.remove(digest + _PLAN)
