"""The messages of the framed protocol, one definition for both ends."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from firmware_bridge.framing import BATCH, DATA, HEADER, SCHEMA, VERSION, encode_frame, payload_of

TICK_HZ = 1_000_000


class Kind(IntEnum):
    """What a frame carries: below 16 from the board, from 16 on to it."""

    BOOT = 1
    DATA = DATA
    BATCH = BATCH
    WELCOME = 4
    SCHEMA = SCHEMA
    PONG = 6
    STATUS = 7
    ACK = 8
    LOG = 9
    HELLO = 16
    READ_SCHEMA = 17
    PING = 18
    REQUEST = 19
    PREDICTION = 20
    ALARM = 21


class Command(IntEnum):
    """What a REQUEST asks for."""

    START = 1
    STOP = 2
    IDENTIFY = 3
    RESET = 4
    SET = 5


FIRST_OWN_COMMAND = 0x80  # from here on commands are the board's own


class AckStatus(IntEnum):
    """How a REQUEST went."""

    OK = 0
    UNKNOWN_COMMAND = 1
    BAD_ARGUMENT = 2
    BUSY = 3
    RATE_TOO_HIGH = 4
    NOT_SUPPORTED = 5
    FAILED = 6


FLAG_STREAMING = 1
FLAG_SENSOR_FAULT = 2
FLAG_CLOCK_NOT_LOCKED = 4
FLAG_ALARM_LIT = 8

PREDICTION_WARMING_UP = 1
PREDICTION_HAS_ALARM = 2


class Boot(NamedTuple):
    """The board has started. Often lost: nothing may rely on it."""

    boot_id: int
    reset_cause: int
    proto_min: int
    proto_max: int


class Welcome(NamedTuple):
    """Answer to HELLO; ``proto`` is 0 when no version is common to both."""

    proto: int
    proto_min: int
    proto_max: int
    reset_cause: int
    boot_id: int
    schema_crc32: int
    n_schema_bytes: int
    n_max_body_bytes: int
    nonce: int


class SchemaPart(NamedTuple):
    """Bytes of the schema from ``offset`` on."""

    offset: int
    part: bytes


class Pong(NamedTuple):
    """Answer to PING: its token, and the device time of its arrival."""

    token: int
    arrived_us: int


class Status(NamedTuple):
    """The board's own counters, sent every second whether it streams or not."""

    boot_id: int
    uptime_s: int
    n_samples: int
    n_dropped: int
    n_missed: int
    n_rx_bad: int
    n_rx_overrun: int
    ring_high_water: int
    reset_cause: int
    flags: int
    n_rx_good: int  # frames of the host
    n_predictions: int  # of them


class Ack(NamedTuple):
    """Answer to a REQUEST; the frame's header shows the epoch in force."""

    request_id: int
    command: int
    status: int
    result: bytes


class Log(NamedTuple):
    """A line for people, UTF-8."""

    level: int
    text: bytes


class Hello(NamedTuple):
    """First message of a host; the board forgets the request ids of the host before."""

    proto_min: int
    proto_max: int
    nonce: int


class ReadSchema(NamedTuple):
    """Ask for ``n_bytes`` of the schema from ``offset`` on."""

    offset: int
    n_bytes: int


class Ping(NamedTuple):
    """Ask for the device time."""

    token: int


class Request(NamedTuple):
    """Ask for an action; the same id again asks for the same answer, not for a second action."""

    request_id: int
    command: int
    arguments: bytes


class Prediction(NamedTuple):
    """What the model says of sample ``seq`` of the epoch in the header; ``values``: float32.

    Best effort: one that is late is worthless. ``n_values`` stands before the values for receivers
    that do not know the length of what carries them.
    """

    seq: int
    flags: int
    n_values: int
    values: bytes


class Alarm(NamedTuple):
    """Which alerts of the model are active, bit i for alert i.

    A level and not an edge: told at every change, every second and after every handshake, so that
    a lost frame, or a board that restarted, is made good.
    """

    alarms: int


