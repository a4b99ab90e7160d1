"""edge-gru ship: bring the program and a model onto a board."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edge_gru.cli.ship_look import Look
from edge_gru.cli.ship_ssh import Delivery
from edge_gru.shipping import (
    Cargo,
    Connection,
    LinuxForTegra,
    Source,
    Stage,
    Target,
    Workshop,
    python_of_l4t,
    read_deploy_settings,
    refuse,
    write_context,
    write_deb,
)

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)

_EXAMPLES = """\b
Examples:
  edge-gru ship ssh jetson@192.168.55.1 --bundle pump.egb --pubkey fleet.pub
  sudo edge-gru ship l4t ~/Linux_for_Tegra --bundle pump.egb --pubkey fleet.pub
  edge-gru ship deb --python 3.10 --out dist
  edge-gru ship container --l4t r36 --out image
"""


@click.group(epilog=_EXAMPLES)
def ship() -> None:
    """Bring the program, and a model, onto a board that needs no network.

    Everything that the board's Python needs is gathered here and travels along. Nothing is changed
    before all gates have passed; --check shows them, --dry-run says what would happen.

    Exit code 0: done, or it would be; 1: --check found a gate that is closed; 2: refused, with one
    sentence that says what to do.
    """


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all targets share; the command gets a `Workshop` and a `Look`."""

    @click.option("--bundle", type=_FILE, help="Signed model; its .minisig lies beside it.")
    @click.option("--pubkey", "keys", type=_FILE, multiple=True, help="Key to trust; repeatable.")
    @click.option("--config", "settings", type=_FILE, help="Settings of the service.")
    @click.option("--deploy", type=_FILE, help="deploy.toml with these and more.")
    @click.option("--source", type=_PATH, help="Source tree [the one this runs from].")
    @click.option("--wheels", type=_PATH, help="Folder of wheels gathered before.")
    @click.option("--check", is_flag=True, help="Show the gates, and end.")
    @click.option("--dry-run", is_flag=True, help="Say what would happen, and end.")
    @click.option("--json", "as_json", is_flag=True, help="With either of them: as JSON.")
    @functools.wraps(command)
    def with_workshop(
        *args: Any,
        bundle: Path | None,
        keys: tuple[Path, ...],
        settings: Path | None,
        deploy: Path | None,
        source: Path | None,
        wheels: Path | None,
        check: bool,
        dry_run: bool,
        as_json: bool,
        **options: Any,
    ) -> None:
        look = Look(check, dry_run, as_json)
        cargo = Cargo() if deploy is None else read_deploy_settings(deploy)
        cargo = replace(
            cargo,
            bundle=bundle or cargo.bundle,
            keys=keys or cargo.keys,
            settings=settings or cargo.settings,
        )
        workshop = Workshop(Source(source), cargo, wheels)
        command(*args, workshop=workshop, look=look, **options)

    return with_workshop


@ship.command()
@click.option("--python", required=True, help="Of the board: 3.10 on JetPack 6, 3.12 on 7.")
@click.option("--arch", default="aarch64", show_default=True, help="Of the board, by uname -m.")
@click.option("--out", type=_PATH, default=Path("dist"), show_default=True, help="Folder.")
@_common
def deb(*, python: str, arch: str, out: Path, workshop: Workshop, look: Look) -> None:
    """Write a Debian package with everything in it; needs no root and none of Debian's tools."""
    target = Target(python, arch)
    gates = workshop.gates()
    if look.ends_at(gates):
        return
    name = f"edge-gru_VERSION_{target.debian_arch}.deb"
    if look.ends_before(
        lambda: [f"would write {out}/{name} for Python {python}"],
        writes=[f"{out}/{name}"],
        python=python,
        arch=target.debian_arch,
    ):
        return
    refuse(gates)
    with workshop.open(target) as stage:
        path = write_deb(stage, workshop.source, out)
    click.echo(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB; on the board: sudo dpkg -i {path.name}"
    )
    click.echo("undo there: sudo apt remove edge-gru (purge: with settings, models and data)")


