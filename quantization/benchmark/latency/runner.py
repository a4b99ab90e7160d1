"""What every engine and peer is timed through, and the form that it runs a network in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.weights import Weights
from quantization.benchmark.native import N_OUT


class Runner(ABC):
    """Runs one network for a fixed number of streams, whose states it carries."""

    @abstractmethod
    def step(self, sample: Any) -> Any:
        """Advance the only stream by one of ``laid_out``; returns the outputs, in any shape."""

    def step_batch(self, x: Float32) -> Float32:
        """Advance every stream: ``(n_streams, n_in)`` -> ``(n_streams, n_out)``.

        Here of a library that has one stream alone.
        """
        (sample,) = self.laid_out(x)
        return np.asarray(self.step(sample)).reshape(1, N_OUT)

    def laid_out(self, x: Float32) -> list[Any]:
        """Lay ``(n, n_in)`` samples out as ``step`` takes them; not timed."""
        return list(x)

    def steps(self, samples: Sequence[Any]) -> None:
        """Step through samples as fast as a loop in Python can."""
        step = self.step
        for sample in samples:
            step(sample)

    def run_sequence(self, x: Float32) -> Float32:
        """Run the only stream: ``(t, n_in)`` -> ``(t, n_out)``.

        Here step by step, as one does with a library that has no more.
        """
        y = np.empty((len(x), N_OUT), np.float32)
        for k, sample in enumerate(self.laid_out(x)):
            y[k] = np.asarray(self.step(sample)).reshape(N_OUT)
        return y


class StatePassing(Runner):
    """A peer that is given the states and returns new ones, some rows at a time.

    Streams are cut into chunks of ``n_rows``, each with states of its own.
    """

    def __init__(self, n_streams: int, n_rows: int) -> None:
        self._chunks = [slice(k, k + n_rows) for k in range(0, n_streams, n_rows)]
        self._states: list[Any] = []

    @abstractmethod
    def advance(self, x: Float32, states: Any) -> tuple[Float32, Any]:
        """Run one step: ``(n_rows, n_in)`` -> ``(n_rows, n_out)``, and the new states."""

    @abstractmethod
    def start(self) -> Any:
        """Make the states of ``n_rows`` streams that have just begun."""

    def step_batch(self, x: Float32) -> Float32:
        """Advance every stream, chunk by chunk."""
        if not self._states:
            self._states = [self.start() for _ in self._chunks]
        y = np.empty((len(x), N_OUT), np.float32)
        for k, chunk in enumerate(self._chunks):
            y[chunk], self._states[k] = self.advance(x[chunk], self._states[k])
        return y


@dataclass(frozen=True)
class Form:
    """One way to run a network: a peer's library, operator and precision.

    ``open`` takes the network, the number of streams, and how many rows to run at a time.
    """

    name: str
    sqnr_floor_db: float  # against the reference in fp32
    open: Callable[[Weights, int, int], Runner]
    row_counts: tuple[int, ...] = ()  # to choose from by trial; empty: it runs all at once
    has_batch: bool = True
    has_step: bool = True  # from Python
    cells: tuple[str, ...] = ("GRU", "LSTM", "RNN_TANH")

    FP32_DB: ClassVar[float] = 90.0
    INT8_DB: ClassVar[float] = 20.0
    INT4_DB: ClassVar[float] = 10.0

    def fits(self, cell: str, kind: str) -> bool:
        """Tell whether it has this cell in this kind of use: step, batch or sequence."""
        lacks = (kind == "batch" and not self.has_batch) or (kind == "step" and not self.has_step)
        return cell in self.cells and not lacks


ROW_COUNTS = (16, 64, 256)
