"""Lines of numbers as most boards print them: no check, no numbering, time by arrival."""

from __future__ import annotations

import logging

import numpy as np

from firmware_bridge.errors import SchemaError
from firmware_bridge.formats.arrival import ArrivalClock
from firmware_bridge.formats.csv_text import parse_header, parse_numbers, split_fields
from firmware_bridge.formats.session import (
    NO_FRAME_S,
    SILENCE_S,
    LinkStatistics,
    SessionSettings,
    TickClock,
    describe,
    have_same_channels,
    n_bytes_text,
)
from firmware_bridge.sample import (
    Channel,
    EpochChanged,
    Gap,
    Item,
    LinkDown,
    LinkUp,
    SampleBlock,
    Schema,
)

_log = logging.getLogger(__name__)

MAX_LINE_BYTES = 4096
_N_WRONG_LINES = 5  # of one and the same other count, before the port is called the wrong one
_LOOK_S = 0.25


class CsvSession:
    """A port that prints lines, as `firmware_bridge.formats.session.Session` describes it.

    The first line after opening may be cut, so it counts only as a header. The first full line
    fixes the number of columns, unless the expected schema does.
    """

    def __init__(self, settings: SessionSettings, counts: LinkStatistics) -> None:
        self._expected = settings.schema
        self._rate_hz = settings.wanted_rate_hz
        self._counts = counts
        self._clock = ArrivalClock(self._rate_hz)
        self.connected(0.0, "", None)

    def connected(self, now_s: float, port: str, _paced_baud: int | None) -> None:
        """Begin on a port just opened."""
        self._port = port
        self._rest = b""
        self._is_skipping = False
        self._is_first_line = True
        self._header: tuple[Channel, ...] | None = None
        self._header_may_be_cut = False
        self._schema: Schema | None = None
        self._wrong_count = self._n_wrong = 0
        self._line_s = now_s
        self._interval_s = 0.0
        self._bytes_at_line = self._counts.bytes_read
        self._is_up = self._has_complained = False
        self._rows: list[list[float]] = []
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
            SchemaError: the header or the number of columns is not the expected one.
        """
        self._counts.bytes_read += len(chunk)
        items: list[Item] = []
        for line in self._lines(chunk):
            if line and not line.isspace():
                self._take_line(line, now_s, items)
        self._emit_rows(now_s, items)
        return items

    def _lines(self, chunk: bytes) -> list[str]:
        """Return the lines that ``chunk`` completes; too long ones are counted instead."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        counts = self._counts
        if self._is_skipping and lines:
            counts.discarded_bytes += len(lines[0])
            lines[0] = b""
            self._is_skipping = False
        if len(rest) > MAX_LINE_BYTES or self._is_skipping:
            counts.long_lines += not self._is_skipping
            counts.discarded_bytes += len(rest)
            self._is_skipping, rest = True, b""
        self._rest = rest
        texts = []
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                counts.long_lines += 1
                counts.discarded_bytes += len(line)
            else:
                texts.append(line.decode("utf-8", "replace"))
        return texts

    def _take_line(self, line: str, now_s: float, items: list[Item]) -> None:
        is_first, self._is_first_line = self._is_first_line, False
        fields = split_fields(line)
        values = parse_numbers(fields)
        if values is None:
            if not self._take_header(fields, is_first=is_first, now_s=now_s, items=items):
                self._refuse(line)
        elif is_first:
            self._counts.discarded_bytes += len(line)
        elif self._fits(len(values)):
            self._rows.append(values)
        else:
            self._refuse(line)

    def _refuse(self, line: str) -> None:
        self._counts.bad_lines += 1
        self._counts.discarded_bytes += len(line)

    def _take_header(
        self, fields: list[str], *, is_first: bool, now_s: float, items: list[Item]
    ) -> bool:
        """Keep a line of names; in mid-stream it says that the board restarted."""
        header = parse_header(fields)
        if header is None:
            return False
        if self._schema is None:
            self._header, self._header_may_be_cut = header, is_first
            return True
        if header != self._header:
            return False
        self._emit_rows(now_s, items)
        self._clock.reset()
        self._seq = 0
        items.append(EpochChanged(now_s, 0, "the board printed its header again: it restarted"))
        return True

    def _fits(self, n_values: int) -> bool:
        """Tell whether a line has as many values as it must; the first one settles the schema."""
        expected = self._schema or self._expected
        if expected is None or n_values == expected.n_channels:
            if self._schema is None:
                self._schema = self._settle(n_values)
            return True
        self._n_wrong = self._n_wrong + 1 if n_values == self._wrong_count else 1
        self._wrong_count = n_values
        if self._schema is None and self._n_wrong >= _N_WRONG_LINES:
            names = f" ({describe(Schema(self._header))})" if self._header else ""
            raise SchemaError(
                f"expected {expected.n_channels} columns ({describe(expected)}), the port sends "
                f"{n_values}{names}; is this the right sensor for the model?"
            )
        return False

    def _settle(self, n_values: int) -> Schema:
        """Return the schema of the stream, from header and expectation."""
        header = self._header if self._header and len(self._header) == n_values else None
        expected = self._expected
        if header is None:
            return expected or Schema.unnamed(n_values, self._rate_hz)
        offered = Schema(header, self._rate_hz)
        if expected is None:
            return offered
        # One word before one column may be a greeting; a line joined in the middle is cut.
        is_sure = n_values > 1 and not (self._header_may_be_cut and _is_tail(offered, expected))
        if is_sure and not have_same_channels(expected, offered):
            raise SchemaError(
                f"expected the columns {describe(expected)}; the header of the port says "
                f"{describe(offered)}; is this the right sensor for the model?"
            )
        return Schema(expected.channels, self._rate_hz)

    def _emit_rows(self, now_s: float, items: list[Item]) -> None:
        """Append the block of the rows gathered so far."""
        if not self._rows or self._schema is None:
            return
        values = np.array(self._rows, np.float32)
        self._rows = []
        n = len(values)
        if not self._is_up:
            self._is_up, self._has_complained = True, False
            self._clock.reset()
            self._seq = 0
            items.append(LinkUp(now_s, self._port, self._schema))
        n_missing, times = self._clock.stamp(n, now_s)
        if n_missing:
            self._counts.lost_samples += n_missing
            self._seq += n_missing
            items.append(Gap(now_s, n_missing))
        seq = np.arange(self._seq, self._seq + n, dtype=np.int64)
        items.append(SampleBlock(times, seq, values, now_s))
        self._seq += n
        self._counts.samples += n
        self._counts.frames_good += n
        self._interval_s, self._line_s = now_s - self._line_s, now_s
        self._bytes_at_line = self._counts.bytes_read

    def tick(self, now_s: float) -> list[Item]:
        """Say, once until samples come, that none do."""
        self.wake_at_s = now_s + _LOOK_S
        quiet_s = now_s - self._line_s
        n_bytes = self._counts.bytes_read - self._bytes_at_line
        if self._has_complained:
            return []
        if n_bytes and quiet_s >= NO_FRAME_S and not self._is_up:
            reason = f"{n_bytes_text(n_bytes)} and no line of numbers: wrong baud rate or format?"
        elif quiet_s >= max(SILENCE_S, 3 * self._usual_interval_s):
            reason = f"no line of numbers for {quiet_s:.0f} s: is the board alive?"
        else:
            return []
        self._is_up, self._has_complained = False, True
        _log.warning("%s: %s", self._port, reason)
        return [LinkDown(now_s, reason)]

    @property
    def _usual_interval_s(self) -> float:
        return self._interval_s if self._rate_hz is None else 1 / self._rate_hz


def _is_tail(offered: Schema, expected: Schema) -> bool:
    """Tell whether the offered names can be the expected ones with the beginning cut off."""
    return ",".join(expected.names).endswith(",".join(offered.names))


def new_session(
    settings: SessionSettings,
    counts: LinkStatistics,
    _ticks: TickClock,
) -> CsvSession:
    """Make the session of one port."""
    return CsvSession(settings, counts)
