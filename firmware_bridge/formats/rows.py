"""What a format without numbers or checks has to provide, and lines of text as the usual case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Protocol, TypeAlias

from firmware_bridge.formats.session import LinkStatistics
from firmware_bridge.sample import Schema

MAX_LINE_BYTES = 4096


class Mark(Enum):
    """What may stand between rows."""

    RESTARTED = "the board printed its header again: it restarted"


Row: TypeAlias = "list[float] | Mark"


class RowParser(Protocol):
    """Finds rows of values in bytes. What is no row is counted, never raised."""

    @property
    def schema(self) -> Schema | None:
        """The channels of every row; None until the first one."""

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""

    def feed(self, chunk: bytes) -> list[Row]:
        """Return the rows that ``chunk`` completes, and marks between them.

        Raises:
            SchemaError: the channels are surely not the expected ones.
        """


class LineParser(ABC):
    """Cuts bytes into lines for a subclass, which says what each one is by `take_line`.

    The first line after opening may be cut, so it is never a row.
    """

    def __init__(self, counts: LinkStatistics) -> None:
        self._counts = counts
        self._schema: Schema | None = None
        self.begin()

    @property
    def schema(self) -> Schema | None:
        """The channels of every row; None until the first one."""
        return self._schema

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        self._rest = b""
        self._is_skipping = False
        self._is_first_line = True
        self._schema = None

    def feed(self, chunk: bytes) -> list[Row]:
        """Return the rows that ``chunk`` completes."""
        rows: list[Row] = []
        for line in self._lines(chunk):
            is_first, self._is_first_line = self._is_first_line, False
            if line and not line.isspace():
                row = self.take_line(line, is_first=is_first)
                if row is not None:
                    rows.append(row)
        return rows

    @abstractmethod
    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the row in a line that is not blank; None if it holds none."""

    def _refuse(self, line: str) -> None:
        """Count a line that ought to have been a row."""
        self._counts.bad_lines += 1
        self._counts.discarded_bytes += len(line)

    def _ignore(self, line: str) -> None:
        """Count a line that says nothing, through no fault of anybody's."""
        self._counts.discarded_bytes += len(line)

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
