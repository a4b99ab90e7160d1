"""The contract of every engine, and the part that engines with states in host memory share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.tensors import WEIGHTS, read_tensors, unpacked
from edge_gru.errors import BundleError, EngineUnavailableError, InputShapeError
from edge_gru.manifest import Manifest
from edge_gru.state import State

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class EngineSource:
    """The parts of a bundle that an engine is made from."""

    manifest: Manifest
    parts: Mapping[str, bytes]

    def precision(self, wanted: str | None) -> str:
        """Resolve a precision; None stands for the bundle's own.

        Raises:
            EngineUnavailableError: the bundle has no such precision.
        """
        name = self.manifest.default_precision if wanted is None else wanted
        if name not in self.manifest.precisions:
            raise EngineUnavailableError(
                f"expected one of the precisions {sorted(self.manifest.precisions)}, got {name!r}"
            )
        return name

    def part(self, name: str) -> bytes:
        """Take a part.

        Raises:
            BundleError: the bundle has none of that name.
        """
        data = self.parts.get(name)
        if data is None:
            raise BundleError(f"expected a bundle with {name}, got one without; pack it again")
        return data

    def tensors(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Read the arrays of a part by name.

        Raises:
            BundleError: the bundle has no such part, or it holds no tensors.
        """
        return read_tensors(self.part(name), name)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Read the weights by name, packed ones as int8.

        Raises:
            BundleError: the bundle has none, or they cannot be read.
        """
        return unpacked(self.tensors(WEIGHTS))

    def initial_states(self) -> dict[str, Float32]:
        """Return what each state starts from, ``(size,)`` by name; zeros if the model says nothing.

        Raises:
            BundleError: a learned one is missing, of another size or type, or not finite.
        """
        states = self.manifest.states
        weights = self.tensors(WEIGHTS) if any(s.has_initial for s in states) else {}
        starts = {}
        for state in states:
            start = np.zeros(state.size, np.float32)
            if state.has_initial:
                start = weights.get(f"{state.name}.initial", np.empty(0))
            if start.shape != (state.size,) or start.dtype != _FLOAT32 or not _is_finite(start):
                raise BundleError(
                    f"expected {state.size} finite float32 values that {state.name} starts from, "
                    f"got {start.shape} in {start.dtype}; pack the model again"
                )
            starts[state.name] = start
        return starts


class Engine(ABC):
    """Runs a model one step at a time and owns the states of its streams.

    Checks what callers hand in; an engine implements the underscored methods below and may trust
    their arguments. Not thread-safe; separate engines are independent. Arrays that ``step`` and
    ``step_batch`` return belong to the caller. A sample that is not finite spoils the state of its
    stream until the stream is reset: whoever reads a sensor keeps such samples away.

    Raises:
        InputShapeError: fewer than one stream.
        EngineUnavailableError: from every method, once the engine is closed.
    """

    name: str  # "onnxruntime"
    precision: str  # "int8", "fp32"

    def __init__(self, manifest: Manifest, n_streams: int) -> None:
        if n_streams < 1:
            raise InputShapeError(f"expected at least one stream, got {n_streams}")
        self.manifest = manifest
        self.model_hash = manifest.model_hash
        self.n_in = manifest.n_in
        self.n_out = manifest.n_out
        self.n_streams = n_streams
        self._n_steps: list[int] | npt.NDArray[np.int64] = [0] * n_streams
        self._is_closed = False

    def step(self, x: Float32, out: Float32 | None = None) -> Float32:
        """Advance stream 0 by one sample: ``(n_in,)`` -> ``(n_out,)``, written to ``out`` if given.

        Raises:
            InputShapeError: ``x`` is not ``(n_in,)``, or ``out`` not a writeable ``(n_out,)`` of
                float32; the state is kept.
        """
        if self._is_closed:
            raise _closed()
        x = np.asarray(x, _FLOAT32)
        if x.shape != (self.n_in,):
            raise InputShapeError(
                f"expected a sample of shape ({self.n_in},), got {x.shape}; "
                "is this the bundle for this sensor?"
            )
        if out is None:
            out = np.empty(self.n_out, _FLOAT32)
        elif out.shape != (self.n_out,) or out.dtype != _FLOAT32 or not out.flags.writeable:
            raise InputShapeError(
                f"expected out to be a writeable float32 array of shape ({self.n_out},), "
                f"got {out.dtype} of shape {out.shape}"
            )
        self._step(x, out)
        self._n_steps[0] += 1
        return out

    def step_batch(self, x: Float32, streams: Int32 | None = None) -> Float32:
        """Advance many streams by one sample each: ``(k, n_in)``, ``(k,)`` -> ``(k, n_out)``.

        ``streams`` defaults to ``0..k-1``; every stream at most once.

        Raises:
            InputShapeError: a wrong shape, a stream that does not exist, or one named twice; no
                stream moves.
        """
        if self._is_closed:
            raise _closed()
        x = np.asarray(x, _FLOAT32)
        if x.ndim != 2 or x.shape[1] != self.n_in:
            raise InputShapeError(f"expected samples of shape (k, {self.n_in}), got {x.shape}")
        rows = np.arange(len(x), dtype=np.int32) if streams is None else self._rows(streams)
        if rows.shape != (len(x),):
            raise InputShapeError(f"expected streams of shape ({len(x)},), got {rows.shape}")
        if len(rows) > self.n_streams:
            raise InputShapeError(
                f"expected at most {self.n_streams} samples, one a stream, got {len(rows)}"
            )
        if not len(rows):
            return np.empty((0, self.n_out), _FLOAT32)
        y = self._step_batch(x, rows)
        for row in rows.tolist():
            self._n_steps[row] += 1
        return y

    def run_sequence(self, x: Float32, stream: int = 0) -> Float32:
        """Advance one stream by many samples: ``(t, n_in)`` -> ``(t, n_out)``, as single steps do.

        Raises:
            InputShapeError: a wrong shape, or no such stream; the state is kept.
        """
        row = self._row(stream)
        x = np.asarray(x, _FLOAT32)
        if x.ndim != 2 or x.shape[1] != self.n_in:
            raise InputShapeError(f"expected samples of shape (t, {self.n_in}), got {x.shape}")
        if not len(x):
            return np.empty((0, self.n_out), _FLOAT32)
        y = self._run_sequence(x, row)
        self._n_steps[row] += len(x)
        return y

    def reset(self, stream: int | None = None) -> None:
        """Put one stream, or all, back to the state that the model starts from: zero, or learned.

        Raises:
            InputShapeError: no such stream.
        """
        if self._is_closed:
            raise _closed()
        first, end = 0, self.n_streams
        if stream is not None:
            first = self._row(stream)
            end = first + 1
        self._clear(slice(first, end))
        self._n_steps[first:end] = [0] * (end - first)

    def save_state(self, stream: int = 0) -> State:
        """Copy the state of a stream.

        Raises:
            InputShapeError: no such stream.
        """
        row = self._row(stream)
        return State(self.model_hash, int(self._n_steps[row]), self._read(row))

    def load_state(self, stream: int, state: State) -> None:
        """Continue a stream from a saved state.

        Raises:
            InputShapeError: no such stream.
            StateMismatchError: the state is of another model, or none that this one can reach; the
                stream is kept as it is.
        """
        row = self._row(stream)
        state.check(self.model_hash, self.manifest.states)
        self._write(row, state.values)
        self._n_steps[row] = state.n_steps

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards. Closing twice is fine."""
        self._is_closed = True

    def __enter__(self) -> Engine:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _step(self, x: Float32, out: Float32) -> None:
        """Advance stream 0: ``(n_in,)`` into ``(n_out,)``."""

    @abstractmethod
    def _step_batch(self, x: Float32, rows: Int32) -> Float32:
        """Advance distinct streams: ``(k, n_in)``, ``(k,)`` -> ``(k, n_out)``."""

    def _run_sequence(self, x: Float32, row: int) -> Float32:
        """Advance one stream: ``(t, n_in)``, t > 0 -> ``(t, n_out)``."""
        rows = np.array([row], np.int32)
        return np.concatenate([self._step_batch(sample[None], rows) for sample in x])

    @abstractmethod
    def _clear(self, rows: slice) -> None:
        """Set the states of some streams to what the model starts from."""

    @abstractmethod
    def _read(self, row: int) -> dict[str, Float32]:
        """Copy the states of one stream, by name."""

    @abstractmethod
    def _write(self, row: int, values: Mapping[str, Float32]) -> None:
        """Set the states of one stream."""

    def _rows(self, streams: Int32) -> Int32:
        rows = np.asarray(streams)
        if not rows.size:
            return rows.astype(np.int32)
        if rows.dtype.kind not in "iu":  # a mask would be read as streams 0 and 1
            raise InputShapeError(f"expected streams as integers, got {rows.dtype}")
        if not 0 <= rows.min() <= rows.max() < self.n_streams:
            raise InputShapeError(
                f"expected streams from 0 to {self.n_streams - 1}, got {rows.min()} to {rows.max()}"
            )
        if len(np.unique(rows)) != rows.size:
            raise InputShapeError("expected every stream at most once in a step, got one twice")
        return rows.astype(np.int32)

    def _row(self, stream: int) -> int:
        if self._is_closed:
            raise _closed()
        if not 0 <= stream < self.n_streams:
            raise InputShapeError(f"expected a stream from 0 to {self.n_streams - 1}, got {stream}")
        return int(stream)  # an int32 of numpy's would overflow in an address


