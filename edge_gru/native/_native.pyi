from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
Int32: TypeAlias = npt.NDArray[np.int32]
Product: TypeAlias = tuple[str, npt.NDArray[Any], Float32 | None, Float32 | None, float]

KERNELS: tuple[str, ...]
OPERATIONS: tuple[str, ...]

class Network:
    def __init__(
        self,
        n_in: int,
        counts: npt.NDArray[np.int64],
        step_any: Callable[..., Float32],
        batch_any: Callable[..., Float32],
        kernel: str | None,
        /,
    ) -> None: ...
    @property
    def kernel(self) -> str: ...
    def step(self, x: Float32, out: Float32 | None = None) -> Float32: ...
    def step_batch(self, x: Float32, streams: Int32 | None = None) -> Float32: ...
    def advance(self, x: Float32, streams: Int32, out: Float32, /) -> None: ...
    def run(self, x: Float32, stream: int, /) -> Float32: ...
    def read(self, state: int, stream: int, /) -> Float32: ...
    def write(self, state: int, stream: int, values: Float32, /) -> None: ...
    def reset(self, first: int, end: int, /) -> None: ...
    def state(self, start: Float32, /) -> int: ...
    def constant(self, values: Float32, /) -> int: ...
    def scratch(self, width: int, /) -> int: ...
    def operation(
        self,
        name: str,
        inputs: tuple[int, ...],
        output: int,
        parameters: tuple[float, ...],
        indices: Int32 | None,
        /,
    ) -> None: ...
    def dense(self, x: int, output: int, product: Product, bias: Float32, /) -> None: ...
    def cell(
        self,
        kind: str,
        n_hidden: int,
        x: int,
        h: int,
        c: int,
        x_product: Product,
        h_product: Product,
        candidate: Product | None,
        projection: Product | None,
        bias: Float32,
        bias_candidate: Float32 | None,
        /,
    ) -> None: ...
    def seal(self, output: int, /) -> None: ...
