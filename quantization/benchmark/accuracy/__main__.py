"""Print the tables of accuracy, each with its conditions; ends with 1 where a bar is missed.

Needs torch, and the recordings in EDGE_GRU_DATA. Networks are trained where the cache
(XDG_CACHE_HOME) has none: seeded, on one thread, minutes in all.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Sequence
from typing import Any

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from edge_gru.cli.messages import print_json, print_log
from quantization.benchmark.accuracy.measure import Row
from quantization.benchmark.accuracy.tables import FULL, QUICK, TABLES, Extent, TableSpec

_log = logging.getLogger(__name__)
_WIDTH = 200


def make_table(spec: TableSpec, extent: Extent) -> tuple[list[Row], list[str]]:
    """Run a table; return its rows, and the bars that are missed."""
    rows = []
    for row in spec.rows(extent):
        _log.info("%s, %s: %s", row.model, row.form, _decibels(row.sqnr_db))
        rows.append(row)
    return rows, list(spec.missed(rows))


def render(spec: TableSpec, rows: Sequence[Row]) -> Table:
    """Lay a table out for a terminal."""
    table = Table(title=spec.title, caption=spec.conditions, caption_justify="left")
    for heading in (
        "network",
        "form",
        "engine",
        "SQNR",
        "least output",
        "metric",
        "fp32",
        "form's",
    ):
        table.add_column(heading)
    for heading in ("worse", "stuck", "gate", "bytes", "of fp32", "remark"):
        table.add_column(heading)
    for k, row in enumerate(rows):
        is_last = k + 1 == len(rows) or rows[k + 1].model != row.model
        table.add_row(*_cells(row), end_section=is_last)
    return table


def _cells(row: Row) -> list[str]:
    remark = row.remark
    if row.n_changed is not None:
        remark = f"{row.n_changed} decisions change" + (f"; {remark}" if remark else "")
    return [
        row.model,
        row.form,
        row.engine,
        _decibels(row.sqnr_db),
        _decibels(row.sqnr_db_least),
        row.metric,
        _number(row.metric_fp32, "{:.5g}"),
        _number(row.metric_value, "{:.5g}"),
        _number(row.metric_worsening, "{:+.3%}"),
        "" if row.n_stuck is None else f"{row.n_stuck} of {row.n_moving}",
        row.gate,
        _number(row.size_bytes, "{:,}"),
        _number(row.size_fp32_bytes, "{:,}"),
        remark,
    ]


def _decibels(value: float | None) -> str:
    return _number(value, "{:.1f} dB")


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def _where() -> dict[str, str]:
    return {
        "onnxruntime": onnxruntime.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main(arguments: Sequence[str]) -> int:
    """Print the tables that are asked for; return 1 if any misses a bar."""
    parser = argparse.ArgumentParser(
        prog="python -m quantization.benchmark.accuracy", description=__doc__
    )
    parser.add_argument("--table", choices=(*TABLES, "all"), default="all")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, streams of 20,000 steps: ranks, not accepts"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print_log(debug=False, quiet=False)
    extent = QUICK if options.quick else FULL
    names = list(TABLES) if options.table == "all" else [options.table]
    report: dict[str, Any] = {"versions": _where()}
    n_missed = 0
    console = Console(width=_WIDTH)
    for name in names:
        spec = TABLES[name]
        try:
            rows, missed = make_table(spec, extent)
        except FileNotFoundError as error:
            sys.exit(f"error: {error}")
        n_missed += len(missed)
        report[name] = {"conditions": spec.conditions, "rows": rows, "missed": missed}
        if not options.json:
            console.print(render(spec, rows))
            for sentence in missed:
                console.print(f"MISSED  {sentence}", markup=False)
    if options.json:
        print_json(report)
    return 1 if n_missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
