"""Lines of numbers as most boards print them: no check, no numbering, time by arrival."""

from __future__ import annotations

from firmware_bridge.errors import SchemaError
from firmware_bridge.formats.csv_text import (
    parse_header,
    parse_numbers,
    parse_units,
    split_fields,
    with_units,
)
from firmware_bridge.formats.rows import LineParser, Mark, Row
from firmware_bridge.formats.session import (
    LinkStatistics,
    SessionSettings,
    TickClock,
    describe,
    have_same_channels,
)
from firmware_bridge.formats.unnumbered import UnnumberedSession
from firmware_bridge.sample import Channel, Schema

_N_WRONG_LINES = 5  # of one and the same other count, before the port is called the wrong one


class CsvParser(LineParser):
    """Lines of values; a line of names may stand before them, and one of units behind the names.

    The first line after opening may be cut, so it counts only as a header. The first full line
    fixes the number of columns, unless the expected schema does.
    """

    def __init__(
        self, settings: SessionSettings, counts: LinkStatistics, *, has_header: bool = True
    ) -> None:
        self._expected = settings.schema
        self._rate_hz = settings.wanted_rate_hz
        self._has_header = has_header
        super().__init__(counts)

    def begin(self) -> None:
        """Forget what was, as after the port was opened."""
        super().begin()
        self._header: tuple[Channel, ...] | None = None
        self._header_may_be_cut = False
        self._wrong_count = self._n_wrong = 0

    def take_line(self, line: str, *, is_first: bool) -> Row | None:
        """Return the values of a line, or that a header came again."""
        fields = split_fields(line)
        values = parse_numbers(fields)
        if values is None:
            return self._take_text(line, fields, is_first=is_first)
        if is_first:
            self._ignore(line)
        elif self._fits(len(values)):
            self._counts.frames_good += 1
            return values
        else:
            self._refuse(line)
        return None

    def _take_text(self, line: str, fields: list[str], *, is_first: bool) -> Mark | None:
        """Keep a line of names or units; names in mid-stream say that the board restarted."""
        units = parse_units(fields)
        if units is not None and self._header is not None and len(units) == len(self._header):
            if self._schema is None:
                self._header = with_units(self._header, units)
            return None
        header = parse_header(fields) if self._has_header else None
        if header is not None and self._schema is None:
            self._header, self._header_may_be_cut = header, is_first
        elif header is not None and self._is_ours(header):
            return Mark.RESTARTED
        else:
            self._refuse(line)
        return None

    def _is_ours(self, header: tuple[Channel, ...]) -> bool:
        """Tell whether a header is the one known, whose units may stand on a line of their own."""
        return self._header is not None and tuple(c.name for c in header) == tuple(
            c.name for c in self._header
        )

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


def _is_tail(offered: Schema, expected: Schema) -> bool:
    """Tell whether the offered names can be the expected ones with the beginning cut off."""
    return ",".join(expected.names).endswith(",".join(offered.names))


def new_session(
    settings: SessionSettings, counts: LinkStatistics, _ticks: TickClock
) -> UnnumberedSession:
    """Make the session of one port."""
    return UnnumberedSession(settings, counts, CsvParser(settings, counts), "line of numbers")
