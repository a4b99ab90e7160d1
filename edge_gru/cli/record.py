"""edge-gru record: keep what a port sends."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import click

from edge_gru.cli.messages import print_json
from edge_gru.errors import ConfigError
from edge_gru.service import stop_on_signals
from firmware_bridge.formats import FORMATS
from firmware_bridge.link import Link
from firmware_bridge.recording import Recorder

_LOOK_S = 0.2

_EXAMPLES = """\b
Examples:
  edge-gru record --port /dev/ttyACM0 -o pump.mcap
  edge-gru record --port /dev/ttyUSB0 --format csv --baud 9600 --duration 60 -o pump.mcap
"""


@click.command(epilog=_EXAMPLES)
@click.option("--port", required=True, help="The board's port, such as /dev/ttyACM0.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File .mcap.")
@click.option("--format", default="framed", show_default=True, help=f"{', '.join(FORMATS)}.")
@click.option("--baud", type=int, default=115200, show_default=True, help="Bits per second.")
@click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Samples per second to ask for.")
@click.option("--wait-for-port", is_flag=True, help="Wait for a missing port.")
@click.option("--duration", "duration_s", type=float, metavar="S", help="End after so long.")
@click.option("--no-bytes", is_flag=True, help="Keep samples and events only.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def record(
    *,
    port: str,
    output: Path,
    format: str,  # noqa: A002 - click passes the option's name
    baud: int,
    rate_hz: float | None,
    wait_for_port: bool,
    duration_s: float | None,
    no_bytes: bool,
    as_json: bool,
) -> None:
    """Keep raw bytes, samples and events of a port in an MCAP file until a signal.

    Foxglove and PlotJuggler open it; `edge-gru replay` plays it, `edge-gru run --port FILE.mcap`
    predicts from it, `edge-gru convert` makes a table of it. A crash costs the last second.
    """
    if duration_s is not None and not duration_s > 0:
        raise ConfigError(f"expected a positive duration, got {duration_s}")
    about = {"port": port, "format": format, "baud": str(baud)}
    recorder = Recorder(output, about, has_bytes=not no_bytes)
    link = Link(
        port,
        format=format,
        baud=baud,
        rate_hz=rate_hz,
        wait_for_port=wait_for_port,
        recorder=recorder,
    )
    end_s = float("inf") if duration_s is None else time.monotonic() + duration_s
    with ExitStack() as opened:
        opened.enter_context(recorder)
        opened.enter_context(link)
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
