"""What leaves the loop: one Struct a kind, one schema for every sink.

``(device, boot, run, stream, seq)`` names an event for ever: ``boot`` is the host's boot, ``run``
this process, ``seq`` counts its events. ``mono_ns`` (host monotonic clock) orders events of one
boot; ``wall`` is for people, and only right where ``clock_synced``.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec

from edge_gru.service.statistics import Summary

VERSION = 1


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", gc=False):
    v: int = VERSION
    device: str
    stream: str
    boot: str
    run: str
    seq: int
    wall: datetime
    mono_ns: int
    clock_synced: bool
    historical: bool = False


class PredictionEvent(_Event, frozen=True, kw_only=True, tag="prediction", gc=False):
    """What the model says of one sample.

    ``mono_ns`` is the sampling instant, ``sample_seq`` the sample's number in its epoch,
    ``y`` output name -> value (null: not finite), ``label`` the name of the largest output where
    the model has labels, ``n_steps`` the samples behind it since the state was last cleared,
    ``latency_us`` the time from the read of the sample's bytes to this prediction, ``n_dropped``
    the samples so far that were dropped because the loop did not keep up.
    """

    sample_seq: int
    y: dict[str, float]
    label: str | None
    status: str  # "warmup" or "ok"
    n_steps: int
    warming_up: bool
    latency_us: float
    model: str
    model_hash: str
    engine: str
    n_dropped: int


class ModelEvent(_Event, frozen=True, kw_only=True, tag="model", gc=False):
    """An engine passed the golden vectors and serves from here on."""

    model: str
    model_hash: str
    engine: str
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    n_warmup: int | None
    golden_step_error: float
    golden_sqnr_db: float | None  # None: equal


class EngineEvent(_Event, frozen=True, kw_only=True, tag="engine", gc=False):
    """The search for a faster engine has ended; ``reason`` is a sentence for people.

    ``engine`` serves from here on, with the state carried over from ``previous``: the predictions
    go on as if nothing had been. Where both are the same, none is faster here, or none could be
    built.
    """

    model: str
    model_hash: str
    engine: str
    previous: str
    reason: str
    golden_step_error: float | None = None
    golden_sqnr_db: float | None = None  # None: equal, or no other engine


class LinkEvent(_Event, frozen=True, kw_only=True, tag="link", gc=False):
    """The port came up or went down; ``reason`` is a sentence for people."""

    up: bool
    port: str
    channels: tuple[str, ...] = ()
    reason: str = ""


class GapEvent(_Event, frozen=True, kw_only=True, tag="gap", gc=False):
    """Samples were lost before the next prediction."""

    n_missing: int


class EpochEvent(_Event, frozen=True, kw_only=True, tag="epoch", gc=False):
    """The board began a new stream, so the state was cleared."""

    epoch: int
    reason: str


class AlertEvent(_Event, frozen=True, kw_only=True, tag="alert", gc=False):
    """An output rose above a threshold for long enough, or fell below it again."""

    name: str
    on: str
    active: bool
    value: float
    threshold: float
    sample_seq: int


class HealthEvent(_Event, frozen=True, kw_only=True, tag="health", gc=False):
    """The counters so far; ``final``: the run ended, this is its summary."""

    final: bool
    summary: Summary


Event: TypeAlias = (
    PredictionEvent
    | ModelEvent
    | EngineEvent
    | LinkEvent
    | GapEvent
    | EpochEvent
    | AlertEvent
    | HealthEvent
)

_encoder = msgspec.json.Encoder()


def encode_line(event: Event, buffer: bytearray) -> None:
    """Append an event to ``buffer`` as one line of JSON."""
    _encoder.encode_into(event, buffer, -1)
    buffer += b"\n"
