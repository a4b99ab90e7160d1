"""A plan at work: states in device memory, passed back and forth between two contexts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Float32
from edge_gru.engines.tensorrt.binding import trt
from edge_gru.engines.tensorrt.cudart import TO_DEVICE, TO_HOST, Cuda
from edge_gru.engines.tensorrt.device import Mapped, device_memory, mapped_array, open_stream
from edge_gru.engines.tensorrt.runtime import Phase, bound_context, check_tensors, expected_tensors
from edge_gru.manifest import Manifest

_FLOAT_BYTES = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _StateMemory:
    """One state of all streams: the two device buffers, and host memory to copy from and to."""

    size: int
    buffers: tuple[int, int]
    start: Mapped  # (n_rows, size)
    row: Mapped  # (size,)


class StepRunner:
    """Runs a plan for ``n_rows`` streams, whose states never leave the device.

    Two buffers a state: an even step reads the first and writes the second, an odd one the
    reverse, so a step that fails, or is interrupted, leaves the state as it was. Write ``x``
    (n_rows, n_in), and with several rows ``active`` (n_rows, 1), advance, and read ``y``
    (n_rows, n_out): all three are memory that host and GPU share.
    """

    def __init__(
        self,
        cuda: Cuda,
        stream: int,
        states: Mapping[str, _StateMemory],
        phases: tuple[Phase, Phase],
        shared: Mapping[str, Mapped],
    ) -> None:
        self._cuda = cuda
        self._stream = stream
        self._states = states
        self._phases = phases
        self._parity = 0
        self.x: Float32 = shared["x"].array
        self.y: Float32 = shared["y"].array
        self.active: npt.NDArray[np.bool_] | None = None
        if "active" in shared:
            self.active = shared["active"].array

    @classmethod
    @contextmanager
    def open(
        cls,
        cuda: Cuda,
        engine: trt.ICudaEngine,
        manifest: Manifest,
        starts: Mapping[str, Float32],
        n_rows: int,
        *,
        uses_graphs: bool,
    ) -> Iterator[StepRunner]:
        """Allocate, bind and record; all streams begin with ``starts``, (size,) by state.

        Raises:
            EngineUnavailableError: the plan is not one of this bundle, or does not run here.
        """
        tensors = expected_tensors(manifest, n_rows)
        check_tensors(engine, tensors)
        inputs = {name: (n_rows, t.shape[1]) for name, t in tensors.items() if t.is_input}
        with ExitStack() as stack:
            stream = stack.enter_context(open_stream(cuda))
            shared = _lend_shared(stack, cuda, manifest, n_rows)
            states = {
                name: _lend_state(stack, cuda, starts[name], n_rows)
                for name in manifest.state_sizes
            }
            stack.callback(cuda.drain, stream)  # nothing is freed that is still being used
            for memory in states.values():  # the first runs must not read what lies there
                cuda.copy(memory.buffers[0], *_whole(memory.start), TO_DEVICE, stream)
            phases = []  # both contexts use the one profile of the plan, as TensorRT 10 lets them
            for parity in (0, 1):
                addresses = {name: mapped.address for name, mapped in shared.items()}
                for name, memory in states.items():
                    addresses[name] = memory.buffers[parity]
                    addresses[f"{name}_out"] = memory.buffers[1 - parity]
                context = bound_context(engine, addresses, inputs)
                opened = Phase.open(cuda, context, stream, uses_graph=uses_graphs)
                del context
                phases.append(stack.enter_context(opened))
            _warn_of_missing_graphs(phases)
            runner = cls(cuda, stream, states, (phases[0], phases[1]), shared)
            runner.clear(slice(0, n_rows))
            yield runner

    def advance(self) -> None:
        """Run one step of the rows that are active, and wait for it.

        Raises:
            EngineUnavailableError: it does not run; the states are as they were.
            EngineLostError: the GPU is lost.
        """
        self._phases[self._parity].launch()
        self._cuda.synchronize(self._stream)
        self._parity ^= 1

    def clear(self, rows: slice) -> None:
        """Put rows back to what streams begin with, in the order of the stream."""
        for memory in self._states.values():
            n_bytes = memory.size * _FLOAT_BYTES
            first = rows.start * n_bytes
            target = memory.buffers[self._parity] + first
            source = memory.start.host + first
            size = (rows.stop - rows.start) * n_bytes
            self._cuda.copy(target, source, size, TO_DEVICE, self._stream)

    def read(self, row: int) -> dict[str, Float32]:
        """Copy the states of one row."""
        for memory in self._states.values():
            target, n_bytes = _whole(memory.row)
            source = memory.buffers[self._parity] + row * n_bytes
            self._cuda.copy(target, source, n_bytes, TO_HOST, self._stream)
        self._cuda.synchronize(self._stream)
        return {name: memory.row.array.copy() for name, memory in self._states.items()}

    def write(self, row: int, values: Mapping[str, Float32]) -> None:
        """Set the states of one row."""
        for name, memory in self._states.items():
            memory.row.array[...] = values[name]
            source, n_bytes = _whole(memory.row)
            target = memory.buffers[self._parity] + row * n_bytes
            self._cuda.copy(target, source, n_bytes, TO_DEVICE, self._stream)
        self._cuda.synchronize(self._stream)  # the host memory is used again


def _lend_shared(
    stack: ExitStack, cuda: Cuda, manifest: Manifest, n_rows: int
) -> dict[str, Mapped]:
    shapes = {"x": ((n_rows, manifest.n_in), "f4"), "y": ((n_rows, manifest.n_out), "f4")}
    if n_rows > 1:
        shapes["active"] = ((n_rows, 1), "?")
    return {
        name: stack.enter_context(mapped_array(cuda, shape, dtype))
        for name, (shape, dtype) in shapes.items()
    }


def _lend_state(stack: ExitStack, cuda: Cuda, start: Float32, n_rows: int) -> _StateMemory:
    n_bytes = n_rows * start.size * _FLOAT_BYTES
    first, second = (stack.enter_context(device_memory(cuda, n_bytes)) for _ in range(2))
    starts = stack.enter_context(mapped_array(cuda, (n_rows, start.size), "f4"))
    starts.array[...] = start
    row = stack.enter_context(mapped_array(cuda, (start.size,), "f4"))
    return _StateMemory(start.size, (first, second), starts, row)


def _whole(mapped: Mapped) -> tuple[int, int]:
    return mapped.host, mapped.array.nbytes


def _warn_of_missing_graphs(phases: list[Phase]) -> None:
    reasons = {phase.why_no_graph for phase in phases} - {""}
    if reasons:
        _log.warning(
            "steps run without CUDA graphs, and so with more work for the CPU: %s",
            "; ".join(sorted(reasons)),
        )
