"""Tables that more than one verb prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_gru.engines.measure import Measurement
from edge_gru.errors import ConfigError

_N_SHOWN = 8
_PIPE_WIDTH = 160


def new_console(*, markup: bool = True) -> Console:
    """Make a console for stdout; a pipe gets lines that are not cut to the width of a terminal.

    Without ``markup`` square brackets are just that: for text that others wrote.
    """
    if sys.stdout is None:
        raise ConfigError("expected an open stdout, got a closed one; redirect it")
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, markup=markup, width=width)


def shortened(names: Sequence[str]) -> str:
    """Join names, leaving out the middle of a long list."""
    if len(names) <= _N_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _N_SHOWN - 2])} ... {names[-1]} ({len(names)})"


def engine_table(rows: Sequence[Measurement]) -> Table:
    """Show what every engine can do here: microseconds a step, or why it cannot."""
    table = Table("engine", "precision", "p50", "p99", "golden vectors", title="Engines")
    for row in rows:
        if row.usable:
            times = (_time(row.p50_us), _time(row.p99_us))
            table.add_row(row.engine, row.precision, *times, "pass")
        else:
            table.add_row(row.engine, row.precision or "-", "-", "-", Text(row.reason or "fail"))
    return table


def _time(us: float | None) -> str:
    return "-" if us is None else f"{us:.0f} us" if us >= 100 else f"{us:.3g} us"