@ship.command()
@click.option("--l4t", "release", help="Jetson Linux of the board, such as r36.")
@click.option("--python", help="Instead: Python of a board without TensorRT, such as 3.11.")
@click.option("--arch", default="aarch64", show_default=True, help="Of the board, by uname -m.")
@click.option("--base", help="Image to build on [one that fits].")
@click.option("--out", type=_PATH, default=Path("image"), show_default=True, help="Folder.")
@_common
def container(
    *,
    release: str | None,
    python: str | None,
    arch: str,
    base: str | None,
    out: Path,
    workshop: Workshop,
    look: Look,
) -> None:
    """Write a folder that `docker compose` builds and runs an image from."""
    if (release is None) == (python is None):
        raise click.UsageError("expected --l4t, or --python")
    target = Target(python or python_of_l4t(_major(release or "")), arch)
    gates = workshop.gates()
    if look.ends_at(gates):
        return
    if look.ends_before(
        lambda: [f"would write a Dockerfile and its files to {out}, for Python {target.python}"],
        writes=[str(out)],
        python=target.python,
        arch=target.debian_arch,
    ):
        return
    refuse(gates)
    with workshop.open(target) as stage:
        files = write_context(stage, workshop.source, out, base)
    click.echo("\n".join(map(str, files)))
    click.echo(f"then: docker compose --project-directory {out} up --build --detach")
    click.echo(f"undo: docker compose --project-directory {out} down --rmi all --volumes")


def _major(release: str) -> int:
    digits = release.removeprefix("r").partition(".")[0]
    if not digits.isdigit():
        raise click.UsageError(f"expected --l4t such as r36 or r38.2, got {release!r}")
    return int(digits)


@ship.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--board", help="Board configuration, such as jetson-orin-nano-devkit.")
@click.option("--with-debs", "debs", type=_PATH, help="Folder of packages for the first boot.")
@click.option("--remove", is_flag=True, help="Take an overlay away again.")
@_common
def l4t(
    folder: Path,
    *,
    board: str | None,
    debs: Path | None,
    remove: bool,
    workshop: Workshop,
    look: Look,
) -> None:
    """Put everything into the rootfs of NVIDIA's Linux_for_Tegra, before it is flashed.

    Runs nothing of the board. Packages that are sent along, such as TensorRT's, are installed by
    the board itself when it first starts, without a network. The order is: apply_binaries.sh,
    default user, this, flash; deploy/flash-l4t.sh does all of it.
    """
    cargo = workshop.cargo
    tegra = LinuxForTegra(folder, board, cargo.login, debs)
    if remove:
        look.refuse_check("--remove")
        paths = tegra.brought()
        would = [f"would take out {path}" for path in paths] or [f"nothing of ours is in {folder}"]
        if look.ends_before(lambda: would, removes=paths):
            return
        click.echo(f"{tegra.remove()} files taken out of {tegra.rootfs}")
        return
    gates = [*tegra.gates(), *workshop.gates()]
    if look.ends_at(gates):
        return
    refuse(gates)
    with workshop.open(tegra.target) as stage:
        refuse([tegra.space_gate(stage.tree.n_bytes)])
        writes = [str(tegra.rootfs / path) for path, _ in stage.tree]
        if look.ends_before(
            lambda: _overlay_lines(tegra, stage),
            writes=writes,
            changes=tegra.changes(),
            version=stage.version,
        ):
            return
        n_files = tegra.lay(stage, workshop.source)
    click.echo(
        f"{n_files} files are in {tegra.rootfs}; edge-gru {stage.version} starts with the board"
    )
    for path in tegra.changes():
        click.echo(f"changed: {path}")
    if cargo.power_mode is not None:
        click.echo(f"power mode, once, on the board: sudo nvpmodel -m {cargo.power_mode}")
    click.echo(f"undo: edge-gru ship l4t {folder} --remove")


def _overlay_lines(tegra: LinuxForTegra, stage: Stage) -> list[str]:
    packages = f"{stage.target.packages}/"
    own = [path for path, _ in stage.tree if not path.startswith(packages)]
    n_packages = sum(path.startswith(packages) for path, _ in stage.tree)
    return [
        *(f"would write {tegra.rootfs / path}" for path in own),
        f"and {n_packages} files in {tegra.rootfs / packages}",
        *(f"would change {path}" for path in tegra.changes()),
    ]


@ship.command()
@click.argument("host")
@click.option("-o", "options", multiple=True, metavar="OPTION", help="As of ssh; repeatable.")
@click.option("--ask-sudo", is_flag=True, help="Ask for the password of sudo on the board.")
@click.option("--rollback", is_flag=True, help="Install the package from before.")
@_common
def ssh(
    host: str,
    *,
    options: tuple[str, ...],
    ask_sudo: bool,
    rollback: bool,
    workshop: Workshop,
    look: Look,
) -> None:
    """Install or update a board over ssh; run it again and nothing changes.

    HOST is as for ssh, such as jetson@192.168.55.1. A copy that broke off goes on where it was.
    """
    if rollback:
        look.refuse_check("--rollback")
    password: str | None = None
    if ask_sudo:
        password = click.prompt(f"Password for sudo on {host}", hide_input=True, err=True)
    with Connection(host, options) as connection:
        delivery = Delivery(connection, workshop, password)
        if rollback:
            delivery.rollback(look)
        elif not look.ends_at(delivery.gates()):
            delivery.run(look)
