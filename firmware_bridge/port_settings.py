"""What there is to know of a port: its name, format, baud rate, channels; as a file in TOML.

`edge-gru firmware` takes the same file, and its files are taken here: raw types and scales, which
only matter to the firmware, are passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from firmware_bridge.errors import FormatError
from firmware_bridge.sample import Channel, Schema

_OF_THE_BOARD = frozenset({"dtype", "fw", "device", "uid", "proto", "tick_hz"})
_OF_ITS_CHANNELS = frozenset({"scale", "offset", "min", "max"})


class NamedChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One channel in the file."""

    name: str
    unit: str = ""


class PortSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One port; an empty name is still to be given.

    ``rate_hz`` is estimated from arrival where the format has no rate.
    """

    port: str = ""
    format: str = "framed"
    baud: int = 115200
    rate_hz: float | None = None
    channels: tuple[NamedChannel, ...] = ()

    @classmethod
    def of(cls, port: str, format: str, baud: int, schema: Schema) -> PortSettings:  # noqa: A002 - the key's name
        """Make the settings of a port that sends ``schema``."""
        channels = tuple(NamedChannel(c.name, c.unit) for c in schema.channels)
        return cls(port, format, baud, schema.rate_hz, channels)

    @classmethod
    def read(cls, path: Path | str) -> PortSettings:
        """Read a file.

        Raises:
            FormatError: it cannot be read, is no TOML, or a key is wrong.
        """
        try:
            fields = msgspec.toml.decode(Path(path).read_bytes())
            return msgspec.convert(_of_the_port(fields), cls)
        except OSError as error:
            raise FormatError(f"cannot read {path}: {error.strerror}; check the path") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: expected the settings of a port, got {error}") from error

    @property
    def schema(self) -> Schema | None:
        """The channels; None where the file names none.

        Raises:
            SchemaError: a nameless or doubled channel, or a rate that is not positive.
        """
        if not self.channels:
            return None
        return Schema(tuple(Channel(c.name, c.unit) for c in self.channels), self.rate_hz)

    def to_toml(self) -> str:
        """Return the text of a file."""
        lines = [
            f"port = {_quoted(self.port)}",
            f"format = {_quoted(self.format)}",
            f"baud = {self.baud}",
            'dtype = "<f4"',  # for a firmware made from this: values in their units
        ]
        if self.rate_hz is not None:
            lines.append(f"rate_hz = {self.rate_hz:.6g}")
        for channel in self.channels:
            lines += [
                "",
                "[[channels]]",
                f"name = {_quoted(channel.name)}",
                f"unit = {_quoted(channel.unit)}",
            ]
        return "\n".join(lines) + "\n"


def _of_the_port(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what a host needs of a file that may have been written for a firmware."""
    kept = {key: value for key, value in fields.items() if key not in _OF_THE_BOARD}
    rate_hz = kept.get("rate_hz")
    if isinstance(rate_hz, list | dict):  # on offer; one alone is the one
        kept["rate_hz"] = rate_hz[0] if isinstance(rate_hz, list) and len(rate_hz) == 1 else None
    if isinstance(kept.get("channels"), list):
        kept["channels"] = [
            {key: value for key, value in channel.items() if key not in _OF_ITS_CHANNELS}
            if isinstance(channel, dict)
            else channel
            for channel in kept["channels"]
        ]
    return kept


def _quoted(text: str) -> str:
    """Return a TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
