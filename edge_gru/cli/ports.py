"""edge-gru ports: the serial ports of this machine, and what they speak."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.table import Table

from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console, shortened
from edge_gru.errors import ConfigError
from firmware_bridge.errors import PortError
from firmware_bridge.port import list_ports
from firmware_bridge.port_settings import PortSettings
from firmware_bridge.probe import BAUDS, probe_port

_EXAMPLES = """\b
Examples:
  edge-gru ports
  edge-gru ports --probe
  edge-gru ports --probe /dev/ttyUSB0 --baud 9600 -o sensor.toml
"""


@click.command(epilog=_EXAMPLES)
@click.argument("names", metavar="[PORT]...", nargs=-1)
@click.option("--probe", is_flag=True, help="Find out what they speak; takes seconds for each.")
@click.option("--baud", "bauds", type=int, multiple=True, help="Try this rate only; repeatable.")
@click.option(
    "--listen", "listen_s", type=float, default=2.0, metavar="S", help="At each rate [2]."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write settings and channels as TOML."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def ports(
    *,
    names: tuple[str, ...],
    probe: bool,
    bauds: tuple[int, ...],
    listen_s: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """List the serial ports of this machine, or tell what the ports speak.

    The by-id and by-path names stay the same when a board is plugged in again; ttyUSB0 may not.
    With --probe every port, or the PORTs given, is listened to: its format, baud rate, channels and
    rate are printed, and written as a file that describes the port: `edge-gru record` takes it, and
    `edge-gru firmware` writes a program for the same channels from it. The exit code is 1 if
    nothing was found.
    """
    if not probe:
        if names or output is not None:
            raise ConfigError("expected --probe with the name of a port or an output file")
        _list(as_json=as_json)
        return
    found = _probe(names or tuple(p.by_id or p.device for p in list_ports()), bauds, listen_s)
    if as_json:
        print_json([msgspec.to_builtins(result) for result in found])
    else:
        _print(found)
    if output is not None:
        _write(found, output)
    if not found:
        click.get_current_context().exit(1)


def _probe(names: tuple[str, ...], bauds: tuple[int, ...], listen_s: float) -> list[PortSettings]:
    found = []
    for name in names:
        click.echo(f"edge-gru: listening to {name} ...", err=True)
        try:
            result = probe_port(name, bauds or BAUDS, listen_s=listen_s)
        except PortError as error:
            click.echo(f"edge-gru: {error}", err=True)
            continue
        if result is None:
            click.echo(f"edge-gru: {name}: nothing known here; is the board sending?", err=True)
        else:
            found.append(result)
    return found


def _print(found: list[PortSettings]) -> None:
    table = Table("port", "format", "baud", "samples/s", "channels")
    for result in found:
        rate = "-" if result.rate_hz is None else f"{result.rate_hz:.4g}"
        names = shortened([f"{c.name} [{c.unit}]" if c.unit else c.name for c in result.channels])
        table.add_row(result.port, result.format, str(result.baud), rate, names)
    if found:
        new_console(markup=False).print(table)


def _write(found: list[PortSettings], output: Path) -> None:
    if len(found) != 1:
        raise ConfigError(f"expected one port to describe in {output}, found {len(found)}; name it")
    if output.exists():
        raise ConfigError(f"{output} exists; choose another file")
    output.write_text(found[0].to_toml(), encoding="utf-8")
    click.echo(f"edge-gru: {output}: {len(found[0].channels)} channels", err=True)


def _list(*, as_json: bool) -> None:
    found = list_ports()
    if as_json:
        print_json([msgspec.to_builtins(port) for port in found])
        return
    if not found:
        click.echo("no serial port found; plug in a board, or start `edge-gru simulate --pump`")
        return
    table = Table("device", "description", "serial number", "by-id", "by-path")
    for port in found:
        names = (port.device, port.description, port.serial_number, port.by_id, port.by_path)
        table.add_row(*(name or "-" for name in names))
    new_console(markup=False).print(table)
