"""TensorRT, its Python binding, CUDA and the GPU."""

from __future__ import annotations

import re

from edge_gru.doctor.board import gpu_clocks
from edge_gru.doctor.check import Check, failed, passed, skipped, warned
from edge_gru.doctor.machine import Machine, dotted
from edge_gru.errors import EngineUnavailableError

_VENV = "/usr/bin/python3 -m venv --system-site-packages .venv"
_OLDEST = (10, 3)
_JETPACK = "sudo apt install nvidia-jetpack"
_GPU_GROUPS = ("render", "video")
_SYSTEM_BINDINGS = "/usr/lib/python3*/dist-packages/tensorrt"
_NONE = "none here; the CPU engines serve"


def tensorrt(machine: Machine) -> Check:
    """Tell which TensorRT the system has."""
    name = "tensorrt"
    found = _system_tensorrt(machine)
    if found is None:
        if not machine.is_jetson:
            return skipped(name, _NONE)
        return warned(name, "not installed: the CPU engines serve", _JETPACK)
    if found < _OLDEST:
        newer = "move the board to JetPack 6.2, which has 10.3"
        return warned(name, f"{dotted(found)} is older than 10.3 and is not used", newer)
    return passed(name, f"{dotted(found)} of the system")


def _system_tensorrt(machine: Machine) -> tuple[int, ...] | None:
    versions = [v for p, v in machine.packages.items() if re.fullmatch(r"libnvinfer\d+", p)]
    matches = [match for v in versions if (match := re.match(r"\d+(?:\.\d+)+", v))]
    return max((tuple(map(int, match[0].split("."))) for match in matches), default=None)


def binding(machine: Machine) -> Check:
    """Tell whether this Python can import TensorRT, and from where; names what hides it."""
    name, process = "tensorrt in Python", machine.process
    folder = process.modules.get("tensorrt")
    if folder is None:
        return _no_binding(machine)
    version = process.distributions.get("tensorrt", "of unknown version")
    says = f"{version} from {folder}"
    if _is_wrong_build(machine, folder):
        return failed(
            name,
            f"{says}: pip's is built for servers and does not know the GPU of an Orin",
            f"pip uninstall {' '.join(_pip_packages(machine))}, then {_VENV}",
        )
    return passed(name, says)


def _is_wrong_build(machine: Machine, folder: str) -> bool:
    """Whether the binding came from pip to JetPack 6; JetPack 7 has the build of servers itself."""
    is_of_system = folder.startswith("/usr/lib/python3")
    return machine.l4t is not None and machine.l4t[0] < 38 and not is_of_system


def _pip_packages(machine: Machine) -> list[str]:
    return sorted(p for p in machine.process.distributions if p.startswith("tensorrt")) or [
        "tensorrt"
    ]


def _no_binding(machine: Machine) -> Check:
    name, process = "tensorrt in Python", machine.process
    of_system = machine.glob(_SYSTEM_BINDINGS) or machine.packages.get("python3-libnvinfer")
    if not of_system:
        if _system_tensorrt(machine) is None:
            return skipped(name, "there is no TensorRT to import")
        install = "sudo apt install python3-libnvinfer"
        return warned(name, "TensorRT is there, its Python package is not", install)
    python = dotted(process.version)
    if process.is_conda:
        return warned(name, "conda's Python cannot see the system's TensorRT", _VENV)
    versions = {p.split("/")[3].removeprefix("python") for p in machine.glob(_SYSTEM_BINDINGS)}
    if versions - {"3"} and python not in versions | {"3"}:
        has = " and ".join(sorted(versions))
        return warned(name, f"the system's is for Python {has}, this is {python}", _VENV)
    if process.is_virtual and not process.sees_system_packages:
        return warned(name, "this virtual environment hides the system's TensorRT", _VENV)
    return warned(name, f"{process.executable} does not find the system's TensorRT", f"use {_VENV}")


def cuda(machine: Machine) -> Check:
    """Tell which CUDA runtime there is."""
    found = [
        library
        for where in ("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/usr/lib/*")
        for library in machine.glob(f"{where}/libcudart.so.[0-9]*")
    ]
    packages = [v for p, v in machine.packages.items() if re.fullmatch(r"cuda-cudart-\d+-\d+", p)]
    if found or packages:
        return passed("cuda", max(packages) if packages else found[-1])
    if not machine.is_jetson:
        return skipped("cuda", _NONE)
    return warned("cuda", "the runtime is not installed", _JETPACK)


def gpu(machine: Machine) -> Check:
    """Tell whether there is an NVIDIA GPU, and whether this user may use it."""
    if not machine.is_jetson:
        return _gpu_of_pc(machine)
    missing = [group for group in _GPU_GROUPS if group not in machine.process.groups]
    found = gpu_clocks(machine)
    says = found[0].rpartition("/")[2] if found else "its clocks are not listed"
    if missing and not machine.process.is_root:
        groups = ",".join(missing)
        add = f"sudo usermod -aG {groups} $USER, then log in again"
        return warned("gpu", f"{says}; this user is not in {groups}", add)
    if machine.exists("/dev/dri") and not machine.glob("/dev/dri/renderD*"):
        return warned(
            "gpu",
            f"{says}; /dev/dri has no renderD node, without which CUDA does not start",
            "give the container or service the nodes /dev/dri/renderD*",
        )
    return _started(machine, says, _JETPACK)


def _gpu_of_pc(machine: Machine) -> Check:
    driver = machine.text("/proc/driver/nvidia/version")
    if driver is None:
        return skipped("gpu", _NONE)
    match = re.search(r"\d+\.\d+(?:\.\d+)?", driver)
    says = f"NVIDIA's driver {match[0] if match else 'of unknown version'}"
    return _started(
        machine, says, "pip install 'edge-gru[tensorrt]', or go on with the CPU engines"
    )


def _started(machine: Machine, says: str, fix: str) -> Check:
    """Tell whether CUDA starts for this user."""
    try:
        return passed("gpu", f"{says}: {machine.process.gpu()}")
    except EngineUnavailableError as error:
        return warned("gpu", f"{says}, and CUDA does not start: {error}", fix)
