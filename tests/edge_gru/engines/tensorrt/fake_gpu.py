"""A machine with a GPU that is none: puts the fakes where the engine looks for the real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fake_cuda import FakeCuda
from fake_state import State
from fake_tensorrt import make_module

from edge_gru.engines.tensorrt import cudart

_PACKAGE = "edge_gru.engines.tensorrt."
_BOUND = ("binding", "build", "runtime", "runner", "plans", "engine")  # they hold the binding


@dataclass
class FakeGpu:
    trt: State
    module: ModuleType

    @property
    def cuda(self) -> FakeCuda:
        return self.trt.cuda

    def assert_clean(self) -> None:
        """Nothing leaked, and nothing was done that a real GPU may not forgive."""
        assert self.cuda.faults == []
        assert self.cuda.leaks() == []


@contextmanager
def fake_gpu(version: str = "10.3.0") -> Iterator[FakeGpu]:
    """Take the place of TensorRT and CUDA, for modules of the engine that are imported in here."""
    kept = _KEPT.setdefault(version, _Kept(version))
    kept.state.renew()

    def load_library(name: str) -> Any:
        if name != "libcudart.so.12":
            raise OSError(f"{name}: cannot open shared object file")
        return kept.state.cuda.library

    real_load = cudart.load_library
    before = {name: sys.modules.pop(name, None) for name in _NAMES}
    sys.modules.update(kept.modules)
    cudart.load_library = load_library
    try:
        yield FakeGpu(kept.state, kept.modules["tensorrt"])
    finally:
        cudart.load_library = real_load
        for name in _NAMES:
            found = sys.modules.pop(name, None)
            if found is not None:
                kept.modules[name] = found
            if before[name] is not None:
                sys.modules[name] = before[name]


class _Kept:
    """A fake TensorRT, and the modules that have imported it: importing them anew takes long."""

    def __init__(self, version: str) -> None:
        self.state = State(version)
        self.modules = {"tensorrt": make_module(self.state)}


_NAMES = ["tensorrt", *(_PACKAGE + name for name in _BOUND)]
_KEPT: dict[str, _Kept] = {}
