from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeGpu
from use import use

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine

Opened = Callable[..., Engine]


@pytest.fixture
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "plans"
    monkeypatch.setenv("EDGE_GRU_TENSORRT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(make_bundle: Callable[..., Bundle]) -> Bundle:
    """LSTM cells: four states of one size, with learned starts."""
    return make_bundle("LSTM", recipe="fp32")


@pytest.fixture
def open_tiny(gpu: FakeGpu, tiny: Bundle, cache_folder: Path) -> Callable[..., Engine]:
    """Open the engine, as users do."""

    def open_one(n_streams: int = 1, precision: str = "fp32") -> Engine:
        return tiny.open("tensorrt", streams=n_streams, precision=precision)

    return open_one


@pytest.fixture
def lent(gpu: FakeGpu, open_tiny: Opened) -> Callable[..., Iterator[Engine]]:
    """An engine that leaves nothing behind."""

    @contextmanager
    def lend(n_streams: int = 1) -> Iterator[Engine]:
        with open_tiny(n_streams) as engine:
            yield engine
        gpu.assert_clean()

    return lend


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture
def expected(tiny: Bundle, batch: np.ndarray) -> Callable[[int], list[np.ndarray]]:
    def of(n_streams: int) -> list[np.ndarray]:
        with tiny.open("reference", streams=n_streams, precision="fp32") as engine:
            return use(engine, batch)

    return of
