"""The report as files: JSON for programs, Markdown for a repository, a page for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge_gru.bundle import write_atomically
from edge_gru.errors import ConfigError
from quantization.report.content import Report
from quantization.report.html import html_page
from quantization.report.markdown import markdown_text


def write_report(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``report.html``; the folder is made.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    target = Path(folder)
    text = msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=1) + b"\n"
    files = {
        "report.json": text,
        "report.md": markdown_text(report).encode(),
        "report.html": html_page(report).encode(),
    }
    make_folder(target)
    with _explained(target):
        for name, data in files.items():
            write_atomically(target / name, data)
    return [target / name for name in files]


def make_folder(folder: Path) -> None:
    """Make the folder of a report, before the work that it is to be about.

    Raises:
        ConfigError: it cannot be made.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose another folder"
        ) from error
