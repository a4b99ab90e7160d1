"""The engines: which of them could serve here."""

from __future__ import annotations

from edge_gru.doctor.check import Check, failed, passed, warned
from edge_gru.doctor.machine import Machine
from edge_gru.engines.table import ENGINES, unavailable


def native(machine: Machine) -> Check:
    """Tell whether the C kernels were built."""
    name = "native engine"
    if "edge_gru.native._native" not in machine.process.modules:
        return warned(name, "its kernels were not built", ENGINES["native"].install)
    from edge_gru.native import KERNELS  # noqa: PLC0415 - it may not be there

    return passed(name, f"kernels {', '.join(KERNELS)}")


def onnxruntime(machine: Machine) -> Check:
    """Tell whether onnxruntime is installed."""
    if "onnxruntime" not in machine.process.modules:
        return warned("onnxruntime", "not installed", ENGINES["onnxruntime"].install)
    versions = machine.process.distributions
    named = [f"{name} {v}" for name, v in sorted(versions.items()) if name.startswith("onnxr")]
    return passed("onnxruntime", ", ".join(named) or "of unknown version")


def engines(machine: Machine) -> Check:  # noqa: ARG001 - what this process imports is what counts
    """Tell which engines this Python can open; one that serves is enough."""
    reasons = {name: unavailable(name) for name in ENGINES}
    ready = [name for name, reason in reasons.items() if reason is None]
    if any(ENGINES[name].serves for name in ready):
        return passed("engines", f"ready: {', '.join(ready)}")
    return failed(
        "engines",
        f"only {', '.join(ready)}, which is a definition to compare with",
        "pip install 'edge-gru[onnxruntime]'",
    )
