"""The command line: one verb, one file."""

from __future__ import annotations

import click

from edge_gru.cli.group import VerbGroup, VerbRow
from edge_gru.cli.messages import print_log
from edge_gru.version import __version__

VERBS = {
    "bundle": VerbRow("edge_gru.cli.bundle", "Install signed bundles on this device, and go back."),
    "compile": VerbRow("edge_gru.cli.compile", "Build TensorRT plans, and measure all engines."),
    "convert": VerbRow("edge_gru.cli.convert", "Make a table of a recording."),
    "doctor": VerbRow("edge_gru.cli.doctor", "Look at what this machine has and lacks."),
    "firmware": VerbRow("edge_gru.cli.firmware", "Write a board's program for a model."),
    "inspect": VerbRow("edge_gru.cli.inspect", "Show what is in a bundle."),
    "keys": VerbRow("edge_gru.cli.keys", "Make keys, sign bundles, check signatures."),
    "ports": VerbRow("edge_gru.cli.ports", "List the serial ports of this machine."),
    "record": VerbRow("edge_gru.cli.record", "Keep what a port sends in an MCAP file."),
    "replay": VerbRow("edge_gru.cli.replay", "Play a recording on a port of its own."),
    "run": VerbRow("edge_gru.cli.run", "Predict live from a serial port."),
    "ship": VerbRow("edge_gru.cli.ship", "Bring the program and a model onto a board."),
    "simulate": VerbRow("edge_gru.cli.simulate", "Play a sensor board on a port of its own."),
    "status": VerbRow("edge_gru.cli.status", "Show how the service on this device is."),
    "verify": VerbRow("edge_gru.cli.verify", "Replay a bundle's golden vectors on the engines."),
}


_EXAMPLE = """\b
Example, two terminals and no hardware:
  edge-gru simulate --pump --link /tmp/pump
  edge-gru run pump.egb --port /tmp/pump
"""


@click.group(cls=VerbGroup, rows=VERBS, epilog=_EXAMPLE)
@click.version_option(__version__, prog_name="edge-gru")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.option("-q", "--quiet", is_flag=True, help="Show warnings and errors only.")
def main(*, debug: bool, quiet: bool) -> None:
    """Run the GRU that you trained on an embedded board, fed by a serial port."""
    print_log(debug=debug, quiet=quiet)
