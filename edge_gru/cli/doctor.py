"""edge-gru doctor: what this machine has and lacks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import msgspec
from rich.table import Table
from rich.text import Text

from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.doctor import Check, Machine, Status, examine

_COLOURS = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "red", Status.SKIP: "dim"}

_EXAMPLES = """\b
Examples:
  edge-gru doctor
  edge-gru doctor --json
"""


@click.command(epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--root", type=click.Path(path_type=Path, exists=True), default=Path("/"), hidden=True
)
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool, root: Path) -> None:
    """Look at this machine: system, TensorRT, clocks, ports, disk, and the engines that it can run.

    Reads files and changes nothing; needs no root. Exit code 1: something fails.
    """
    checks = examine(Machine(root))
    counts = Counter(check.status for check in checks)
    has_failed = counts[Status.FAIL] > 0
    if as_json:
        print_json({"passed": not has_failed, "checks": msgspec.to_builtins(checks)})
    else:
        console = new_console(markup=False)
        console.print(_table(checks))
        console.print(", ".join(f"{counts[s]} {s.value}" for s in Status if counts[s]))
    ctx.exit(1 if has_failed else 0)


def _table(checks: list[Check]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for check in checks:
        status = Text(check.status.value, style=_COLOURS[check.status])
        says = Text(check.says)
        if check.fix:
            says.append(f"\n-> {check.fix}")
        grid.add_row(status, check.name, says)
    return grid
