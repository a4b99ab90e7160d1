"""edge-gru check: whether an exported network is the trained one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from quantization.check import Verdict, channels_of, check_export
from quantization.importers.onnx import read_proto
from quantization.importers.source import import_model, open_model
from quantization.recordings import read_recordings

_EXAMPLES = """\b
Examples:
  edge-gru check pump.onnx --against net.py:make --weights net.pt
  edge-gru check pump.onnx --against pump.pt2 --data healthy.csv --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    metavar="MODULE",
    help="What was trained: file.py:factory, a .pt2 or another .onnx.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="state_dict of the module that file.py:factory makes.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Recording to run [seeded noise].")
@click.option("--steps", "n_steps", type=click.IntRange(2), default=60, help="To run [60].")
@click.option("--channels", "n_channels", type=click.IntRange(1), help="If the file does not say.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def check(
    context: click.Context,
    model: Path,
    *,
    against: str,
    weights: Path | None,
    data: Path | None,
    n_steps: int,
    n_channels: int | None,
    as_json: bool,
) -> None:
    """Tell whether an exported recurrent network is the trained one, and what is wrong if not.

    It knows a wrong reset convention, gates in another order, a lost state, a frozen time axis and
    swapped state pairs. The exit code is 1 where the two are not equal.
    """
    proto = read_proto(model)
    n_channels = n_channels or channels_of(proto, model)
    truth = import_model(open_model(against, weights), n_channels).original
    x = np.random.default_rng(0).standard_normal((n_steps, n_channels)).astype(np.float32)
    if data is not None:
        x = read_recordings([data]).sequences[0][:n_steps]
    verdict = check_export(proto, truth, x, model)
    if as_json:
        findings = [asdict(finding) for finding in verdict.findings]
        print_json(
            {
                "model": str(model),
                "against": against,
                "equal": verdict.is_equal,
                "findings": findings,
            }
        )
    else:
        new_console().print(_table(verdict, model, against))
    context.exit(0 if verdict.is_equal else 1)


def _table(verdict: Verdict, model: Path, against: str) -> Table:
    said = "is equal to" if verdict.is_equal else "is NOT"
    table = Table("looked at", "result", "detail", title=f"{model.name} {said} {against}")
    for finding in verdict.findings:
        table.add_row(finding.what, "ok" if finding.passed else "WRONG", finding.detail)
    return table
