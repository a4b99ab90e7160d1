"""edge-gru quantize: make a bundle from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_gru.bundle import check_place
from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.errors import ConfigError, DataError, GateError
from firmware_bridge.formats.csv_text import parse_header
from firmware_bridge.sample import Schema
from quantization.cli.options import judging_options
from quantization.cli.progress import show_progress
from quantization.importers.source import name_of, open_model
from quantization.pipeline import quantize as make_bundle
from quantization.recipe import RECIPES
from quantization.recordings import Recordings, read_recordings, read_targets
from quantization.report import make_folder, reasons, report_of, report_table, write_report

_EXAMPLES = """\b
Examples:
  edge-gru quantize pump.onnx --calibration healthy.csv --rate 100 -o pump.egb
  edge-gru quantize har.onnx --calibration train.npz --report report \\
      --channels "ax [g],ay [g],az [g]" --labels walk,run,sit -o har.egb
  edge-gru quantize life.onnx --calibration runs.npz --targets life.npz --metric rmse -o life.egb
  edge-gru quantize pump.onnx --calibration healthy.csv --recipe auto -o pump.egb
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
@click.option(
    "--recipe",
    default="rec",
    help=f"One of {', '.join(RECIPES)}, a .toml file, or auto: the cheapest that passes [rec].",
)
@click.option(
    "--engine", default="auto", help="Whose step recipe auto measures [the fastest here]."
)
@click.option("--channels", help="Names in order, with units: 'vib_x [g],temperature [degC]'.")
@click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Samples per second.")
@click.option("--name", help="Of the model [the file's].")
@click.option("--outputs", help="Names of the outputs, separated by commas [y0,y1...].")
@click.option("--labels", help="Class names, if the outputs are scores of classes.")
@judging_options
@click.option("--accept-failure", is_flag=True, help="Pack even what does not pass the gate.")
@click.option("--report", "folder", type=click.Path(path_type=Path), help="Write a report here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def quantize(
    model: Path,
    *,
    weights: Path | None,
    files: tuple[Path, ...],
    output: Path,
    channels: str | None,
    rate_hz: float | None,
    target_files: tuple[Path, ...],
    folder: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make a bundle from a trained model: proven equal, quantized, judged, packed.

    MODEL is an ONNX file with recurrent operators, a program of torch.export (.pt2), or
    file.py:factory, a function that makes the torch module. Each recording is one sequence from a
    fresh start. A part of them judges: what does not pass the gate is refused, with the reasons
    and exit code 2.
    """
    check_place(output)
    if folder is not None:
        make_folder(folder)
    recordings = read_recordings(files)
    n, schema = len(recordings.sequences), _schema(recordings, channels, rate_hz)
    for name in ("outputs", "labels"):
        settings[name] = _split(settings[name])
    settings["name"] = settings["name"] or name_of(model)
    try:
        with show_progress() as progress:
            bundle = make_bundle(
                open_model(str(model), weights),
                recordings.sequences,
                schema=schema,
                targets=read_targets(target_files, n) if target_files else None,
                progress=progress,
                **settings,
            )
    except GateError as error:
        if folder is not None and error.report is not None:
            write_report(dict(error.report), folder)
        raise
    bundle.save(output)
    report = report_of(bundle)
    if folder is not None:
        write_report({**report, "bundle_hash": bundle.hash}, folder)
    if as_json:
        print_json({"bundle": str(output), "hash": bundle.hash, **report})
    else:
        console = new_console(markup=False)
        console.print(report_table(report))
        for reason in reasons(report):
            console.print(reason)
        console.print(f"wrote {output}, {bundle.n_bytes / 1e3:.0f} kB")


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
