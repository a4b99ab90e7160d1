"""The TensorRT engine: what a plan at work makes of the contract of every engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np

from edge_gru.engines.base import Engine, EngineSource, Float32, Int32
from edge_gru.engines.tensorrt.build import Progress
from edge_gru.engines.tensorrt.cudart import open_cuda
from edge_gru.engines.tensorrt.plans import prepare
from edge_gru.engines.tensorrt.runner import StepRunner
from edge_gru.engines.tensorrt.settings import WAITS, Settings
from edge_gru.errors import EngineLostError
from edge_gru.state import State

_FIRST = np.zeros(1, np.int32)


class TensorRTEngine(Engine):
    """Runs a plan of this board, from the cache or built now, with all states on the device.

    One stream has a plan of its own; several share one of exactly that many rows, with a mask of
    those that advance. Once an ``EngineLostError`` was raised, every later call raises another.

    Raises:
        EngineUnavailableError: no TensorRT, driver or GPU here; the plan cannot be built, kept or
            run; or ``cancel`` was set during the build.
        BundleError: a part is missing.
    """

    name = "tensorrt"

    def __init__(
        self,
        source: EngineSource,
        *,
        n_streams: int,
        precision: str | None,
        settings: Settings | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        super().__init__(source.manifest, n_streams)
        self.precision = source.precision(precision)
        self._saved: dict[int, State] = {}
        settings = settings or Settings.read(os.environ)
        starts = source.initial_states()
        cuda = open_cuda(WAITS[settings.wait])  # before anything of TensorRT's
        prepared = prepare(
            source, self.precision, n_streams, settings, cuda, progress=progress, cancel=cancel
        )
        with ExitStack() as stack:
            opened = StepRunner.open(
                cuda,
                prepared.engine,
                source.manifest,
                starts,
                n_streams,
                uses_graphs=settings.uses_graphs,
            )
            self._runner = stack.enter_context(opened)
            self._owned = stack.pop_all()

    def close(self) -> None:
        """Free graphs, contexts, plan and memory."""
        if not self._is_closed:
            del self._runner
            self._owned.close()
        super().close()

    def reset(self, stream: int | None = None) -> None:
        """Put one stream, or all, back to the state that the model starts from."""
        super().reset(stream)
        for row in list(self._saved) if stream is None else [stream]:
            self._saved.pop(row, None)

    def save_state(self, stream: int = 0) -> State:
        """Copy the state of a stream to the host, where it outlives the GPU."""
        state = super().save_state(stream)
        self._keep(stream, state)
        return state

    def load_state(self, stream: int, state: State) -> None:
        """Continue a stream from a saved state."""
        super().load_state(stream, state)
        self._keep(stream, state)

    def _step(self, x: Float32, out: Float32) -> None:
        if self.n_streams > 1:
            out[...] = self._step_batch(x[None], _FIRST)[0]
            return
        runner = self._runner
        runner.x[0] = x
        try:
            runner.advance()
        except EngineLostError as error:
            raise self._lost(error) from error
        out[...] = runner.y[0]

    def _step_batch(self, x: Float32, rows: Int32) -> Float32:
        runner = self._runner
        if runner.active is not None:
            runner.active[...] = False
            runner.active[rows] = True
        runner.x[rows] = x
        with self._surviving():
            runner.advance()
        return runner.y[rows]

    def _run_sequence(self, x: Float32, row: int) -> Float32:
        y = np.empty((len(x), self.n_out), np.float32)
        rows = np.array([row], np.int32)
        for k in range(len(x)):
            y[k] = self._step_batch(x[k : k + 1], rows)[0]
        return y

    def _clear(self, rows: slice) -> None:
        with self._surviving():
            self._runner.clear(rows)

    def _read(self, row: int) -> dict[str, Float32]:
        with self._surviving():
            return self._runner.read(row)

    def _write(self, row: int, values: Mapping[str, Float32]) -> None:
        with self._surviving():
            self._runner.write(row, values)

    def _keep(self, stream: int, state: State) -> None:
        values = {name: value.copy() for name, value in state.values.items()}
        self._saved[stream] = State(state.model_hash, state.n_steps, values)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Give the caller the saved states when the GPU is lost."""
        try:
            yield
        except EngineLostError as error:
            raise self._lost(error) from error

    def _lost(self, error: EngineLostError) -> EngineLostError:
        return EngineLostError(str(error), self._saved)
