"""edge-gru ports: the serial ports of this machine."""

from __future__ import annotations

import click
import msgspec
from rich.table import Table

from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from firmware_bridge.port import list_ports

_EXAMPLES = """\b
Examples:
  edge-gru ports
  edge-gru ports --json
"""


@click.command(epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def ports(*, as_json: bool) -> None:
    """List the serial ports of this machine.

    The by-id and by-path names stay the same when a board is plugged in again; ttyUSB0 may not.
    """
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
