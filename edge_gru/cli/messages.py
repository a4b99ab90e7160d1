"""What people read on stderr: log lines and sentences; stdout belongs to the results."""

from __future__ import annotations

import logging
from typing import Any

import click
import msgspec


class _StderrHandler(logging.Handler):
    """Prints to whatever stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def print_log(*, debug: bool, quiet: bool) -> None:
    """Print what the packages log from here on."""
    root = logging.getLogger()
    handler = next((h for h in root.handlers if isinstance(h, _StderrHandler)), None)
    if handler is None:
        handler = _StderrHandler()
        root.addHandler(handler)
    handler.setFormatter(logging.Formatter("edge-gru: %(message)s"))
    root.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)


def print_json(report: Any) -> None:
    """Print a report on stdout for programs to read; what is not finite becomes null."""
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
