"""The board and its system: module, JetPack, power mode, clocks, heat."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge_gru.doctor.check import Check, failed, passed, skipped, warned
from edge_gru.doctor.machine import Machine, dotted

# NVIDIA's archive of JetPack releases. 36.4.7 is an update to 6.2.1.
_JETPACKS = {
    (36, 3): "6.0", (36, 4, 0): "6.1", (36, 4, 3): "6.2", (36, 4, 4): "6.2.1", (36, 4, 7): "6.2.1",
    (36, 5, 0): "6.2.2", (36, 5, 2): "6.2.3", (38, 2): "7.0", (38, 4): "7.1", (39, 2, 0): "7.2",
    (39, 2, 1): "7.2.1",
}  # fmt: skip
_OLDEST = (36, 4)  # brings TensorRT 10.3
_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")
_HOT_DEGC = 95.0
_BRAKES = ("cpufreq", "devfreq", "Processor", "thermal-cpufreq", "thermal-devfreq")


def system(machine: Machine) -> Check:
    """Name the system and the Python that runs edge-gru."""
    release = machine.text("/etc/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', release, re.M)
    process = machine.process
    parts = [
        match[1] if match else "unknown system",
        f"kernel {machine.text('/proc/sys/kernel/osrelease') or 'unknown'}",
        process.architecture,
        f"Python {dotted(process.version)} ({process.executable})",
    ]
    if machine.exists("/.dockerenv") or machine.exists("/run/.containerenv"):
        parts.append("in a container")
    return passed("system", ", ".join(parts))


def board(machine: Machine) -> Check:
    """Name the board, or the PC."""
    model = machine.text("/proc/device-tree/model")
    if model:
        return passed("board", model)
    product = machine.text("/sys/class/dmi/id/product_name")
    processor = re.search(r"^model name\s*: (.*)$", machine.text("/proc/cpuinfo") or "", re.M)
    names = [name for name in (product, processor[1] if processor else None) if name]
    return passed("board", f"no Jetson: {', '.join(names) or 'unknown'}")


def jetpack(machine: Machine) -> Check:
    """Name the release of Jetson Linux, and refuse those with a TensorRT that is too old."""
    version = machine.l4t
    if version is None:
        return skipped("jetpack", "only on a Jetson")
    named = machine.packages.get("nvidia-jetpack") or next(
        (name for l4t, name in _JETPACKS.items() if version[: len(l4t)] == l4t), None
    )
    says = f"L4T {dotted(version)}, " + (f"JetPack {named}" if named else "of an unknown JetPack")
    if version < _OLDEST:
        return warned(
            "jetpack", f"{says}: its TensorRT is older than 10.3", "move the board to JetPack 6.2"
        )
    return passed("jetpack", says)


def power_mode(machine: Machine) -> Check:
    """Tell the power mode, which limits clocks and cores, and the other ones."""
    modes = {int(k): name for k, name in _MODE.findall(machine.text("/etc/nvpmodel.conf") or "")}
    state = re.search(r"pmode:(\d+)", machine.text("/var/lib/nvpmodel/status") or "")
    if not machine.is_jetson:
        return skipped("power mode", "only on a Jetson")
    if state is None:
        return skipped("power mode", "nvpmodel has left no state; ask with: sudo nvpmodel -q")
    now = int(state[1])
    others = ", ".join(f"{name} ({k})" for k, name in modes.items() if k != now)
    says = f"{modes.get(now, 'unnamed')} ({now})"
    return passed("power mode", f"{says}; there are also {others}" if others else says)


def clocks(machine: Machine) -> Check:
    """Tell whether clocks are held: where they follow the load, steps take now more, now less."""
    found = dict(_clock_ranges(machine))
    if not found:
        return skipped("clocks", "the system tells nothing of clocks, as in a virtual machine")
    free = [name for name, (low, high) in found.items() if low < high]
    says = "; ".join(f"{name} {_range_mhz(low, high)}" for name, (low, high) in found.items())
    governor = machine.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor:
        says += f"; governor {governor}"
    if not free or (governor == "performance" and free == ["CPU"]):
        return passed("clocks", f"held: {says}")
    how = "jetson_clocks" if machine.is_jetson else "cpupower frequency-set -g performance"
    return warned("clocks", f"follow the load: {says}", f"for steady steps: sudo {how}")


def _clock_ranges(machine: Machine) -> Iterator[tuple[str, tuple[int, int]]]:
    """Give the lowest and highest clock of CPU and GPU that are allowed now, in Hz."""
    cpu = "/sys/devices/system/cpu/cpu0/cpufreq/scaling"
    low, high = machine.number(f"{cpu}_min_freq"), machine.number(f"{cpu}_max_freq")
    if low is not None and high is not None:
        yield "CPU", (low * 1000, high * 1000)
    for folder in gpu_clocks(machine):
        low, high = machine.number(f"{folder}/min_freq"), machine.number(f"{folder}/max_freq")
        if low is not None and high is not None:
            yield "GPU", (low, high)
            return


def gpu_clocks(machine: Machine) -> list[str]:
    """Find the folders of a Jetson's GPU clocks: Orin has one, Thor one a domain."""
    orin = machine.glob("/sys/class/devfreq/*.gpu") + machine.glob("/sys/class/devfreq/*.ga10b")
    return orin + machine.glob("/sys/class/devfreq/gpu-gpc-*")


def _range_mhz(low_hz: int, high_hz: int) -> str:
    low, high = low_hz // 1_000_000, high_hz // 1_000_000
    return f"{high} MHz" if low == high else f"{low} to {high} MHz"


def heat(machine: Machine) -> Check:
    """Tell the hottest sensor, and whether anything slows the machine down."""
    temperatures = dict(_temperatures_degc(machine))
    brakes = sorted(set(_brakes(machine)))
    hottest = max(temperatures, key=temperatures.__getitem__, default=None)
    if hottest is None and not brakes:
        return skipped("heat", "no sensor can be read")
    says = f"hottest {hottest} {temperatures[hottest]:.1f} C" if hottest else "no sensor"
    if brakes:
        fix = "cool it, or choose a lower power mode; measure nothing until then"
        return warned("heat", f"{says}; slowed down by {', '.join(brakes)}", fix)
    if hottest and temperatures[hottest] >= _HOT_DEGC:
        return failed("heat", says, "cool it: it is about to slow down or switch off")
    return passed("heat", f"{says}, nothing is slowed down")


def _temperatures_degc(machine: Machine) -> Iterator[tuple[str, float]]:
    for folder in machine.glob("/sys/class/thermal/thermal_zone*"):
        millidegc, kind = machine.number(f"{folder}/temp"), machine.text(f"{folder}/type")
        if millidegc is not None and millidegc > 0:  # what is switched off says 0, or -256
            yield kind or folder.rpartition("/")[2], millidegc / 1000


def _brakes(machine: Machine) -> Iterator[str]:
    """Name what holds clocks down by heat now, and over-current since the boot."""
    for folder in machine.glob("/sys/class/thermal/cooling_device*"):
        kind = machine.text(f"{folder}/type") or ""
        if kind.startswith(_BRAKES) and (machine.number(f"{folder}/cur_state") or 0) > 0:
            yield kind
    for name in machine.glob("/sys/class/hwmon/hwmon*/oc*_event_cnt"):
        n_events = machine.number(name) or 0
        if n_events:
            yield f"over-current, {n_events} times since the boot"
