"""An engine that needs a build: the reference, once somebody lets its build end."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest

from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.reference import ReferenceEngine
from edge_gru.engines.table import ENGINES, EngineRow
from edge_gru.errors import EngineUnavailableError

NAME = "slow"
_PATIENCE_S = 20


class SlowBuild:
    """What the builds of the engine do: they wait for ``may_end``, then fail with ``error``."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.has_begun = threading.Event()
        self.error: Exception | None = None
        self.output_error = 0.0
        self.n_begun = 0
        self.closed: list[str] = []

    def wait(self, cancel: threading.Event) -> None:
        self.n_begun += 1
        self.has_begun.set()
        while not self.may_end.wait(0.001):
            if cancel.is_set():
                raise EngineUnavailableError("the build was stopped")
        if self.error is not None:
            raise self.error

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Add the engine to the table."""
        build = self

        class SlowEngine(ReferenceEngine):
            name = NAME

            def __init__(self, source, *, n_streams, precision, progress=None, cancel=None):
                build.wait(cancel or threading.Event())
                if progress is not None:
                    progress("building", 1.0)
                super().__init__(source, n_streams=n_streams, precision=precision)

            def _step(self, x, out):
                super()._step(x, out)
                out += build.output_error

            def close(self):
                build.closed.append(self.precision)
                super().close()

        module = ModuleType("slow_engine_of_tests")
        module.SlowEngine = SlowEngine
        monkeypatch.setitem(sys.modules, module.__name__, module)
        row = EngineRow(module.__name__, "SlowEngine", "install it", serves=True, needs_build=True)
        monkeypatch.setitem(ENGINES, NAME, row)


def passed(engine: str, precision: str = "fp32") -> GoldenResult:
    """What the golden vectors say of an engine that is right."""
    return GoldenResult(engine, precision, 1, 0.0, 1.0, 100.0, 30.0)
