"""edge-gru bundle: the bundles on this device."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.engines.select import open_proven
from edge_gru.signing import read_trusted_keys
from edge_gru.store import Candidate, Ledger, Store, TrialPlan, board_names, read_signed
from edge_gru.store.owner import become_owner

KEYS = Path("/etc/edge-gru/keys")
STORE = Path("/var/lib/edge-gru/bundles")

_PATH = click.Path(path_type=Path)
_STORE = click.option(
    "--store", type=_PATH, default=STORE, show_default=True, help="Folder of the bundles."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
_REASON = click.option("--reason", default="by hand", help="Why, for who asks later [by hand].")

_EXAMPLES = """\b
Examples:
  edge-gru bundle install pump.egb
  edge-gru bundle install pump.egb --trial 3600
  edge-gru bundle list
  edge-gru bundle rollback
"""


@click.group(epilog=_EXAMPLES)
def bundle() -> None:
    """Install signed bundles on this device, and go back.

    A running service takes a new bundle between two samples. It is on trial until it has served
    well for a while; if it does not, the one before it comes back by itself.
    """
    os.umask(0o022)  # whoever logs in may look: `edge-gru status` of another user


@bundle.command()
@click.argument("file", type=_PATH)
@click.option(
    "--trial", "trial_s", type=click.FloatRange(0), default=600.0, show_default=True, metavar="S",
    help="Seconds of good service until it stays; 0: at once.",
)  # fmt: skip
@click.option(
    "--starts", "n_starts", type=click.IntRange(1), default=5, show_default=True,
    help="Starts that it has until then.",
)  # fmt: skip
@_STORE
@click.option(
    "--keys", type=_PATH, default=KEYS, show_default=True, help="Trusted public key, or folder."
)
@click.option("-x", "--signature", type=_PATH, help="Signature file [FILE.minisig].")
@click.option("--engine", default="auto", help="That proves it before it is taken [auto].")
@click.option("--force", is_flag=True, help="Also one that failed here, is older, or other.")
@_JSON
def install(
    file: Path,
    *,
    trial_s: float,
    n_starts: int,
    store: Path,
    keys: Path,
    signature: Path | None,
    engine: str,
    force: bool,
    as_json: bool,
) -> None:
    """Check a bundle, prove it here, and make it the one that serves.

    It must be signed by a trusted key, for this board, and be newer than any that was here. A
    bundle that already serves changes nothing.
    """
    signed = read_signed(
        file, keys=read_trusted_keys(keys), boards=board_names(), signature_file=signature
    )
    open_proven(engine, signed.bundle.source)[0].close()
    become_owner(store)  # what is imported from here on may be closed to that user
    candidate, is_new = Store(store).install(signed, TrialPlan(trial_s, n_starts), is_forced=force)
    if as_json:
        print_json({"is_new": is_new, **_facts(candidate)})
    elif is_new:
        click.echo(f"{candidate.name} serves from now on{_on_trial(candidate)}")
    else:
        click.echo(f"{candidate.name} serves already; nothing was changed")


@bundle.command("list")
@_STORE
@_JSON
def list_bundles(*, store: Path, as_json: bool) -> None:
    """Show which bundle serves, which one is kept to go back to, and which ones failed."""
    ledger = Store(store).read()
    if as_json:
        print_json({"store": str(store), **msgspec.to_builtins(ledger)})
        return
    table = Table("", "model", "version", "state", "signed", "by key", "folder")
    for folder, entry in ledger.entries.items():
        if folder not in ledger.kept and entry.status != "failed":
            continue
        signed = datetime.fromtimestamp(entry.signed_at_s, timezone.utc)
        table.add_row(
            *(_mark(ledger, folder), entry.name, str(entry.version), _state(ledger, folder)),
            *(f"{signed:%Y-%m-%d %H:%M}", entry.key, folder),
        )
    new_console(markup=False).print(table)


@bundle.command()
@_STORE
@_REASON
@_JSON
def rollback(*, store: Path, reason: str, as_json: bool) -> None:
    """Go back to the bundle before; the one that serves is not tried again without --force."""
    become_owner(store)
    _tell(Store(store).rollback(reason), "serves again", as_json=as_json)


@bundle.command()
@_STORE
@_JSON
def confirm(*, store: Path, as_json: bool) -> None:
    """End the trial of the bundle that serves: it stays."""
    become_owner(store)
    _tell(Store(store).confirm(), "stays", as_json=as_json)


def _tell(candidate: Candidate, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(candidate))
    else:
        click.echo(f"{candidate.name} {what}")


def _facts(candidate: Candidate) -> dict[str, Any]:
    return {
        "folder": candidate.folder,
        "path": str(candidate.path),
        "trial": msgspec.to_builtins(candidate.trial),
        **msgspec.to_builtins(candidate.entry),
    }


def _on_trial(candidate: Candidate) -> str:
    trial = candidate.trial
    if trial is None:
        return ""
    return f", on trial for {trial.duration_s:g} s of good service in {trial.n_starts} starts"


def _mark(ledger: Ledger, folder: str) -> str:
    return {ledger.current: "serves", ledger.previous: "before"}.get(folder, "")


def _state(ledger: Ledger, folder: str) -> str:
    entry, trial = ledger.entries[folder], ledger.trial
    if folder == ledger.current and trial is not None:
        return (
            f"trial: {trial.served_s:.0f} of {trial.duration_s:.0f} s, {trial.starts_left} of "
            f"{trial.n_starts} starts left"
        )
    return f"{entry.status}: {entry.reason}" if entry.reason else entry.status
