"""What a sensor board delivers: schema, samples, blocks of them, and events in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from firmware_bridge.errors import SchemaError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Channel:
    """One measured quantity; ``unit`` is empty where it is unknown."""

    name: str
    unit: str = ""


@dataclass(frozen=True)
class Schema:
    """Channels in wire order, and the sampling rate where it is known.

    Raises:
        SchemaError: no channel, a nameless or doubled channel, or a rate that is not positive.
    """

    channels: tuple[Channel, ...]
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        if not self.channels:
            raise SchemaError("expected at least one channel, got none; name what the board sends")
        names = self.names
        if not all(names):
            raise SchemaError(f"expected a name for every channel, got {list(names)}")
        if len(set(names)) != len(names):
            raise SchemaError(f"expected distinct channel names, got {list(names)}; rename one")
        if self.rate_hz is not None and not 0 < self.rate_hz < float("inf"):
            raise SchemaError(
                f"expected a positive rate_hz, got {self.rate_hz}; omit it if unknown"
            )

    @classmethod
    def unnamed(cls, n_channels: int, rate_hz: float | None = None) -> Schema:
        """Make channels ``ch0..`` of unknown unit."""
        return cls(tuple(Channel(f"ch{i}") for i in range(n_channels)), rate_hz)

    @classmethod
    def of(cls, channels: Sequence[str | tuple[str, str]], rate_hz: float | None = None) -> Schema:
        """Make a schema from names or (name, unit) pairs."""
        pairs = [(c, "") if isinstance(c, str) else c for c in channels]
        return cls(tuple(Channel(name, unit) for name, unit in pairs), rate_hz)

    @property
    def is_unnamed(self) -> bool:
        """Whether only the number of channels is known: ``ch0..`` of unknown unit."""
        return self.channels == Schema.unnamed(len(self.channels)).channels

    @property
    def n_channels(self) -> int:
        """Number of values in a sample."""
        return len(self.channels)

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names in wire order."""
        return tuple(c.name for c in self.channels)


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of all channels.

    ``t_s`` is the sampling instant in host monotonic seconds, ``read_s`` the moment its bytes were
    read, ``seq`` counts samples of an epoch without wrap, ``values`` is ``(n,)`` in physical units.
    """

    t_s: float
    seq: int
    values: Float32
    read_s: float


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """Consecutive samples, no gap or event between them; arrays share their first axis ``k``."""

    t_s: Float64
    seq: Int64
    values: Float32  # (k, n)
    read_s: float

    def __len__(self) -> int:
        return len(self.seq)

    def __iter__(self) -> Iterator[Sample]:
        for t_s, seq, values in zip(self.t_s.tolist(), self.seq.tolist(), self.values, strict=True):
            yield Sample(t_s, seq, values, self.read_s)


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The port is open and what comes next has this schema; nothing before it counts any more.

    ``epoch`` is the board's number of the stream, where it has one. Where ``is_verified`` is False
    the format has no check and no numbering: a wrong digit or a lost sample may go unseen, and
    times are those of arrival.
    """

    t_s: float
    port: str
    schema: Schema
    epoch: int | None = field(default=None, compare=False)
    is_verified: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The port hung up, or fell silent; ``reason`` is a sentence for people."""

    t_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class EpochChanged:
    """The board began a new stream: restarted, or was told to start again."""

    t_s: float
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """``n_missing`` samples were lost between the sample before and the one after."""

    t_s: float
    n_missing: int


Event: TypeAlias = LinkUp | LinkDown | EpochChanged | Gap
Item: TypeAlias = SampleBlock | Event
