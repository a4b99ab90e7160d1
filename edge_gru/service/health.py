"""The health file: what the service is doing, for `edge-gru status` and whoever else looks."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from edge_gru.errors import ConfigError
from edge_gru.service.events import AlertEvent, Event, LinkEvent, ModelEvent
from edge_gru.service.models import BundleStatus
from edge_gru.service.stamp import boot_id, is_clock_synced
from edge_gru.service.statistics import Summary
from edge_gru.version import __version__

_log = logging.getLogger(__name__)

FORMAT = 1
_WINDOW_S = 10.0
_MODE = 0o644  # for whoever logs in
MAX_BYTES = 1 << 20

State: TypeAlias = Literal["predicting", "silent", "waiting", "stopped"]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a service says of itself.

    ``mono_s`` is when, in seconds of the host's monotonic clock in the boot ``boot``;
    ``rate_hz`` the predictions a second in the last ten seconds. ``state``: samples are predicted;
    the port is open and no samples come; the port is waited for; the run has ended.
    """

    format: int = FORMAT
    version: str
    pid: int
    boot: str
    mono_s: float
    wall_s: float
    clock_synced: bool
    uptime_s: float
    device: str
    stream: str
    state: State
    port: str
    port_reason: str
    rate_hz: float
    model_hash: str
    alerts: tuple[str, ...]
    bundle: BundleStatus | None
    summary: Summary


class HealthFile:
    """Replaces a small file whole about once a second; it is a sink of events beside that.

    A file that cannot be written is warned of once and tried again: predicting goes on.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        stream: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n_dropped = 0
        self._path = path
        self._whose = (device, stream)
        self._clock = clock
        self._started_s = clock()
        self._model_hash = ""
        self._link: LinkEvent | None = None
        self._alerts: dict[str, None] = {}
        self._seen: deque[tuple[float, int]] = deque()  # when, predictions
        self._last: Health | None = None
        self._has_warned = False

    def write(self, event: Event) -> None:
        """Keep what the event says of the model, the port and the alerts."""
        if isinstance(event, ModelEvent):
            self._model_hash = event.model_hash
            self._alerts.clear()
            self._seen.clear()
        elif isinstance(event, LinkEvent):
            self._link = event
        elif isinstance(event, AlertEvent):
            if event.active:
                self._alerts[event.name] = None
            else:
                self._alerts.pop(event.name, None)

    def look(self, now_s: float, summary: Summary, bundle: BundleStatus | None) -> None:
        """Write what is known now."""
        link = self._link
        is_up = link is not None and link.up
        rate_hz = self._rate_hz(now_s, summary.n_predictions)
        self._put(
            Health(
                version=__version__,
                pid=os.getpid(),
                boot=boot_id(),
                mono_s=now_s,
                wall_s=time.time(),
                clock_synced=is_clock_synced(),
                uptime_s=round(now_s - self._started_s, 1),
                device=self._whose[0],
                stream=self._whose[1],
                state="waiting" if not is_up else "predicting" if rate_hz > 0 else "silent",
                port="" if link is None else link.port,
                port_reason="" if link is None else link.reason,
                rate_hz=rate_hz,
                model_hash=self._model_hash,
                alerts=tuple(self._alerts),
                bundle=bundle,
                summary=summary,
            )
        )

    def _rate_hz(self, now_s: float, n_predictions: int) -> float:
        """Compute the predictions a second of the last ten seconds."""
        seen = self._seen
        seen.append((now_s, n_predictions))
        while len(seen) > 2 and seen[1][0] <= now_s - _WINDOW_S:
            seen.popleft()
        first_s, n_before = seen[0]
        elapsed_s = now_s - first_s
        return round((n_predictions - n_before) / elapsed_s, 2) if elapsed_s > 0 else 0.0

    def flush(self) -> bool:
        """Do nothing; the counters come by themselves."""
        return True

    def close(self) -> None:
        """Say that the run has ended."""
        if self._last is not None:
            self._put(msgspec.structs.replace(self._last, state="stopped", rate_hz=0.0))

    def _put(self, health: Health) -> None:
        self._last = health
        try:
            replace(self._path, msgspec.json.format(msgspec.json.encode(health), indent=1) + b"\n")
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("cannot write %s: %s; predicting goes on", self._path, error.strerror)


def replace(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, whole or not at all, and not durably.

    Raises:
        OSError: the folder is missing, full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, _MODE)  # whatever the umask of the service is
            file.write(data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_health(path: Path) -> Health:
    """Read a health file.

    Raises:
        FileNotFoundError: no service has written one.
        ConfigError: it is something else, or of another version.
    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=Health)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: expected the health of a service, got {error}; is it of another version?"
        ) from error
