"""The group of verbs: each is imported when it is called, each error becomes one sentence."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import IO, Any

import click

from edge_gru.errors import EdgeGruError
from firmware_bridge.errors import BridgeError

ENTRY_POINTS = "edge_gru.commands"

# Missing package -> the extra that has it.
_EXTRAS = {"torch": "torch", "onnxscript": "torch", "packaging": "ship"}
_DEFAULT_EXTRA = "quantize"


@dataclass(frozen=True)
class VerbRow:
    """The module that holds a verb's command under the verb's name, and its line of help."""

    module: str
    help: str


_PLUGIN_HELP = {
    "check": "Tell whether an exported network is the trained one.",
    "demo": "See it all work on a simulated pump: quantize, verify, run.",
    "evaluate": "Judge a bundle on new data, as quantize did.",
    "quantize": "Make a bundle from a trained model.",
}


class Failure(click.ClickException):
    """A wrong input: its sentence goes to stderr, the exit code is 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence."""
        click.echo(f"edge-gru: error: {self.format_message()}", file=file, err=file is None)


class VerbGroup(click.Group):
    """Finds verbs in a table, and those of higher packages by entry point."""

    def __init__(self, *args: Any, rows: Mapping[str, VerbRow], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows = rows

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name all verbs."""
        return sorted({*self._rows, *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a verb; None: there is no such verb."""
        row = self._rows.get(cmd_name)
        if row is not None:
            return _import(cmd_name, row)
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else _load(plugin)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing one."""
        lines = []
        for name in self.list_commands(ctx):
            row = self._rows.get(name)
            lines.append((name, row.help if row else _PLUGIN_HELP.get(name, "An added verb.")))
        with formatter.section("Commands"):
            formatter.write_dl(lines)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; the errors of our packages become one sentence and exit code 2."""
        try:
            return super().invoke(ctx)
        except (EdgeGruError, BridgeError) as error:
            if ctx.params.get("debug"):
                raise
            raise Failure(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has what it wanted; click ends quietly
                raise
            _discard_output()
            raise Failure(f"{error}; check the path and the space there") from error


def _discard_output() -> None:
    """Let what is still buffered for stdout go nowhere, or Python fails on it again at its end."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _import(name: str, row: VerbRow) -> click.Command:
    try:
        command: click.Command = getattr(importlib.import_module(row.module), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        return _missing(name, error)
    return command


def _load(plugin: EntryPoint) -> click.Command:
    try:
        command: click.Command = plugin.load()
    except ModuleNotFoundError as error:
        return _missing(plugin.name, error)
    return command


def _missing(name: str, error: ModuleNotFoundError) -> click.Command:
    """Make a verb that says what to install; it takes any arguments."""
    root = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(root, _DEFAULT_EXTRA)
    sentence = f"{name} is not installed here ({error}); pip install 'edge-gru[{extra}]'"

    def fail() -> None:
        raise Failure(sentence)

    return click.Command(
        name,
        callback=fail,
        help=sentence,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
