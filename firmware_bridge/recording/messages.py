"""How items are written as JSON: one message a sample, one an event, exact to the last bit.

Numbers are the shortest decimals that read back as the same float32 or float64. What is not finite
stands as "NaN", "Infinity" or "-Infinity", since JSON has no number for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from firmware_bridge.errors import FormatError
from firmware_bridge.sample import (
    EpochChanged,
    Event,
    Gap,
    Item,
    LinkDown,
    LinkUp,
    SampleBlock,
    Schema,
)

BYTES_TOPIC = "/bytes"
SAMPLES_TOPIC = "/samples"
EVENTS_TOPIC = "/events"

_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (LinkUp, LinkDown, EpochChanged, Gap)
}
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

EVENT_SCHEMA = msgspec.json.encode(
    {
        "type": "object",
        "properties": {"kind": {"type": "string"}, "t_s": {"type": "number"}},
        "required": ["kind", "t_s"],
    }
)


class SampleMessage(msgspec.Struct, frozen=True):
    """One sample: its instant, its number, when it was read, and its values by channel."""

    t_s: float
    seq: int
    read_s: float
    values: dict[str, float | str]


_encoder = msgspec.json.Encoder()
_sample_decoder = msgspec.json.Decoder(SampleMessage)
_event_decoder = msgspec.json.Decoder(dict[str, Any])


def sample_schema(schema: Schema) -> bytes:
    """Return the JSON schema of samples, for programs that plot them."""
    values = {
        c.name: {"type": "number", **({"description": c.unit} if c.unit else {})}
        for c in schema.channels
    }
    return _encoder.encode(
        {
            "type": "object",
            "properties": {
                "t_s": {"type": "number"},
                "seq": {"type": "integer"},
                "read_s": {"type": "number"},
                "values": {"type": "object", "properties": values},
            },
        }
    )


def encode_samples(block: SampleBlock, schema: Schema) -> Iterator[bytes]:
    """Return one message a sample."""
    names = schema.names
    rows = block.values.astype(np.float64)
    is_finite = np.isfinite(rows).all()
    for t_s, seq, row in zip(block.t_s.tolist(), block.seq.tolist(), rows.tolist(), strict=True):
        values = row if is_finite else [_to_json(value) for value in row]
        by_name = dict(zip(names, values, strict=True))
        yield _encoder.encode(SampleMessage(t_s, seq, block.read_s, by_name))


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decode_sample(data: bytes) -> SampleMessage:
    """Return a sample as it was written."""
    return _sample_decoder.decode(data)


def values_of(message: SampleMessage) -> list[float]:
    """Return the values in their order."""
    return [_NOT_FINITE[v] if isinstance(v, str) else v for v in message.values.values()]


def encode_event(event: Event) -> bytes:
    """Return an event with its kind."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return _encoder.encode({"kind": type(event).__name__, **fields})


def decode_event(data: bytes) -> Item:
    """Return an event as it was written.

    Raises:
        FormatError: a kind of event that is unknown here.
    """
    fields = _event_decoder.decode(data)
    kind = _EVENTS.get(fields.pop("kind", ""))
    if kind is None:
        raise FormatError(f"expected an event of {', '.join(_EVENTS)}, got {data[:80]!r}")
    return msgspec.convert(fields, kind)
