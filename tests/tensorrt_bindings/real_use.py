"""The engine's own code on NVIDIA's bindings: what they accept before a library is needed.

Without libraries a builder and a runtime cannot be made; how the bindings say so is part of what
the engine must understand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from edge_gru.engines.tensorrt import build, runtime
from edge_gru.engines.tensorrt.binding import LOG, trt
from edge_gru.engines.tensorrt.settings import DETAILS
from edge_gru.errors import EngineUnavailableError


def refusal(act: Callable[[], object]) -> EngineUnavailableError:
    try:
        act()
    except EngineUnavailableError as error:
        return error
    raise AssertionError("expected the bindings to refuse")


def main() -> None:
    for severity in trt.ILogger.Severity.__members__.values():
        LOG.log(severity, f"{severity}")
    assert LOG.reason() == "Severity.INTERNAL_ERROR; Severity.ERROR", LOG.reason()
    assert len(LOG.messages()) == 3
    reports: SimpleQueue[tuple[str, float] | None] = SimpleQueue()
    monitor = build._Monitor(reports, threading.Event())
    assert isinstance(monitor, trt.IProgressMonitor)
    monitor.phase_start("phase", None, 1)
    assert monitor.step_complete("phase", 0)
    for detail in DETAILS.values():
        assert detail in trt.ProfilingVerbosity.__members__
    assert 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) in (1, 2)
    for refused, act in {
        "no builder here": lambda: build.build_plan(b"", build.BuildOptions("fp32")),
        "no runtime here": lambda: runtime.load_plan(b""),
    }.items():
        error = refusal(act)
        assert refused in str(error), error
        assert "nullptr" in str(error.__cause__), error.__cause__
    print("real bindings", trt.__version__)


if __name__ == "__main__":
    main()
