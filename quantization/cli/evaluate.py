"""edge-gru evaluate: a bundle on new data, through the gate again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_gru.bundle import load
from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.errors import DataError
from firmware_bridge.sample import Schema
from quantization.checks import N_JUDGED_STEPS
from quantization.cli.options import judging_options
from quantization.cli.progress import show_progress
from quantization.evaluation import evaluate_bundle
from quantization.recordings import Recordings, read_recordings, read_targets
from quantization.report import reasons, report_table, write_report

_EXAMPLES = """\b
Examples:
  edge-gru evaluate pump.egb --data may.csv --data june.csv
  edge-gru evaluate life.egb --data runs.npz --targets life.npz --metric rmse --report report
"""


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Recording as .csv, .npz or .npy; may be given many times.",
)
@judging_options
@click.option("--precision", help="int8, fp16 ...; default: the bundle's own.")
@click.option(
    "--steps",
    "n_steps",
    type=click.IntRange(min=1),
    default=N_JUDGED_STEPS,
    show_default=True,
    help="Length of the judged stream.",
)
@click.option("--report", "folder", type=click.Path(path_type=Path), help="Write a report here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    bundle: Path,
    *,
    files: tuple[Path, ...],
    target_files: tuple[Path, ...],
    folder: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Judge a bundle on new data: its quantized form against its own fp32.

    The gate and the report are those of quantize; all data given judge. Exit code 1: it fails.
    """
    loaded = load(bundle)
    recordings = read_recordings(files)
    _check_names(recordings, loaded.manifest.schema)
    sequences = recordings.sequences
    targets = read_targets(target_files, len(sequences)) if target_files else None
    with show_progress() as progress:
        report = evaluate_bundle(
            loaded,
            sequences,
            targets=targets,
            progress=progress,
            **settings,
        )
    if folder is not None:
        write_report(report, folder)
    if as_json:
        print_json({"bundle": str(bundle), **report})
    else:
        console = new_console(markup=False)
        console.print(report_table(report))
        for reason in reasons(report):
            console.print(reason)
    ctx.exit(1 if report["gate"]["verdict"] == "fail" else 0)


def _check_names(recordings: Recordings, schema: Schema) -> None:
    """Refuse a file that names other channels: columns in another order would go unnoticed."""
    if recordings.channels is None:
        return
    names = tuple(channel.name for channel in recordings.channels)
    if names != schema.names:
        raise DataError(
            f"expected the bundle's channels {', '.join(schema.names)}, got {', '.join(names)}"
        )
