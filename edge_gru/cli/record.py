"""edge-gru record: keep what a port sends."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_gru.cli.messages import print_json
from edge_gru.errors import ConfigError
from edge_gru.service import stop_on_signals
from firmware_bridge.errors import BridgeError
from firmware_bridge.formats import FORMATS
from firmware_bridge.link import Link
from firmware_bridge.port_settings import PortSettings
from firmware_bridge.recording import Recorder

_LOOK_S = 0.2
_RECORDING = ".mcap"

_EXAMPLES = """\b
Examples:
  edge-gru record --port /dev/ttyACM0 -o pump.mcap
  edge-gru record --port /dev/ttyUSB0 --format csv --baud 9600 --duration 60 -o pump.mcap
  edge-gru ports --probe /dev/ttyUSB0 -o sensor.toml; edge-gru record sensor.toml -o pump.mcap
"""


@click.command(epilog=_EXAMPLES)
@click.argument("settings", required=False, metavar="[PORT.toml]", type=click.Path(path_type=Path))
@click.option("--port", help="The board's port, such as /dev/ttyACM0.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File .mcap.")
@click.option("--format", help=f"{', '.join(FORMATS)} [framed].")
@click.option("--baud", type=int, help="Bits per second [115200].")
@click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Samples per second to ask for.")
@click.option("--wait-for-port", is_flag=True, help="Wait for a missing port.")
@click.option("--duration", "duration_s", type=float, metavar="S", help="End after so long.")
@click.option("--no-bytes", is_flag=True, help="Keep samples and events only.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def record(
    *,
    settings: Path | None,
    output: Path,
    wait_for_port: bool,
    duration_s: float | None,
    no_bytes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Keep raw bytes, samples and events of a port in an MCAP file until a signal.

    PORT.toml, as `edge-gru ports --probe -o` writes it, names port, format, baud rate and channels.
    Foxglove and PlotJuggler open it; `edge-gru replay` plays it, `edge-gru run --port FILE.mcap`
    predicts from it, `edge-gru convert` makes a table of it. A crash costs the last second.
    """
    if output.suffix != _RECORDING:
        raise ConfigError(f"expected an output file {_RECORDING}, got {output}")
    if duration_s is not None and not duration_s > 0:
        raise ConfigError(f"expected a positive duration, got {duration_s}")
    port = _port_settings(settings, {key: v for key, v in given.items() if v is not None})
    about = {"port": port.port, "format": port.format, "baud": str(port.baud)}
    recorder = Recorder(output, about, has_bytes=not no_bytes)
    link = Link(
        port.port,
        format=port.format,
        baud=port.baud,
        schema=port.schema,
        rate_hz=port.rate_hz,
        wait_for_port=wait_for_port,
        recorder=recorder,
    )
    end_s = float("inf") if duration_s is None else time.monotonic() + duration_s
    with ExitStack() as opened:
        opened.enter_context(recorder)
        try:
            opened.enter_context(link)
        except BridgeError:
            recorder.discard()  # else the next attempt would find its file
            raise
        opened.enter_context(stop_on_signals(link.stop))
        while not link.finished:
            link.receive(_LOOK_S)
            if time.monotonic() >= end_s:
                link.stop()
    summary = {
        "samples": recorder.n_samples,
        "bytes": recorder.n_bytes,
        "lost_samples": link.statistics.lost_samples,
        "dropped": recorder.n_dropped,
    }
    if as_json:
        print_json(summary)
    else:
        click.echo(
            f"{output}: {recorder.n_samples} samples, {recorder.n_bytes} bytes; "
            f"{link.statistics.lost_samples} lost on the way, {recorder.n_dropped} reads not kept",
            err=True,
        )


def _port_settings(file: Path | None, given: dict[str, Any]) -> PortSettings:
    """Return what the file says, overridden by options."""
    if file is not None:
        port = msgspec.structs.replace(PortSettings.read(file), **given)
        if not port.port:
            raise ConfigError(f"expected a port in {file}, got none; add --port")
        return port
    if "port" not in given:
        raise ConfigError("expected --port, or a file that `edge-gru ports --probe -o` wrote")
    return PortSettings(**given)