Message: TypeAlias = (
    Boot
    | Welcome
    | SchemaPart
    | Pong
    | Status
    | Ack
    | Log
    | Hello
    | ReadSchema
    | Ping
    | Request
    | Prediction
    | Alarm
)


class _Layout(NamedTuple):
    message: type[Message]
    fixed: struct.Struct
    has_tail: bool


_LAYOUTS = {
    Kind.BOOT: _Layout(Boot, struct.Struct("<IBBBx"), has_tail=False),
    Kind.WELCOME: _Layout(Welcome, struct.Struct("<BBBBIIHHI"), has_tail=False),
    Kind.SCHEMA: _Layout(SchemaPart, struct.Struct("<H"), has_tail=True),
    Kind.PONG: _Layout(Pong, struct.Struct("<QI"), has_tail=False),
    Kind.STATUS: _Layout(Status, struct.Struct("<IIIIIHHHBBII"), has_tail=False),
    Kind.ACK: _Layout(Ack, struct.Struct("<BBBx"), has_tail=True),
    Kind.LOG: _Layout(Log, struct.Struct("<B"), has_tail=True),
    Kind.HELLO: _Layout(Hello, struct.Struct("<BBxxI"), has_tail=False),
    Kind.READ_SCHEMA: _Layout(ReadSchema, struct.Struct("<HH"), has_tail=False),
    Kind.PING: _Layout(Ping, struct.Struct("<Q"), has_tail=False),
    Kind.REQUEST: _Layout(Request, struct.Struct("<BB"), has_tail=True),
    Kind.PREDICTION: _Layout(Prediction, struct.Struct("<HBB"), has_tail=True),
    Kind.ALARM: _Layout(Alarm, struct.Struct("<I"), has_tail=False),
}
_KINDS = {layout.message: kind for kind, layout in _LAYOUTS.items()}

START_ARGUMENTS = struct.Struct("<IB")  # period_us, samples per frame
START_RESULT = struct.Struct("<I")  # period_us in force


def n_prediction_body_bytes(n_outputs: int) -> int:
    """Return the length of the body that carries a PREDICTION of ``n_outputs``."""
    return HEADER.size + _LAYOUTS[Kind.PREDICTION].fixed.size + 4 * n_outputs + 2


def max_outputs(n_max_body_bytes: int) -> int:
    """Return how many outputs a PREDICTION can carry to a board that takes bodies so long."""
    return min(255, max(0, n_max_body_bytes - n_prediction_body_bytes(0)) // 4)


class Received(NamedTuple):
    """A message and the header it came with."""

    message: Message
    epoch: int
    seq: int
    t_us: int


def encode_message(message: Message, *, epoch: int = 0, seq: int = 0, t_us: int = 0) -> bytes:
    """Return the frame that carries ``message``. The host leaves the header at zero."""
    kind = _KINDS[type(message)]
    layout = _LAYOUTS[kind]
    if layout.has_tail:
        payload = layout.fixed.pack(*message[:-1]) + bytes(message[-1])
    else:
        payload = layout.fixed.pack(*message)
    return encode_frame(kind, payload, epoch=epoch, seq=seq, t_us=t_us)


def decode_message(body: bytes) -> Received | None:
    """Return the message in a checked body; None for a kind or payload length unknown here."""
    version_kind, epoch, seq, t_us = HEADER.unpack_from(body)
    layout = _LAYOUTS.get(version_kind & 31)
    payload = payload_of(body)
    if version_kind >> 5 != VERSION or layout is None:
        return None
    n_fixed_bytes = layout.fixed.size
    if len(payload) < n_fixed_bytes or (len(payload) > n_fixed_bytes and not layout.has_tail):
        return None
    tail = (payload[n_fixed_bytes:],) if layout.has_tail else ()
    message = layout.message._make((*layout.fixed.unpack_from(payload), *tail))
    return Received(message, epoch, seq, t_us)
