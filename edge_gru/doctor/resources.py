"""Disk, clock and memory."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from edge_gru.doctor.check import Check, failed, passed, skipped, warned
from edge_gru.doctor.machine import Machine
from edge_gru.engines.choices import cache_folder

_MB = 1 << 20
_LITTLE_DISK_MB, _NO_DISK_MB = 1000, 100
_LITTLE_MEMORY_MB = 500
_SWAPPED_MB = 256
_KEEPERS = ("chronyd", "systemd-timesyn", "ntpd", "ntpsec", "ptp4l")
_LIKELY_S = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc).timestamp()


def disk(machine: Machine) -> Check:
    """Tell whether there is space for engines, recordings and events."""
    folder = cache_folder() or Path("/")
    free_mb = machine.process.free_bytes(folder) // _MB
    says = f"{free_mb / 1000:.1f} GB free for {folder}"
    if free_mb < _NO_DISK_MB:
        return failed("disk", says, "make space: sudo apt clean; journalctl --vacuum-size=100M")
    if free_mb < _LITTLE_DISK_MB:
        return warned("disk", says, "make space: recordings and engines need it")
    return passed("disk", says)


def clock(machine: Machine) -> Check:
    """Tell whether the wall clock is right, on which the times of events depend."""
    process = machine.process
    keepers = [name for name in _KEEPERS if name in machine.running]
    kept = f", kept by {keepers[0].replace('timesyn', 'timesyncd')}" if keepers else ""
    if process.is_clock_synced():
        return passed("clock", f"synchronised{kept}")
    now = datetime.datetime.fromtimestamp(process.wall_s(), datetime.timezone.utc)
    fix = "sudo timedatectl set-ntp true, and give it a network or a GPS"
    if process.wall_s() < _LIKELY_S:
        return failed("clock", f"says {now:%Y-%m-%d}, and nothing sets it right", fix)
    says = "not synchronised: events carry clock_synced false"
    return warned("clock", f"{says}{kept}", fix)


def memory(machine: Machine) -> Check:
    """Tell how much memory is left, which a Jetson's GPU shares."""
    text = machine.text("/proc/meminfo") or ""
    found = {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    if not {"MemAvailable", "MemTotal"} <= set(found):
        return skipped("memory", "the system tells nothing of it")
    swapped_mb = found.get("SwapTotal", 0) - found.get("SwapFree", 0)
    says = f"{found['MemAvailable'] / 1000:.1f} of {found['MemTotal'] / 1000:.1f} GB available"
    says += f", {swapped_mb:.0f} MB swapped out" if swapped_mb >= 1 else ""
    if found["MemAvailable"] < _LITTLE_MEMORY_MB:
        return warned("memory", says, "end other programs: TensorRT needs some to build engines")
    if swapped_mb > _SWAPPED_MB:
        return warned("memory", says, "what is swapped out answers late: end other programs")
    return passed("memory", says)
