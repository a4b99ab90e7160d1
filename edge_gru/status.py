"""What `edge-gru status` knows: the health file of the service, the store, and the disk."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_gru.errors import EdgeGruError, StoreError
from edge_gru.service.health import Health, read_health
from edge_gru.service.models import BundleStatus
from edge_gru.service.stamp import boot_id
from edge_gru.store import Ledger, Store

HEALTH = Path("/run/edge-gru/health.json")
STORE = Path("/var/lib/edge-gru/bundles")
COMPILE = "compile.json"

RUNNING, IMPAIRED, DOWN = 0, 1, 3  # exit codes, the last as that of `systemctl status`
_STALE_S = 30.0  # beyond systemd's watchdog
_MAX_COMPILE_BYTES = 1 << 16
_MIB = 1 << 20
_COLUMNS = 80  # of a serial console
_NAME_COLUMNS = 10


@dataclass(frozen=True)
class Report:
    """What was found; ``problem`` says in one sentence why the service does not predict."""

    health: Health | None
    age_s: float | None
    problem: str
    exit_code: int
    ledger: Ledger | None
    store: Path
    store_problem: str
    n_free_bytes: int | None
    compiling: dict[str, Any] | None


def look(
    health_file: Path = HEALTH,
    store: Path = STORE,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Look at a device; nothing is raised for what is missing, it is part of the report."""
    health, problem, code, age_s = _service(health_file, clock())
    ledger, store_problem = _ledger(store)
    return Report(
        health=health,
        age_s=age_s,
        problem=problem,
        exit_code=code,
        ledger=ledger,
        store=store,
        store_problem=store_problem,
        n_free_bytes=_n_free_bytes(store),
        compiling=_compiling(health_file.with_name(COMPILE)),
    )


def _service(path: Path, now_s: float) -> tuple[Health | None, str, int, float | None]:
    try:
        health = read_health(path)
    except FileNotFoundError:
        hint = "; start it: sudo systemctl start edge-gru" if path == HEALTH else ""
        return None, f"not running: there is no {path}{hint}", DOWN, None
    except EdgeGruError as error:
        return None, f"not known: {error}", DOWN, None
    age_s = max(now_s - health.mono_s, 0.0)
    down = _why_down(health, age_s)
    if down:
        return health, down, DOWN, age_s
    problem = _why_impaired(health)
    return health, problem, IMPAIRED if problem else RUNNING, age_s


def _why_down(health: Health, age_s: float) -> str:
    if health.boot != boot_id():
        return "not running since the last boot"
    if health.state == "stopped":
        return f"not running: it was stopped {duration(age_s)} ago"
    if not _is_alive(health.pid):
        return f"not running: it died {duration(age_s)} ago"
    if age_s > _STALE_S:
        return f"hangs: no sign of life for {duration(age_s)}"
    return ""


def _why_impaired(health: Health) -> str:
    if health.state == "waiting":
        return f"waits for its port: {health.port_reason or health.port}"
    return f"no samples come from {health.port}" if health.state == "silent" else ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it is there
        return True
    return True


def _ledger(store: Path) -> tuple[Ledger | None, str]:
    try:
        return Store(store).read(), ""
    except StoreError as error:
        return None, str(error)


def _n_free_bytes(store: Path) -> int | None:
    place = next((folder for folder in (store, *store.parents) if folder.exists()), None)
    if place is None:
        return None
    facts = os.statvfs(place)
    return facts.f_bavail * facts.f_frsize


def _compiling(path: Path) -> dict[str, Any] | None:
    """Read what a unit that builds an engine says of its progress, if there is one."""
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(_MAX_COMPILE_BYTES), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found


