"""Settings of the TensorRT engine, from the environment.

===============================  ===============================================================
``EDGE_GRU_TENSORRT_WAIT``       how to wait for the GPU: ``block`` (default, low power), ``spin``
                                 (lowest latency, one core at 100 %), ``yield``, ``auto``
``EDGE_GRU_TENSORRT_WORKSPACE``  memory that the builder may use, in MiB; default 64
``EDGE_GRU_TENSORRT_LEVEL``      effort of the builder, 0 to 5; default 3
``EDGE_GRU_TENSORRT_DETAIL``     what a plan tells of its layers: ``none`` (default), ``names``,
                                 ``all``
``EDGE_GRU_TENSORRT_GRAPHS``     ``on`` (default): steps are CUDA graphs; ``off``: plain launches
``EDGE_GRU_TENSORRT_CACHE``      folder of the plans
===============================  ===============================================================
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_gru.errors import EngineUnavailableError

PREFIX = "EDGE_GRU_TENSORRT_"
WAITS = {"block": 4, "spin": 1, "yield": 2, "auto": 0}  # cudaDeviceSchedule...
DETAILS = {"none": "NONE", "names": "LAYER_NAMES_ONLY", "all": "DETAILED"}

_SWITCH = {"on": True, "off": False}
_LEVELS = range(6)
_MIB = 1 << 20
_MAX_WORKSPACE_MIB = 1 << 16


@dataclass(frozen=True)
class Settings:
    """How plans are built and kept, and how steps are run."""

    cache: Path
    wait: str
    workspace_bytes: int
    optimization_level: int
    detail: str
    uses_graphs: bool

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Read them.

        Raises:
            EngineUnavailableError: a value that is not one; names the variable.
        """
        given = _Given(environment)
        return cls(
            cache=_cache_folder(environment),
            wait=given.one_of("WAIT", WAITS, "block"),
            workspace_bytes=given.number("WORKSPACE", range(1, _MAX_WORKSPACE_MIB + 1), 64) * _MIB,
            optimization_level=given.number("LEVEL", _LEVELS, 3),
            detail=given.one_of("DETAIL", DETAILS, "none"),
            uses_graphs=_SWITCH[given.one_of("GRAPHS", _SWITCH, "on")],
        )


class _Given:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def one_of(self, name: str, known: Collection[str], default: str) -> str:
        value = self._environment.get(PREFIX + name) or default
        if value not in known:
            raise EngineUnavailableError(
                f"expected {PREFIX}{name} to be one of {', '.join(known)}, got {value!r}"
            )
        return value

    def number(self, name: str, known: range, default: int) -> int:
        text = self._environment.get(PREFIX + name) or str(default)
        value = int(text) if text.isdecimal() and text.isascii() else -1
        if value not in known:
            raise EngineUnavailableError(
                f"expected {PREFIX}{name} to be a number from {known[0]} to {known[-1]}, "
                f"got {text!r}"
            )
        return value


def _cache_folder(environment: Mapping[str, str]) -> Path:
    """Find where plans are kept: as set, systemd's, the user's, or the system's."""
    if named := environment.get(f"{PREFIX}CACHE"):
        return Path(named)
    if given := environment.get("CACHE_DIRECTORY"):  # systemd's may be several
        return Path(given.partition(":")[0]) / "tensorrt"
    if caches := environment.get("XDG_CACHE_HOME"):
        return Path(caches) / "edge-gru" / "engines" / "tensorrt"
    if home := environment.get("HOME"):
        return Path(home) / ".cache" / "edge-gru" / "engines" / "tensorrt"
    return Path("/var/cache/edge-gru/tensorrt")
