"""The schema as the board tells it: JSON, with the raw type and scale of each channel."""

from __future__ import annotations

import math
import zlib
from typing import Any

import msgspec
import numpy as np

from firmware_bridge.errors import SchemaError
from firmware_bridge.protocol.messages import TICK_HZ
from firmware_bridge.sample import Channel, Schema

RAW_DTYPES = ("<f4", "<f8", "<i1", "<i2", "<i4", "<u1", "<u2", "<u4")


class BoardChannel(msgspec.Struct, frozen=True, omit_defaults=True):
    """One channel: value in ``unit`` = raw * scale + offset."""

    name: str
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    min: float | None = None
    max: float | None = None


class RateRange(msgspec.Struct, frozen=True):
    """Any sampling rate between two ends, in Hz."""

    min: float
    max: float


class BoardSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the firmware says of itself. ``rate_hz``: the rates on offer, the first by default."""

    channels: tuple[BoardChannel, ...]
    dtype: str = "<i2"
    rate_hz: tuple[float, ...] | RateRange | None = None
    proto: int = 1
    fw: str = ""
    device: str = ""
    uid: str = ""
    tick_hz: int = TICK_HZ

    @classmethod
    def of(
        cls,
        schema: Schema,
        dtype: str = "<f4",
        scale: float = 1.0,
        *,
        device: str = "simulator",
    ) -> BoardSchema:
        """Make the wire form of ``schema``, all channels with one scale."""
        channels = tuple(BoardChannel(c.name, c.unit, scale) for c in schema.channels)
        rate_hz = None if schema.rate_hz is None else (schema.rate_hz,)
        return cls(channels, dtype, rate_hz, device=device)

    @classmethod
    def from_wire(cls, wire: bytes) -> BoardSchema:
        """Read the JSON that a board sent.

        Raises:
            SchemaError: it is no JSON of this form, or asks for a raw type or tick unknown here.
        """
        try:
            schema = msgspec.json.decode(wire, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SchemaError(
                f"the board's schema cannot be read ({error}); fix its firmware"
            ) from error
        schema.check()
        return schema

    @classmethod
    def from_toml(cls, text: bytes) -> BoardSchema:
        """Read the same fields from TOML, as people write them; ``rate_hz`` may be one number.

        What a file of `firmware_bridge.port_settings.PortSettings` has besides is passed over.

        Raises:
            SchemaError: it is no TOML of this form, or asks for a raw type or tick unknown here.
        """
        try:
            fields: dict[str, Any] = msgspec.toml.decode(text)
            if isinstance(fields.get("rate_hz"), int | float):
                fields["rate_hz"] = [fields["rate_hz"]]
            schema = msgspec.convert(fields, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SchemaError(
                f"expected a schema in TOML ([[channels]] with name, unit, scale), got {error}"
            ) from error
        schema.check()
        return schema

    def check(self) -> None:
        """Refuse what no host could decode.

        Raises:
            SchemaError: a raw type or tick unknown here, no channels, names empty or doubled, a
                scale or rate that is none.
        """
        if self.dtype not in RAW_DTYPES:
            raise SchemaError(
                f"expected one of the raw types {', '.join(RAW_DTYPES)}, the board sends "
                f"{self.dtype!r}; fix its schema"
            )
        if self.tick_hz != TICK_HZ:
            raise SchemaError(
                f"expected time stamps of {TICK_HZ} ticks a second, the board counts "
                f"{self.tick_hz}; scale them in the firmware"
            )
        self.schema()
        for channel in self.channels:
            is_right = math.isfinite(channel.scale) and math.isfinite(channel.offset)
            if not is_right or channel.scale == 0:
                raise SchemaError(
                    f"expected a scale other than 0 and a finite offset for {channel.name}, got "
                    f"{channel.scale:g} and {channel.offset:g}; value = raw * scale + offset"
                )
        self._check_rates()

    def _check_rates(self) -> None:
        offered = self.rate_hz or ()
        rates_hz = (offered.min, offered.max) if isinstance(offered, RateRange) else offered
        is_upside_down = isinstance(offered, RateRange) and offered.min > offered.max
        if is_upside_down or not all(0 < rate_hz < math.inf for rate_hz in rates_hz):
            raise SchemaError(
                "expected positive rates in rate_hz, the smaller end of a range first, got "
                f"{', '.join(f'{rate_hz:g}' for rate_hz in rates_hz)}; omit it if unknown"
            )

    def to_wire(self) -> bytes:
        """Return the JSON that goes over the wire and into the check of every sample."""
        return msgspec.json.encode(self)

    def schema(self, rate_hz: float | None = None) -> Schema:
        """Return the channels in physical units, at ``rate_hz``.

        Raises:
            SchemaError: no channels, or names that are empty or doubled.
        """
        return Schema(tuple(Channel(c.name, c.unit) for c in self.channels), rate_hz)

    def offers_rate(self, rate_hz: float) -> bool:
        """Tell whether the board says it can sample at ``rate_hz``; a silent one is asked."""
        if self.rate_hz is None:
            return True
        if isinstance(self.rate_hz, RateRange):
            return self.rate_hz.min <= rate_hz <= self.rate_hz.max
        return any(abs(rate_hz - offered) <= 1e-3 * offered for offered in self.rate_hz)

    @property
    def default_rate_hz(self) -> float | None:
        """The rate to ask for when nobody names one."""
        if isinstance(self.rate_hz, RateRange):
            return self.rate_hz.max
        return self.rate_hz[0] if self.rate_hz else None

    @property
    def n_sample_bytes(self) -> int:
        """Bytes of one sample's values."""
        return len(self.channels) * np.dtype(self.dtype).itemsize


def schema_crc32(wire: bytes) -> int:
    """Return the fingerprint by which WELCOME names a schema."""
    return zlib.crc32(wire)
