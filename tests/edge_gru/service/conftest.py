from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_gru.service.events import Event
from firmware_bridge.sample import SampleBlock


class ListSink:
    """Keeps events; ``is_read`` False plays a reader that left."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.n_dropped = 0
        self.n_flushes = 0
        self.is_closed = False
        self.is_read = True

    def write(self, event: Event) -> None:
        self.events.append(event)

    def flush(self) -> bool:
        self.n_flushes += 1
        return self.is_read

    def close(self) -> None:
        self.is_closed = True

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def block() -> Callable[..., SampleBlock]:
    def make(first: int, n: int, *, rate_hz: float = 200.0, n_in: int = 2) -> SampleBlock:
        """Samples first .. first + n - 1 of one endless reproducible recording."""
        seq = np.arange(first, first + n)
        values = np.stack([np.sin(seq * 0.1 + k) for k in range(n_in)], axis=1).astype(np.float32)
        t_s = 100.0 + seq / rate_hz
        return SampleBlock(t_s, seq, values, float(t_s[-1]))

    return make
