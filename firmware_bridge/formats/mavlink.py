"""MAVLink 1 and 2 through pymavlink: what autopilots and their sensors send."""

from __future__ import annotations

from pymavlink.dialects.v20 import common

from firmware_bridge.formats.rows import Row
from firmware_bridge.formats.sentences import NewestValues
from firmware_bridge.formats.session import LinkStatistics, SessionSettings, TickClock
from firmware_bridge.formats.unnumbered import UnnumberedSession
from firmware_bridge.sample import Schema

_BAD = "BAD_DATA"
_NO_FIELD = "mavpackettype"


class MavlinkParser:
    """Messages whose check is right, as rows of `sentences.NewestValues`."""

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._counts = counts
        self._newest = NewestValues(settings)
        self.begin()

    @property
    def schema(self) -> Schema | None:
        """The channels; None until the first row."""
        return self._newest.schema

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        self._newest.begin()
        self._parser = common.MAVLink(None)
        self._parser.robust_parsing = True

    def feed(self, chunk: bytes) -> list[Row]:
        """Return the rows of the rounds that messages in ``chunk`` end."""
        rows: list[Row] = []
        for message in self._parser.parse_buffer(chunk) or ():
            kind = message.get_type()
            if kind == _BAD:
                self._counts.bad_check += 1
                self._counts.discarded_bytes += len(message.data)
                continue
            self._counts.frames_good += 1
            row = self._newest.take(kind, _numbers(message))
            if row is not None:
                rows.append(row)
        return rows


def _numbers(message: common.MAVLink_message) -> dict[str, float]:
    """Return the numeric fields of a message; the elements of an array apart."""
    values = {}
    for name, value in message.to_dict().items():
        if isinstance(value, int | float) and name != _NO_FIELD:
            values[name] = float(value)
        elif isinstance(value, list):
            values.update({f"{name}[{i}]": float(v) for i, v in enumerate(value)})
    return values


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    return UnnumberedSession(settings, counts, MavlinkParser(settings, counts), "MAVLink message")
