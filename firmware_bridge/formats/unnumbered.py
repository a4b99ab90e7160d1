"""A port whose rows have no check, no number and no time: instants and gaps by arrival alone."""

from __future__ import annotations

import logging

import numpy as np

from firmware_bridge.formats.arrival import ArrivalClock
from firmware_bridge.formats.rows import Mark, RowParser
from firmware_bridge.formats.session import (
    FULL_CHUNK_BYTES,
    NO_FRAME_S,
    SILENCE_S,
    LinkStatistics,
    SessionSettings,
    n_bytes_text,
)
from firmware_bridge.sample import EpochChanged, Gap, Item, LinkDown, LinkUp, SampleBlock

_log = logging.getLogger(__name__)

_LOOK_S = 0.25


class UnnumberedSession:
    """One port, as `firmware_bridge.formats.session.Session` describes it, read by a parser.

    ``LinkUp`` is marked unverified: a wrong digit goes unseen, and so does a lost row unless its
    absence is long enough to be seen in time.
    """

    def __init__(
        self, settings: SessionSettings, counts: LinkStatistics, parser: RowParser, what: str
    ) -> None:
        self._rate_hz = settings.wanted_rate_hz
        self._counts = counts
        self._parser = parser
        self._what = what
        self._clock = ArrivalClock(self._rate_hz)
        self.connected(0.0, "", None)

    def connected(self, now_s: float, port: str, _paced_baud: int | None) -> None:
        """Begin on a port just opened."""
        self._port = port
        self._parser.begin()
        self._row_s = now_s
        self._interval_s = 0.0
        self._bytes_at_row = self._counts.bytes_read
        self._is_up = self._has_complained = False
        self._seq = 0
        self.wake_at_s = now_s + _LOOK_S

    def disconnected(self, now_s: float, reason: str) -> list[Item]:
        """End on a port that hung up."""
        self._is_up = False
        return [LinkDown(now_s, reason)]

    def take_outgoing(self) -> bytes:
        """Return nothing: these boards do not listen."""
        return b""

    def farewell(self) -> bytes:
        """Return nothing, likewise."""
        return b""

    def receive(self, chunk: bytes, now_s: float) -> list[Item]:
        """Take bytes as read.

        Raises:
            SchemaError: the channels are not the expected ones.
        """
        self._counts.bytes_read += len(chunk)
        items: list[Item] = []
        values: list[list[float]] = []
        for row in self._parser.feed(chunk):
            if isinstance(row, Mark):
                self._emit(values, now_s, items)
                values = []
                self._restart(row, now_s, items)
            else:
                values.append(row)
        self._emit(values, now_s, items, has_more=len(chunk) >= FULL_CHUNK_BYTES)
        return items

    def _restart(self, mark: Mark, now_s: float, items: list[Item]) -> None:
        self._clock.reset()
        self._seq = 0
        items.append(EpochChanged(now_s, 0, mark.value))

    def _emit(
        self,
        values: list[list[float]],
        now_s: float,
        items: list[Item],
        *,
        has_more: bool = False,
    ) -> None:
        """Append the block of the rows gathered so far."""
        schema = self._parser.schema
        if not values or schema is None:
            return
        n = len(values)
        if not self._is_up:
            self._is_up, self._has_complained = True, False
            self._clock.reset()
            self._seq = 0
            items.append(LinkUp(now_s, self._port, schema, is_verified=False))
        n_missing, times = self._clock.stamp(n, now_s, has_more=has_more)
        if n_missing:
            self._counts.lost_samples += n_missing
            self._seq += n_missing
            items.append(Gap(now_s, n_missing))
        seq = np.arange(self._seq, self._seq + n, dtype=np.int64)
        items.append(SampleBlock(times, seq, np.array(values, np.float32), now_s))
        self._seq += n
        self._counts.samples += n
        self._counts.unlocked_samples += n
        self._interval_s, self._row_s = now_s - self._row_s, now_s
        self._bytes_at_row = self._counts.bytes_read

    def tick(self, now_s: float) -> list[Item]:
        """Say, once until samples come, that none do."""
        self.wake_at_s = now_s + _LOOK_S
        self._state_rate()
        quiet_s = now_s - self._row_s
        n_bytes = self._counts.bytes_read - self._bytes_at_row
        if self._has_complained:
            return []
        if n_bytes and quiet_s >= NO_FRAME_S and not self._is_up:
            reason = f"{n_bytes_text(n_bytes)} and no {self._what}: wrong baud rate or format?"
        elif quiet_s >= max(SILENCE_S, 3 * self._usual_interval_s):
            reason = f"no {self._what} for {quiet_s:.0f} s: is the board alive?"
        else:
            return []
        self._is_up, self._has_complained = False, True
        _log.warning("%s: %s", self._port, reason)
        return [LinkDown(now_s, reason)]

    def _state_rate(self) -> None:
        """Put the estimated rate into the counters, and say it when it is new."""
        estimated_hz = self._clock.estimated_hz or 0.0
        if estimated_hz and not self._counts.rate_hz:
            _log.info("%s: about %.4g samples/s, by arrival", self._port, estimated_hz)
        self._counts.rate_hz = estimated_hz

    @property
    def _usual_interval_s(self) -> float:
        return self._interval_s if self._rate_hz is None else 1 / self._rate_hz
