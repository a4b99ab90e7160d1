"""The wire between a sensor board and its host: bytes in, samples and events out."""

from firmware_bridge.errors import (
    BridgeError,
    FormatError,
    PortError,
    PortNotFoundError,
    ProtocolError,
    SchemaError,
)
from firmware_bridge.link import Link, LinkStatistics
from firmware_bridge.port import PortInfo, list_ports
from firmware_bridge.sample import (
    Channel,
    EpochChanged,
    Event,
    Gap,
    Item,
    LinkDown,
    LinkUp,
    Sample,
    SampleBlock,
    Schema,
)

__all__ = [
    "BridgeError",
    "Channel",
    "EpochChanged",
    "Event",
    "FormatError",
    "Gap",
    "Item",
    "Link",
    "LinkDown",
    "LinkStatistics",
    "LinkUp",
    "PortError",
    "PortInfo",
    "PortNotFoundError",
    "ProtocolError",
    "Sample",
    "SampleBlock",
    "Schema",
    "SchemaError",
    "list_ports",
]
