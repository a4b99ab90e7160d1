"""edge-gru doctor: what this machine has and lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
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
        for line in _lines(checks):
            console.print(line, soft_wrap=True)
        console.print(", ".join(f"{counts[s]} {s.value}" for s in Status if counts[s]))
    ctx.exit(1 if has_failed else 0)


def _lines(checks: list[Check]) -> Iterator[Text]:
    width = max(len(check.name) for check in checks)
    for check in checks:
        status = (check.status.value, _COLOURS[check.status])
        yield Text.assemble(status, f"  {check.name:<{width}}  {check.says}")
        if check.fix:
            yield Text(f"{'':<{width}}        -> {check.fix}")
