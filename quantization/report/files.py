"""The report as files: JSON for programs, Markdown for a repository, a page for people."""

from __future__ import annotations

import os
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
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(target / name, data)
    except OSError as error:
        raise ConfigError(
            f"cannot write the report to {target}: {error.strerror or error}; choose another folder"
        ) from error
    return [target / name for name in files]
