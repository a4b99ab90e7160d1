"""edge-gru firmware: a board's program to begin from, made for one model."""

from __future__ import annotations

from pathlib import Path

import click

from edge_gru.bundle import load
from edge_gru.cli.messages import print_json
from edge_gru.errors import ConfigError
from firmware_bridge.firmware import EXAMPLES, project_files, schema_header
from firmware_bridge.protocol.board_schema import BoardSchema

_SCHEMA_FILE = ".toml"

_EXAMPLES = """\b
Examples:
  edge-gru firmware pump.egb pump_board
  edge-gru firmware pump.egb pump_board --example platformio
  edge-gru firmware board.toml build --example none

\b
board.toml, where raw numbers go over the wire and value = raw * scale + offset:
  dtype = "<i2"
  rate_hz = [1000.0]
  channels = [
    { name = "vibration", unit = "g", scale = 0.001 },
    { name = "current", unit = "A", scale = 0.01, offset = -20.0 },
  ]
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="BUNDLE|SCHEMA.toml", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--example", default="arduino", show_default=True, help=f"One of {', '.join(EXAMPLES)}."
)
@click.option("--overwrite", is_flag=True, help="Replace files that differ.")
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
def firmware(source: Path, folder: Path, *, example: str, overwrite: bool, as_json: bool) -> None:
    """Write a program for a sensor board whose channels are those of a model.

    DIR gets the C library of the wire, an example around it, and schema.h, made from the bundle (a
    sample is then float32 in physical units) or from a schema in TOML, such as
    `edge-gru ports --probe -o` writes.
    """
    files = project_files(example, _header(source), folder.resolve().name)
    _refuse_to_replace(folder, {} if overwrite else files)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if as_json:
        print_json({"folder": str(folder), "files": sorted(files)})
    else:
        click.echo("\n".join(str(folder / name) for name in sorted(files)))


def _header(source: Path) -> str:
    if source.suffix == _SCHEMA_FILE:
        try:
            text = source.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {source}: {error.strerror}; check the path") from error
        return schema_header(BoardSchema.from_toml(text), origin=source.name)
    manifest = load(source).manifest
    return schema_header(
        BoardSchema.of(manifest.schema, device="sensor"),
        outputs=manifest.outputs,
        alarms=[alert.name for alert in manifest.alerts],
        origin=source.name,
    )


def _refuse_to_replace(folder: Path, files: dict[str, bytes]) -> None:
    """Never overwrite what somebody has edited."""
    for name, content in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() != content:
            raise ConfigError(
                f"{path} exists and is another; give another folder, or --overwrite to replace it"
            )
