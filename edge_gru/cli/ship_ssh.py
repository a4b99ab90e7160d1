"""What `edge-gru ship ssh` does, step by step."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from edge_gru.cli.ship_look import Look
from edge_gru.errors import ShippingError
from edge_gru.shipping import Board, Connection, Facts, Gate, Workshop, refuse
from edge_gru.shipping.board import KEPT, ROLLBACK, commands

_DOWN = 3  # exit code of `edge-gru status`: the service does not run


@dataclass
class Delivery:
    """One board, one package; see `Board` for ``password`` and ``kept``."""

    connection: Connection
    workshop: Workshop
    password: str | None = None
    kept: str = KEPT

    def __post_init__(self) -> None:
        self._board = Board(self.connection, self.password, kept=self.kept)
        self._facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """What the board is; it is asked once."""
        if self._facts is None:
            self._facts = self._board.look()
        return self._facts

    def gates(self) -> list[Gate]:
        """Look at the board, and at what travels along."""
        return [*self._board.gates(self.facts), *self.workshop.gates()]

    def run(self, look: Look) -> None:
        """Install what is not there yet, and say how the service is.

        Raises:
            ShippingError: a gate is closed, the connection broke, or the board refused.
        """
        refuse(self.gates())
        facts = self.facts
        if not look.as_json:
            click.echo(
                f"{self.connection.host}: {facts.jetson or facts.arch}, Python {facts.python}"
            )
            click.echo(f"TensorRT {facts.tensorrt or 'is not there: engines of the CPU serve'}")
        with self.workshop.package(facts.target) as (stage, package):
            n_packed = package.stat().st_size
            is_new = facts.version != stage.version
            scripts = commands() if is_new else commands()[1:]
            if look.ends_before(
                lambda: _plan(package.name, n_packed, scripts, is_new=is_new),
                host=self.connection.host,
                installed=facts.version,
                version=stage.version,
                sends=package.name if is_new else None,
                n_bytes=n_packed if is_new else 0,
                runs_as_root=scripts,
            ):
                return
            if is_new:
                refuse([self._board.space_gate(facts, n_packed, stage.tree.n_bytes)])
                click.echo(f"sending {package.name}, {n_packed / 1e6:.1f} MB")
                self._board.install(package)
                click.echo(f"installed {stage.version}; before: {facts.version or 'nothing'}")
            else:
                click.echo(f"{stage.version} is installed already")
        told = self._board.unload(has_settings=self.workshop.cargo.settings is not None)
        click.echo(told, nl=False)
        self._finish(is_update=is_new and bool(facts.version))
        self._settle_power_mode()

    def _settle_power_mode(self) -> None:
        """Offer the power mode that is wanted, once: it is the owner's, and may want a restart."""
        wanted, now, host = (
            self.workshop.cargo.power_mode,
            self.facts.power_mode,
            self.connection.host,
        )
        if wanted is None:
            return
        if now is None:
            click.echo(f"power mode: {host} tells none, so {wanted} was not set")
        elif now == wanted:
            click.echo(f"power mode: {wanted}, as wanted")
        elif not sys.stdin.isatty() or not click.confirm(
            f"{host} is in power mode {now}; set {wanted}, which stays?", err=True
        ):
            click.echo(f"power mode: {now}; for {wanted}: ssh -t {host} sudo nvpmodel -m {wanted}")
        elif self._board.set_power_mode(wanted) == wanted:
            click.echo(f"power mode: {wanted}; back: ssh -t {host} sudo nvpmodel -m {now}")
        else:
            click.echo(
                f"power mode: still {now}, it may want a restart of the board: "
                f"ssh -t {host} sudo nvpmodel -m {wanted}"
            )

    def _finish(self, *, is_update: bool) -> None:
        code, screen = self._board.status()
        click.echo(screen.rstrip())
        if self.facts.has_systemd and code == _DOWN and is_update:
            before = self._board.rollback()
            raise ShippingError(
                f"the new version does not run on {self.connection.host}; {before} is there again; "
                "see: journalctl -u edge-gru"
            )
        host = self.connection.host
        if is_update:
            click.echo(f"undo: edge-gru ship ssh {host} --rollback")
        else:
            click.echo(f"undo: ssh -t {host} sudo apt remove edge-gru")

    def rollback(self, look: Look) -> None:
        """Install the package from before.

        Raises:
            ShippingError: there is none.
        """
        refuse(self._board.gates(self.facts))
        if look.ends_before(
            lambda: ["would run there as root:", ROLLBACK],
            host=self.connection.host,
            installed=self.facts.version,
            runs_as_root=[ROLLBACK],
        ):
            return
        click.echo(f"{self._board.rollback()} is installed again")
        click.echo(self._board.status()[1].rstrip())


def _plan(name: str, n_bytes: int, scripts: list[str], *, is_new: bool) -> list[str]:
    what = f"would send {name}, {n_bytes / 1e6:.1f} MB" if is_new else f"{name} is installed"
    return [f"{what}; would run there as root:", "\n\n".join(scripts)]