def duration(seconds: float) -> str:
    """Write a duration for people: ``3 d 4 h``, ``2 min``, ``5 s``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def lines(report: Report) -> list[str]:
    """Write a report as one screen of plain ASCII in 80 columns, as a serial console has it."""
    rows = [("service", report.problem or "predicting")]
    if report.health is not None:
        rows += _health_rows(report.health)
    rows += _store_rows(report)
    if report.compiling is not None:
        rows.append(("compile", ", ".join(f"{k} {v}" for k, v in report.compiling.items())))
    if report.n_free_bytes is not None:
        rows.append(("disk", f"{report.n_free_bytes // _MIB} MiB free"))
    return [line for name, text in rows for line in _wrapped(name, text)]


def _wrapped(name: str, text: str) -> list[str]:
    """Fold a row; what a terminal might take for a command is shown as an escape."""
    plain = "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in text)
    indent = " " * _NAME_COLUMNS
    first = f"{name:<{_NAME_COLUMNS}}"
    return textwrap.wrap(
        plain,
        _COLUMNS,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [first.rstrip()]


_HEALTH = """\
device    {h.device}, stream {h.stream}, edge-gru {h.version}
up        {uptime}, process {h.pid}
model     {s.model}  {h.model_hash:.12}
engine    {s.engine}
port      {port}
rate      {h.rate_hz:g} predictions/s, {s.n_predictions} in all
latency   p50 {t.p50_us:.0f} us, p99 {t.p99_us:.0f} us, largest {t.max_us:.0f} us
lost      {s.lost_samples} on the way, {s.overrun_samples} here; {s.frames_bad} bad frames, \
{s.reconnects} reconnects
values    {s.rejected_samples} not finite; beyond the grid: {saturated}
state     cleared {s.resets_gap} times by gaps, {s.resets_epoch} by restarts, \
{s.resets_time} by time
alerts    {alerts}
clock     {clock}"""


def _health_rows(health: Health) -> list[tuple[str, str]]:
    summary = health.summary
    saturated = (f"{name} {n}" for name, n in summary.saturated.items())
    values = {
        "h": health,
        "s": summary,
        "t": summary.latency,
        "uptime": duration(health.uptime_s),
        "port": health.port or "not open yet",
        "saturated": ", ".join(saturated) or "none",
        "alerts": ", ".join(health.alerts) or f"none active, {summary.n_alerts} so far",
        "clock": "set" if health.clock_synced else "not set: the times of events may be wrong",
    }
    return [
        (line[:_NAME_COLUMNS].rstrip(), line[_NAME_COLUMNS:].format(**values))
        for line in _HEALTH.splitlines()
    ]


def _store_rows(report: Report) -> list[tuple[str, str]]:
    served = None if report.health is None else report.health.bundle
    ledger = report.ledger
    if ledger is None:
        if served is not None:
            return _rows_of_service(served)
        return [] if report.health else [("bundle", f"not known: {report.store_problem}")]
    serving = ledger.entry(ledger.current)
    if serving is None:
        return [("bundle", f"none in {report.store}")]
    rows = [("bundle", f"{serving.name} version {serving.version}, {serving.status}")]
    trial, earlier = ledger.trial, ledger.entry(ledger.previous)
    if trial is not None:
        served_s = trial.served_s
        if served is not None and served.folder == ledger.current:  # it knows more than is written
            served_s = max(served_s, served.served_s or 0.0)
        rows.append(("trial", _trial(served_s, trial.duration_s, trial.starts_left)))
    if earlier is not None:
        rows.append(("before", f"version {earlier.version}, kept to go back to"))
    failed = [entry for entry in ledger.entries.values() if entry.reason]
    if failed:
        rows.append(("failed", f"version {failed[-1].version}: {failed[-1].reason}"))
    return rows


def _rows_of_service(served: BundleStatus) -> list[tuple[str, str]]:
    """Tell what the service says of its bundle, where the store is not for this user to read."""
    rows = [("bundle", f"version {served.version} ({served.folder})")]
    if served.trial_s is not None:
        trial = _trial(served.served_s or 0.0, served.trial_s, served.starts_left or 0)
        rows.append(("trial", trial))
    return rows


def _trial(served_s: float, duration_s: float, starts_left: int) -> str:
    return f"{served_s:.0f} of {duration_s:.0f} s served well, {starts_left} starts left"
