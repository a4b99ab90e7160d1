"""edge-gru convert: recordings to tables, and tables to each other."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from edge_gru.cli.messages import print_json
from firmware_bridge.recording import read_samples, write_samples

_EXAMPLES = """\b
Examples:
  edge-gru convert pump.mcap pump.csv
  edge-gru convert pump.mcap pump.npz
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def convert(source: Path, target: Path, *, as_json: bool) -> None:
    """Write the samples of SOURCE (.mcap, .csv, .npz) to TARGET (.csv, .npz).

    The columns are the instant, the number, the stream (a restart begins another) and the channels.
    """
    table = read_samples(source)
    write_samples(table, target)
    if as_json:
        n_streams = len(np.unique(table.stream))
        names = table.schema.names
        about = {"samples": len(table.seq), "channels": names, "rate_hz": table.schema.rate_hz}
        print_json({"file": str(target), **about, "streams": n_streams})
    else:
        click.echo(
            f"{target}: {len(table.seq)} samples of {table.schema.n_channels} channels", err=True
        )
