"""The results as Markdown: a table a scenario, and one over all sizes for each kind of use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from quantization.benchmark.latency.ours import NATIVE_INT8
from quantization.benchmark.latency.rounds import Timing
from quantization.benchmark.latency.scenarios import Scenario


@dataclass(frozen=True)
class Row:
    """One form in one scenario; how many rows of a batch it ran at a time, 0 for all."""

    form: str
    timing: Timing
    sqnr_db: float
    n_rows: int


@dataclass(frozen=True)
class Result:
    """A scenario, its rows, the forms that could not be timed and why, and the load meanwhile."""

    scenario: Scenario
    rows: Sequence[Row]
    failures: Sequence[str]
    load: float

    @property
    def by_form(self) -> Mapping[str, Row]:
        """Rows by the name of the form."""
        return {row.form: row for row in self.rows}


@dataclass(frozen=True)
class Ratios:
    """How many times the time of native int8 a form takes: in quietest rounds, in the medians."""

    quiet: float
    median: float


def ratios(result: Result) -> dict[str, Ratios]:
    """Compare every form with native int8; empty where that was not timed."""
    ours = result.by_form.get(NATIVE_INT8)
    if ours is None:
        return {}
    return {
        row.form: Ratios(
            row.timing.quiet_us / ours.timing.quiet_us,
            row.timing.median_us / ours.timing.median_us,
        )
        for row in result.rows
    }


def table_of(result: Result) -> Table:
    """Lay one scenario out, the fastest first."""
    scenario = result.scenario
    table = Table(title=f"{scenario.title} (load {result.load:.1f})", box=box.MARKDOWN)
    table.add_column("form")
    for heading in ("quietest round, us", "median, us", "p50 / p99 of calls, us", "a second"):
        table.add_column(heading, justify="right")
    for heading in ("x native int8 (quiet)", "(median)", "SQNR, dB", "rows"):
        table.add_column(heading, justify="right")
    compared = ratios(result)
    for row in sorted(result.rows, key=lambda r: r.timing.quiet_us):
        timing, ratio = row.timing, compared.get(row.form)
        table.add_row(
            row.form,
            _three(timing.quiet_us),
            _three(timing.median_us),
            f"{_three(timing.p50_us)} / {_three(timing.p99_us)}",
            f"{scenario.n_steps / timing.quiet_us * 1e3:,.0f} k",
            _ratio(ratio.quiet if ratio else None),
            _ratio(ratio.median if ratio else None),
            f"{row.sqnr_db:.1f}",
            str(row.n_rows or ""),
        )
    return table


def _three(us: float) -> str:
    """Three figures."""
    return (
        f"{us:.3f}"
        if us < 1
        else f"{us:.2f}"
        if us < 10
        else f"{us:.1f}"
        if us < 100
        else f"{us:,.0f}"
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def summaries(results: Sequence[Result]) -> Iterator[Table]:
    """Lay every kind of use out over its sizes: the quietest round, and the ratio to native int8.

    Single steps and sequences in microseconds a step, batches in thousand steps a second.
    """
    kinds: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        kinds.setdefault((result.scenario.kind, result.scenario.n_steps), []).append(result)
    for (kind, n_steps), group in kinds.items():
        yield _summary(kind, n_steps, group)


def _summary(kind: str, n_steps: int, group: Sequence[Result]) -> Table:
    titles = {
        "step": "Single step from Python, us",
        "batch": f"{n_steps:,} streams, thousand steps a second",
        "sequence": f"A sequence of {n_steps:,} steps, us a step",
    }
    table = Table(title=titles[kind], box=box.MARKDOWN)
    table.add_column("form")
    for result in group:
        cell = result.scenario.cell.removesuffix("_TANH")
        table.add_column(f"{cell} {result.scenario.size_name}", justify="right")
    for form in dict.fromkeys(row.form for result in group for row in result.rows):
        table.add_row(form, *(_cell(result, form) for result in group))
    return table


def _cell(result: Result, form: str) -> str:
    row = result.by_form.get(form)
    if row is None:
        return "-"
    n_steps, quiet_us = result.scenario.n_steps, row.timing.quiet_us
    is_batch = result.scenario.kind == "batch"
    text = f"{n_steps / quiet_us * 1e3:,.0f}" if is_batch else _three(quiet_us / n_steps)
    ratio = ratios(result).get(form)
    return text if ratio is None else f"{text} ({ratio.quiet:.2f}x)"
