"""edge-gru quantize: make a bundle from a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edge_gru.bundle import Bundle
from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.errors import ConfigError, DataError
from firmware_bridge.formats.csv_text import parse_header
from firmware_bridge.sample import Schema
from quantization.cli.progress import show_progress
from quantization.importers.source import name_of, open_model
from quantization.pipeline import quantize as make_bundle
from quantization.recipe import RECIPES
from quantization.recordings import Recordings, read_recordings

_EXAMPLES = """\b
Examples:
  edge-gru quantize pump.onnx --calibration healthy.csv --rate 100 -o pump.egb
  edge-gru quantize har.onnx --calibration train.npz \\
      --channels "ax [g],ay [g],az [g]" --labels walk,run,sit -o har.egb
  edge-gru quantize net.py:make --weights net.pt --calibration train.npz -o net.egb
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="state_dict of the module that MODEL.py:factory makes.",
)
@click.option(
    "--calibration",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Recording as .csv, .npz or .npy; may be given many times.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle.")
@click.option("--recipe", default="rec", help=f"One of {', '.join(RECIPES)} [rec].")
@click.option("--channels", help="Names in order, with units: 'vib_x [g],temperature [degC]'.")
@click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Samples per second.")
@click.option("--name", help="Of the model [the file's].")
@click.option("--outputs", help="Names of the outputs, separated by commas [y0,y1...].")
@click.option("--labels", help="Class names, if the outputs are scores of classes.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def quantize(
    model: Path,
    *,
    weights: Path | None,
    files: tuple[Path, ...],
    output: Path,
    channels: str | None,
    rate_hz: float | None,
    as_json: bool,
    **names: str | None,
) -> None:
    """Make a bundle from a trained model: proven equal, quantized, measured, packed.

    MODEL is an ONNX file with recurrent operators, a program of torch.export (.pt2), or
    file.py:factory, a function that makes the torch module. Each recording is one sequence from a
    fresh start.
    """
    recordings = read_recordings(files)
    schema = _schema(recordings, channels, rate_hz)
    with show_progress() as progress:
        bundle = make_bundle(
            open_model(str(model), weights),
            recordings.sequences,
            recipe=names["recipe"] or "rec",
            schema=schema,
            name=names["name"] or name_of(model),
            outputs=_split(names["outputs"]),
            labels=_split(names["labels"]),
            progress=progress,
        )
    bundle.save(output)
    report = {"bundle": str(output), "hash": bundle.hash, **report_of(bundle)}
    if as_json:
        print_json(report)
    else:
        new_console().print(report_table(bundle), f"wrote {output}, {bundle.n_bytes / 1e3:.0f} kB")


def report_of(bundle: Bundle) -> dict[str, Any]:
    """Read the report that was packed with a bundle."""
    report: dict[str, Any] = json.loads(bundle.parts["report.json"])
    return report


def report_table(bundle: Bundle) -> Table:
    """Show what was proven and measured."""
    report, manifest = report_of(bundle), bundle.manifest
    proof = report["proof"]
    table = Table("what", "result", title=f"{manifest.name}, recipe {manifest.recipe.name}")
    table.add_row(
        "step graph against the model",
        f"largest difference {proof['largest_difference']:.1e} in {proof['n_steps']} steps "
        f"of {proof['n_sequences']} sequences",
    )
    for precision, found in report["deviation_from_fp32"].items():
        table.add_row(
            f"{precision} against fp32, streamed",
            f"{found['sqnr_db']:.1f} dB, largest {found['largest_std']:.3f} std",
        )
    for finding in report["tensorrt_lint"]:
        table.add_row("TensorRT", finding)
    warmup = manifest.n_warmup
    table.add_row("warm-up", f"{warmup} steps" if warmup is not None else "never within the data")
    return table


def _schema(recordings: Recordings, channels: str | None, rate_hz: float | None) -> Schema | None:
    if channels is not None:
        named = parse_header(channels.split(","))
        if named is None:
            raise ConfigError(f"expected distinct channel names and units, got {channels!r}")
        return Schema(named, rate_hz)
    if recordings.channels is not None:
        return Schema(recordings.channels, rate_hz)
    if not recordings.sequences or recordings.sequences[0].ndim != 2:
        raise DataError("expected sequences of shape (n_steps, n_in) in the recordings")
    return Schema.unnamed(recordings.sequences[0].shape[1], rate_hz)


def _split(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",")) if names else ()
