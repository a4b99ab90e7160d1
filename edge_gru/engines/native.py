"""The native engine: fused cell steps in C, on the fastest kernel that this processor has."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from edge_gru.engines.base import Engine, EngineSource, Float32, Int32
from edge_gru.engines.native_plan import Plan
from edge_gru.engines.native_products import Products
from edge_gru.errors import EdgeGruError, EngineUnavailableError
from edge_gru.native import KERNELS, Network

KERNEL_VARIABLE = "EDGE_GRU_NATIVE_KERNEL"


class NativeEngine(Engine):
    """Runs the program of a bundle in C, with the same bits on every kernel and machine.

    ``kernel`` is one of ``KERNELS``; None takes what ``EDGE_GRU_NATIVE_KERNEL`` names, or else the
    fastest. ``step`` and ``step_batch`` are methods of the C type: they call back into the checks
    of ``Engine`` only for what needs a conversion, or is wrong.

    Raises:
        EngineUnavailableError: the program has an operation that C does not have, does not fit the
            weights, or the kernel does not run here.
        BundleError: the weights are not there.
    """

    name = "native"

    def __init__(
        self,
        source: EngineSource,
        *,
        n_streams: int,
        precision: str | None,
        kernel: str | None = None,
    ) -> None:
        super().__init__(source.manifest, n_streams)
        self.precision = source.precision(precision)
        self._n_steps = np.zeros(n_streams, np.int64)
        wanted = _find_kernel(kernel)
        weights = source.weights()
        products = Products(weights, source.manifest.precisions[self.precision].products)
        starts = source.initial_states()
        try:
            self._network = Network(
                self.n_in, self._n_steps, super().step, super().step_batch, wanted
            )
            plan = Plan(self._network, source.manifest, weights, products)
            self._states = plan.build(starts)
        except EdgeGruError:
            raise
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise EngineUnavailableError(
                f"the program does not fit the native engine in {self.precision} ({error}); "
                "pack the model again"
            ) from error
        self.kernel = self._network.kernel
        self.__dict__.update(step=self._network.step, step_batch=self._network.step_batch)

    def close(self) -> None:
        """Free the network."""
        if not self._is_closed:
            del self.step, self.step_batch, self._network
        super().close()

    def _step(self, x: Float32, out: Float32) -> None:
        out[...] = self._step_batch(x[None], np.zeros(1, np.int32))[0]

    def _step_batch(self, x: Float32, rows: Int32) -> Float32:
        y = np.empty((len(x), self.n_out), np.float32)
        self._network.advance(np.ascontiguousarray(x), rows, y)
        return y

    def _run_sequence(self, x: Float32, row: int) -> Float32:
        return self._network.run(np.ascontiguousarray(x), row)

    def _clear(self, rows: slice) -> None:
        self._network.reset(rows.start, rows.stop)

    def _read(self, row: int) -> dict[str, Float32]:
        return {name: self._network.read(value, row) for name, value in self._states.items()}

    def _write(self, row: int, values: Mapping[str, Float32]) -> None:
        for name, value in self._states.items():
            self._network.write(value, row, np.ascontiguousarray(values[name]))


def _find_kernel(kernel: str | None) -> str:
    wanted = kernel or os.environ.get(KERNEL_VARIABLE) or KERNELS[0]
    if wanted not in KERNELS:
        raise EngineUnavailableError(
            f"expected a kernel of {', '.join(KERNELS)} on this processor, got {wanted!r}; "
            f"name one of them, or unset {KERNEL_VARIABLE}"
        )
    return wanted