def _is_finite(values: npt.NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all())


def _closed() -> EngineUnavailableError:
    return EngineUnavailableError("the engine is closed; open another")


class HostStateEngine(Engine):
    """An engine whose states lie in host memory, one contiguous float32 row a stream.

    Raises:
        BundleError: a state that the model starts from is missing, or of another size.
    """

    def __init__(self, source: EngineSource, n_streams: int) -> None:
        manifest = source.manifest
        super().__init__(manifest, n_streams)
        self._slices: dict[str, slice] = {}
        offset = 0
        for state in manifest.states:
            self._slices[state.name] = slice(offset, offset + state.size)
            offset += state.size
        self._start = np.concatenate(list(source.initial_states().values()))
        self._states = np.tile(self._start, (n_streams, 1))
        self._state_0 = self._states[0]  # a view

    @abstractmethod
    def _advance(self, x: Float32, states: Float32) -> tuple[Float32, Float32]:
        """Run one step of k rows: ``(k, n_in)``, ``(k, n_state)`` -> ``(k, n_out)``, new states."""

    def _try_step(self) -> None:
        """Run two rows of zeros, so that a model that does not fit its manifest shows here.

        Raises:
            EngineUnavailableError: outputs or states of other widths than the manifest says.
        """
        width = self._states.shape[1]
        y, new = self._advance(np.zeros((2, self.n_in), _FLOAT32), np.zeros((2, width), _FLOAT32))
        if y.shape != (2, self.n_out) or new.shape != (2, width):
            raise EngineUnavailableError(
                f"expected {self.n_out} outputs and {width} state values from the model, "
                f"got {y.shape[1:]} and {new.shape[1:]}; pack it again"
            )

    def _step(self, x: Float32, out: Float32) -> None:
        y, self._states[:1] = self._advance(x[None], self._states[:1])
        out[...] = y[0]

    def _step_batch(self, x: Float32, rows: Int32) -> Float32:
        y, self._states[rows] = self._advance(x, self._states[rows])
        return y

    def _clear(self, rows: slice) -> None:
        self._states[rows] = self._start

    def _read(self, row: int) -> dict[str, Float32]:
        return {name: self._states[row, part].copy() for name, part in self._slices.items()}

    def _write(self, row: int, values: Mapping[str, Float32]) -> None:
        for name, part in self._slices.items():
            self._states[row, part] = values[name]
