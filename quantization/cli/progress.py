"""Progress of long work on stderr: a bar on a terminal, one line a stage elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from quantization.progress import Progress


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show the stages that the yielded function is called with."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_stage
        return
    columns = (
        TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Bars(*columns, console=console) as bars:
        tasks = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield update


def _print_stage(stage: str, done: int, total: int) -> None:
    if done == total:
        click.echo(f"{stage}: {done} of {total}", err=True)
