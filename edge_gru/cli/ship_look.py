"""`edge-gru ship ... --check` and `--dry-run`: what must hold, and what would happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from edge_gru.cli.messages import print_json
from edge_gru.shipping import Gate


@dataclass(frozen=True)
class Look:
    """Whether somebody only wants to look: at the gates (``check``), or at all (``dry_run``)."""

    check: bool
    dry_run: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.as_json and not (self.check or self.dry_run):
            raise click.UsageError("expected --json together with --check or --dry-run")

    def refuse_check(self, option: str) -> None:
        """Refuse ``--check`` beside an option that undoes something: it has no gates."""
        if self.check:
            raise click.UsageError(f"expected --check or {option}, got both; try --dry-run")

    def ends_at(self, gates: Sequence[Gate]) -> bool:
        """Print the gates if that is all that is wanted; the exit code is 1 if one is closed."""
        if not self.check:
            return False
        is_open = all(gate.is_passed for gate in gates)
        if self.as_json:
            print_json({"passed": is_open, "gates": [asdict(gate) for gate in gates]})
        else:
            click.echo("\n".join(gate.line for gate in gates))
        if not is_open:
            click.get_current_context().exit(1)
        return True

    def ends_before(self, lines: Callable[[], Sequence[str]], **facts: Any) -> bool:
        """Print what would happen if that is all that is wanted: lines, or ``facts`` as JSON."""
        if not self.dry_run:
            return False
        if self.as_json:
            print_json(facts)
        else:
            click.echo("\n".join(lines()))
        return True
