"""edge-gru run: predict live from a serial port."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_gru.bundle import SUFFIX
from edge_gru.cli.messages import print_json
from edge_gru.service import (
    BuildUnit,
    HealthFile,
    Notifier,
    RunConfig,
    Service,
    StatusSink,
    StoredModels,
    Summary,
    make_config,
    open_sinks,
    read_settings,
    stop_on_signals,
)
from edge_gru.store import Store
from firmware_bridge.formats import FORMATS

_ARCHIVE = b"PK"


_OUTPUT = "File; - is stdout (default); board: back to the board."

_EXAMPLES = """\b
Examples:
  edge-gru run pump.egb --port /dev/ttyACM0
  edge-gru run pump.egb --port /dev/ttyACM0 -o pump.jsonl -o board
  edge-gru run pump.egb --port /dev/ttyUSB0 --format csv --rate 100 -o pump.jsonl
  edge-gru run /etc/edge-gru/edge-gru.toml
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", metavar="BUNDLE|STORE|CONFIG.toml", type=click.Path(path_type=Path))
@click.option("--port", help="The board's port, such as /dev/ttyACM0.")
@click.option("--format", help=f"What the board speaks: {', '.join(FORMATS)} [framed].")
@click.option("--baud", type=int, help="Bits per second [115200].")
@click.option("--stop-bits", type=int, help="1 (default) or 2.")
@click.option("--rate", "rate_hz", type=float, metavar="HZ", help="Samples per second.")
@click.option("--wait-for-port/--no-wait-for-port", default=None, help="Wait for a missing port.")
@click.option("--engine", help="auto (default: the fastest that is right here), or its name.")
@click.option("--precision", help="int8, fp32 ...; default: the engine's choice.")
@click.option("--max-missing", type=int, help="Lost samples over which the state is kept.")
@click.option("--max-gap", "max_gap_s", type=float, metavar="S", help="Longest gap to keep it.")
@click.option("--bad-values", help="reject (default), hold the last, or clip to the model's range.")
@click.option("--stuck", "stuck_s", type=float, metavar="S", help="Warn of one value that long.")
@click.option("--alerts/--no-alerts", default=None, help="Follow the model's alerts [on].")
@click.option("-o", "--output", "outputs", multiple=True, help=_OUTPUT)
@click.option("--device", help="Name of this device in events [its host name].")
@click.option("--stream", help="Name of this sensor in events [main].")
@click.option("--flush", "flush_s", type=float, metavar="S", help="Longest wait of an event [0.2].")
@click.option("--health", "health_s", type=float, metavar="S", help="Between health events [60].")
@click.option("--health-file", help="For `edge-gru status` [health.json in RUNTIME_DIRECTORY].")
@click.option("--check", is_flag=True, help="Print the settings that would be used, and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as JSON, last line of stderr."
)
def run(file: Path, *, check: bool, as_json: bool, **options: Any) -> None:
    """Predict live from a serial port, one prediction per sample.

    From a STORE of bundles the current one serves, and any that is installed while it runs.
    Predictions and events go to stdout, or to a file, as JSON Lines; messages and the summary go
    to stderr. SIGTERM or Ctrl-C ends the run after everything that was read is predicted. The exit
    code is 1 if events could not be written.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    config = _configure(file, given)
    if check:
        print_json(config)
        return
    summary, wants_restart = _run(config)
    while wants_restart:  # a bundle of the store reads other channels
        summary, wants_restart = _run(config)
    if summary.dropped_events:
        places = ", ".join(config.outputs)
        click.echo(
            f"edge-gru: {summary.dropped_events} events could not be written to {places}; "
            "check its space and its reader",
            err=True,
        )
    _print_summary(summary, as_json=as_json)
    if summary.dropped_events:
        click.get_current_context().exit(1)


def _run(config: RunConfig) -> tuple[Summary, bool]:
    notifier = Notifier.from_environment(os.environ)
    models = StoredModels(config, Store(Path(config.store))) if config.store else None
    health = _health_file(config)
    service = Service(
        config,
        [*open_sinks(config.outputs), StatusSink(notifier), *health],
        notifier=notifier,
        models=models,
        monitors=health,
        build_unit=BuildUnit.from_environment(os.environ),
    )
    with stop_on_signals(service.stop):
        summary = service.run()
    return summary, models is not None and models.wants_restart


def _health_file(config: RunConfig) -> list[HealthFile]:
    """Make the health file that is configured, or that of the service's own folder in /run."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    path = config.health_file or (folder and f"{folder}/health.json")
    if not path:
        return []
    return [HealthFile(Path(path), device=config.device, stream=config.stream)]


def _configure(file: Path, options: dict[str, Any]) -> RunConfig:
    if file.is_dir():
        return make_config({"store": str(file), **options}, origin="run")
    if _is_bundle(file):
        return make_config({"bundle": str(file), **options}, origin="run")
    return make_config({**read_settings(file), **options}, origin=str(file))


def _is_bundle(file: Path) -> bool:
    if file.suffix in (SUFFIX, ".toml") or not file.is_file():
        return file.suffix == SUFFIX
    with file.open("rb") as opened:
        return opened.read(len(_ARCHIVE)) == _ARCHIVE


_SUMMARY = """\
{s.model} on {s.engine} for {s.duration_s:.1f} s
samples  {s.n_samples} read, {s.n_predictions} predicted, {s.rejected_samples} not finite
lost     {s.lost_samples} on the way, {s.overrun_samples} here; {s.frames_bad} bad frames, \
{s.reconnects} reconnects
state    cleared {s.resets_gap} times by gaps, {s.resets_epoch} by restarts, \
{s.resets_time} by time; held over {s.held_gaps} gaps
latency  p50 {t.p50_us:.0f} us, p90 {t.p90_us:.0f} us, p99 {t.p99_us:.0f} us, \
largest {t.max_us:.0f} us
events   {s.n_alerts} alerts; {s.dropped_events} events not written"""


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    text = _SUMMARY.format(s=summary, t=summary.latency)
    if summary.saturated:
        counts = ", ".join(f"{name} {n}" for name, n in summary.saturated.items())
        text += f"\nbeyond the grid of the model: {counts}"
    click.echo(msgspec.json.encode(summary) if as_json else text, err=True)
