"""Where the samples of a simulated board come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from firmware_bridge.sample import Float32, Schema


class Source(Protocol):
    """Samples of one sensor in order, each ``(n,)`` float32 in physical units.

    ``schema.rate_hz`` is the true rate. An empty array stands for a sample that is lost on the way.
    """

    @property
    def schema(self) -> Schema:
        """Channels and rate."""

    def __iter__(self) -> Iterator[Float32]:
        """Begin with the first sample."""
