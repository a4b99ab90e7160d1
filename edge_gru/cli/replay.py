"""edge-gru replay: a recording on a port of its own."""

from __future__ import annotations

import time
from pathlib import Path

import click

from edge_gru.cli.messages import print_json
from edge_gru.service import stop_on_signals
from firmware_bridge.recording import Recording
from firmware_bridge.simulator import SimulatedBoard
from firmware_bridge.simulator.player import BytePlayer, RecordedSource

_FRAMED = "framed"
_LOOK_S = 0.1
_LINGER_S = 0.5  # what the host has not read yet is lost when the board goes

_EXAMPLES = """\b
Examples:
  edge-gru replay pump.mcap --link /tmp/pump
  edge-gru replay pump.mcap --speed 20
  edge-gru run pump.egb --port pump.mcap     # without a port: every prediction as it was
"""


_SPEED = "1 is its own pace, 10 ten times that; inf, for lines, as fast as they are read."


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--speed", type=float, default=1.0, show_default=True, help=_SPEED)
@click.option(
    "--link", type=click.Path(path_type=Path), help="A name for the port, such as udev's."
)
@click.option("--json", "as_json", is_flag=True, help="Print port and format as JSON.")
def replay(file: Path, *, speed: float, link: Path | None, as_json: bool) -> None:
    """Play FILE, an MCAP recording, on a port of its own, whose name is printed.

    A board that printed is played byte by byte. One that spoke frames is played as a board that
    sends the recorded samples, since it must answer its new host. Ends with the recording.
    """
    recorded = Recording(file).about.get("format", _FRAMED)
    if recorded == _FRAMED:
        _play_board(file, speed, link, as_json=as_json)
    else:
        player = BytePlayer(file, link_path=link, speed=speed)
        player.plug_in()
        _print_port(player.port, recorded, as_json=as_json)
        with stop_on_signals(player.stop):
            player.play()
        click.echo(f"sent {player.n_bytes} bytes", err=True)


def _print_port(port: str, recorded: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"port": port, "format": recorded})
    else:
        click.echo(port)


def _play_board(file: Path, speed: float, link: Path | None, *, as_json: bool) -> None:
    board = SimulatedBoard(RecordedSource(file, speed=speed), link_path=link)
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        is_stopped = True

    with stop_on_signals(stop), board:
        _print_port(board.port, _FRAMED, as_json=as_json)
        while not is_stopped and not board.wait(_LOOK_S):
            pass
        if not is_stopped:
            time.sleep(_LINGER_S)
    click.echo(f"sent {board.n_sent} samples, {board.n_dropped} found no reader", err=True)
