"""Progress of a build on stderr: a bar on a terminal, one line a stage elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


@contextmanager
def build_progress(title: str) -> Iterator[Callable[[str, float], None]]:
    """Show the stages of a build, which the yielded function is called with: name and share."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def update(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{title}: {stage}", total=1.0)
            bars.update(tasks[stage], completed=share)

        yield update


class _Lines:
    """Prints each stage once."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._seen: set[str] = set()

    def __call__(self, stage: str, share: float) -> None:
        if share >= 1.0 and stage not in self._seen:
            self._seen.add(stage)
            click.echo(f"{self._title}: {stage}", err=True)
