"""An engine that needs a build, and a link that waits for what a test waits for."""

from __future__ import annotations

import sys
import threading
from collections import deque
from types import ModuleType

import pytest

from edge_gru.engines.reference import ReferenceEngine
from edge_gru.engines.table import ENGINES, EngineRow
from edge_gru.errors import EngineLostError, EngineUnavailableError
from firmware_bridge.link import LinkStatistics

NAME = "slow"


class SlowBuild:
    """The builds of an engine that is the reference otherwise.

    They wait for ``may_end``, and then fail with ``error``, if there is one.
    """

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.has_begun = threading.Event()
        self.error: Exception | None = None
        self.output_error = 0.0
        self.is_lost = False
        self.n_begun = 0
        self.n_saved = 0  # states of streams that had begun
        self.closed: list[str] = []

    def wait(self, cancel: threading.Event) -> None:
        self.n_begun += 1
        self.has_begun.set()
        while not self.may_end.wait(0.001):
            if cancel.is_set():
                raise EngineUnavailableError("the build was stopped")
        if self.error is not None:
            raise self.error

    def check(self) -> None:
        if self.is_lost:
            raise EngineLostError("the GPU fell off the bus")

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
                build.check()
                super()._step(x, out)
                out += build.output_error

            def _clear(self, rows):
                build.check()
                super()._clear(rows)

            def _read(self, row):
                build.check()
                build.n_saved += self._n_steps[row] > 0
                return super()._read(row)

            def close(self):
                build.closed.append(self.precision)
                super().close()

        module = ModuleType("slow_engine_of_tests")
        module.SlowEngine = SlowEngine
        monkeypatch.setitem(sys.modules, module.__name__, module)
        row = EngineRow(module.__name__, "SlowEngine", "install it", serves=True, needs_build=True)
        monkeypatch.setitem(ENGINES, NAME, row)


class PausingLink:
    """Delivers items; a callable among them is asked, in silence, until it is true."""

    def __init__(self, *script) -> None:
        self._script = deque(script)
        self._stopped = threading.Event()
        self.statistics = LinkStatistics()
        self.overrun_samples = 0

    @property
    def finished(self) -> bool:
        return not self._script or self._stopped.is_set()

    def receive(self, timeout_s):
        if self._script and callable(self._script[0]):
            if self._script[0]():
                self._script.popleft()
            else:
                self._stopped.wait(0.001)
            return None
        return self._script.popleft() if self._script else None

    def stop(self) -> None:
        self._stopped.set()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass
