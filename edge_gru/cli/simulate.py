"""edge-gru simulate: a sensor board in software, for trying things out without hardware."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.table import Table

from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.errors import ConfigError
from edge_gru.service import stop_on_signals
from firmware_bridge.simulator import (
    FAULTS,
    Fault,
    PumpScenario,
    PumpSource,
    ReplaySource,
    SimulatedBoard,
    Source,
)
from firmware_bridge.simulator.text_firmware import PRINTERS

_LOOK_S = 0.1
_LINGER_S = 0.5  # what the host has not read yet is lost when the board goes
_ONSET, _FAILURE = 0.4, 0.9  # of the duration

_DURATION = "The pump's way from healthy to failed [60]."

_FAULT = "What goes wrong, from the start or S seconds after the first sample; may be repeated."

_EXAMPLES = """\b
Examples:
  edge-gru simulate --pump --link /tmp/pump
  edge-gru simulate recording.csv --rate 50 --format csv --loop
  edge-gru simulate --pump --fault flips=1e-4 --fault unplug=2@10
  edge-gru simulate --faults
"""


def _print_faults(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:  # noqa: FBT001 - click's signature
    if not is_asked:
        return
    table = Table("fault", "value if none is given", "what it does")
    for name, kind in FAULTS.items():
        table.add_row(name, f"{kind.value:g}", kind.help)
    new_console(markup=False).print(table)
    context.exit()


@click.command(epilog=_EXAMPLES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--pump", is_flag=True, help="A pump whose bearing wears out, instead of a file.")
@click.option(
    "--rate", "rate_hz", type=float, default=100.0, metavar="HZ", help="Samples per second [100]."
)
@click.option("--duration", "duration_s", type=float, default=60.0, metavar="S", help=_DURATION)
@click.option("--seed", type=int, default=0, show_default=True, help="Which pump.")
@click.option("--loop", is_flag=True, help="Begin again at the end, for ever.")
@click.option(
    "--format", default="framed", show_default=True, help=f"framed, {', '.join(PRINTERS)}."
)
@click.option("--fault", "faults", multiple=True, metavar="NAME[=VALUE][@S]", help=_FAULT)
@click.option(
    "--faults",
    "faults_are_asked_for",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_faults,
    help="List the faults there are, and end.",
)
@click.option(
    "--link", type=click.Path(path_type=Path), help="A name for the port, such as udev's."
)
@click.option("--json", "as_json", is_flag=True, help="Print port, channels and rate as JSON.")
def simulate(
    *,
    file: Path | None,
    pump: bool,
    rate_hz: float,
    duration_s: float,
    seed: int,
    loop: bool,
    format: str,  # noqa: A002 - click passes the option's name
    faults: tuple[str, ...],
    link: Path | None,
    as_json: bool,
) -> None:
    """Play a sensor board at its true rate: FILE is a recording in CSV, one line a sample.

    The port's name is printed; sampling begins when somebody opens it. Ends with the last sample,
    or by signal.
    """
    if pump == (file is not None):
        raise ConfigError("expected either --pump or a CSV file, got both or neither")
    source = _pump(rate_hz, duration_s, seed) if file is None else _recording(file, rate_hz)
    if loop:
        source = ReplaySource(list(source), source.schema, loop=True)
    happening = [Fault.parse(text) for text in faults]
    board = SimulatedBoard(source, format=format, link_path=link, faults=happening)
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        is_stopped = True

    with stop_on_signals(stop), board:
        if as_json:
            names, rate_hz = source.schema.names, source.schema.rate_hz or 0.0
            print_json({"port": board.port, "channels": names, "rate_hz": rate_hz})
        else:
            click.echo(board.port)
        while not is_stopped and not board.wait(_LOOK_S):
            pass
        if not is_stopped:
            time.sleep(_LINGER_S)
    click.echo(f"sent {board.n_sent} samples, {board.n_dropped} found no reader", err=True)


def _pump(rate_hz: float, duration_s: float, seed: int) -> Source:
    try:
        scenario = PumpScenario(
            rate_hz=rate_hz,
            seed=seed,
            duration_s=duration_s,
            onset_s=_ONSET * duration_s,
            failure_s=_FAILURE * duration_s,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return PumpSource(scenario)


def _recording(file: Path, rate_hz: float) -> Source:
    try:
        return ReplaySource.from_csv(file, rate_hz)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}; check the path") from error
