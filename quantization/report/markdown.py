"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantization.report.content import Report
from quantization.report.sections import Section, sections


def markdown_text(report: Report) -> str:
    """Write headings and tables."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {_cell(report['model'])}, recipe {report['recipe']}: gate {report['gate']['verdict']}"
    for section in sections(report):
        yield from _table(section)
    yield from ("", "## Recipe", "", "```toml", report["recipe_toml"].rstrip(), "```")


def _table(section: Section) -> Iterator[str]:
    yield from ("", f"## {section.title}", "")
    if section.note:
        yield from (section.note, "")
    yield _row(section.header)
    yield _row(["---"] * len(section.header))
    for row in section.rows:
        yield _row(row)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
