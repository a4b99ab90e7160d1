"""What a run needs to be told: read from TOML, overridden by options, strict about every key."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edge_gru.engines.select import AUTO
from edge_gru.engines.table import ENGINES
from edge_gru.errors import ConfigError
from edge_gru.predictor import GapPolicy
from edge_gru.service.values import BadValues
from edge_gru.settings import converted, read_toml, refuse_unknown
from firmware_bridge.formats import FORMATS

STDOUT = "-"
BOARD = "board"
_NO_FILES = (STDOUT, BOARD)

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of one run: one bundle, or the current one of a ``store``, and one port.

    ``precision`` None leaves the choice to the engine, ``rate_hz`` None to the board or the bundle.
    ``max_missing`` and ``max_gap_s`` None stand for the gap policy of the rate. ``bad_values`` says
    what becomes of readings that are not finite: the sample is rejected, or the last value held, or
    all values clipped to the model's range. A channel that repeats one value for ``stuck_s`` s
    is warned of; 0: never. ``outputs`` are files of JSON Lines, ``-`` is stdout,
    ``board`` the way back to the sensor board. Events wait at most ``flush_s`` seconds in memory; a
    health event comes every ``health_s`` seconds, 0: only at the end. ``health_file`` is kept for
    `edge-gru status`; a bundle on trial goes back if its p99 is over ``trial_p99_us``.
    """

    bundle: str = ""
    port: str
    format: str = "framed"
    baud: Annotated[int, msgspec.Meta(ge=1, le=20_000_000)] = 115200
    stop_bits: Literal[1, 2] = 1
    rate_hz: _Positive | None = None
    wait_for_port: bool = False
    engine: str = "auto"
    precision: str | None = None
    max_missing: _Count | None = None
    max_gap_s: _Positive | None = None
    bad_values: BadValues = "reject"
    stuck_s: _NotNegative = 0.0
    alerts: bool = True
    outputs: tuple[str, ...] = (STDOUT,)
    device: str = msgspec.field(default_factory=socket.gethostname)
    stream: str = "main"
    flush_s: _NotNegative = 0.2
    health_s: _NotNegative = 60.0
    store: str = ""
    health_file: str = ""
    trial_p99_us: _Positive | None = None

    def gap_policy(self, rate_hz: float | None) -> GapPolicy:
        """Make the policy for samples that come at ``rate_hz``; what is configured goes first."""
        default = GapPolicy.for_rate(rate_hz)
        return GapPolicy(
            max_missing=default.max_missing if self.max_missing is None else self.max_missing,
            max_gap_s=default.max_gap_s if self.max_gap_s is None else self.max_gap_s,
        )


_HINTS = {
    "port": "give --port /dev/ttyACM0, or port in the file; `edge-gru ports` lists what is there",
}


def make_config(settings: Mapping[str, Any], *, origin: str = "the settings") -> RunConfig:
    """Check settings and fill in the defaults; ``origin`` says in errors where they come from.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value out of its range.
    """
    refuse_unknown(settings, RunConfig, origin=origin)
    for key, hint in _HINTS.items():
        if not settings.get(key):
            raise ConfigError(f"{origin}: expected a {key}, got none; {hint}")
    _check_model(settings, origin)
    config = converted(settings, RunConfig, origin=origin)
    _check_names(config, origin)
    if BOARD in config.outputs and config.format != "framed":
        raise ConfigError(
            f"{origin}: expected format framed for the output {BOARD}, got {config.format}, which "
            "has no way back to the board; leave that output out"
        )
    return config


def _check_model(settings: Mapping[str, Any], origin: str) -> None:
    n_given = sum(bool(settings.get(key)) for key in ("bundle", "store"))
    if n_given == 0:
        raise ConfigError(
            f'{origin}: expected a bundle, got none; name the file: bundle = "model.egb", or a '
            'store of bundles: store = "/var/lib/edge-gru/bundles"'
        )
    if n_given > 1:
        raise ConfigError(f"{origin}: expected a bundle or a store, got both; leave one out")


def _check_names(config: RunConfig, origin: str) -> None:
    """Refuse an engine or a format that there is not."""
    engines = (AUTO, *ENGINES)
    if config.engine not in engines:
        raise ConfigError(
            f"{origin}: expected an engine of {', '.join(engines)}, got {config.engine!r}"
        )
    if config.format not in FORMATS:
        raise ConfigError(
            f"{origin}: expected one of the formats {', '.join(FORMATS)}; got {config.format!r}"
        )


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings in a TOML file; the paths in it are relative to its folder.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    settings = read_toml(path)
    for key in ("bundle", "store", "health_file"):
        if isinstance(settings.get(key), str) and settings[key]:
            settings[key] = str(path.parent / settings[key])
    if isinstance(settings.get("outputs"), list):
        settings["outputs"] = [_beside(path, name) for name in settings["outputs"]]
    return settings


def _beside(path: Path, name: Any) -> Any:
    return str(path.parent / name) if isinstance(name, str) and name not in _NO_FILES else name
