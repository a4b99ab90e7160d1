"""edge-gru status: one screen about the service on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_gru import status as device
from edge_gru.cli.messages import print_json

_PATH = click.Path(path_type=Path)

_EXAMPLES = """\b
Examples:
  edge-gru status
  ssh board edge-gru status
"""


@click.command(epilog=_EXAMPLES)
@click.option("--health", type=_PATH, default=device.HEALTH, show_default=True, help="Its file.")
@click.option("--store", type=_PATH, default=device.STORE, show_default=True, help="Of bundles.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def status(ctx: click.Context, *, health: Path, store: Path, as_json: bool) -> None:
    """Show how the service is: model, engine, latency, port, losses, trial, disk.

    Exit code 0: it predicts; 1: it runs and waits for its port or for samples; 3: it does not run,
    or hangs.
    """
    report = device.look(health, store)
    if as_json:
        print_json(_facts(report))
    else:
        click.echo("\n".join(device.lines(report)))
    ctx.exit(report.exit_code)


def _facts(report: device.Report) -> dict[str, Any]:
    return {
        "running": report.exit_code != device.DOWN,
        "predicting": report.exit_code == device.RUNNING,
        "problem": report.problem or None,
        "age_s": report.age_s,
        "health": report.health,
        "store": str(report.store),
        "bundles": report.ledger,
        "store_problem": report.store_problem or None,
        "n_free_bytes": report.n_free_bytes,
        "compile": report.compiling,
    }
