"""The report on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from quantization.report.content import Report

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "bold red", "info": "dim"}
_N_SENSITIVE = 3
_HOLDS = (
    "; holds of the median input inserted: units remember longer than 254 steps, and no input "
    "of the data changes as slowly"
)


def db(value: float | None) -> str:
    """Write decibels; None is no difference at all."""
    return "no difference" if value is None else f"{value:.1f} dB"


def number(value: float | None, digits: str = ".3g") -> str:
    """Write a number; None is one that is not finite."""
    return "not finite" if value is None else format(value, digits)


def gate_table(report: Report) -> Table:
    """Show every check with its verdict."""
    gate = report["gate"]
    title = f"{report['model']}, recipe {report['recipe']}: gate {gate['verdict']}"
    table = Table("check", "verdict", "found", "needed", title=title)
    for check in gate["checks"]:
        verdict = Text(check["verdict"], style=_COLOURS[check["verdict"]])
        table.add_row(Text(check["name"]), verdict, Text(check["found"]), Text(check["needs"]))
    return table


def reasons(report: Report) -> list[str]:
    """Say in a sentence each why checks warn or fail."""
    return [
        f"{check['verdict']}: {check['name']}: {check['reason']}"
        for check in report["gate"]["checks"]
        if check["verdict"] in ("warn", "fail")
    ]


def report_table(report: Report) -> Table:
    """Show the gate, and below it what else was proven and measured."""
    table = gate_table(report)
    table.add_section()
    for name, found in facts(report):
        table.add_row(Text(name), "", Text(found), "")
    return table


def facts(report: Report) -> list[tuple[str, str]]:
    """List what is printed and never judged by."""
    rows = [*_of_import(report), *_of_stream(report), *_of_tensors(report)]
    return [(name, found) for name, found in rows if found]


def _of_import(report: Report) -> list[tuple[str, str]]:
    rows = []
    if proof := report.get("proof"):
        text = (
            f"largest difference {proof['largest_difference']:.1e} in {proof['n_steps']} steps "
            f"of {proof['n_sequences']} sequences"
        )
        rows.append(("step graph against the model", text))
    if rounding := report.get("rounding"):
        rows.append(("rounding", ", ".join(f"{cell} {name}" for cell, name in rounding.items())))
    for rung in report.get("tried", []):
        verdict = rung["verdict"] or "not asked"
        text = f"{rung['p50_us']:.3g} us a step on {rung['engine']}: {verdict}"
        rows.append((f"recipe {rung['recipe']}", text))
    if finetuning := report.get("finetuning"):
        rows.append(("finetuning", _finetuned(finetuning)))
    rows += [("TensorRT", finding) for finding in report.get("tensorrt_lint", [])]
    if warmup := report.get("warmup"):
        n = warmup["n_steps"]
        rows.append(("warm-up", f"{n} steps" if n is not None else "never within the data"))
    return rows


def _finetuned(finetuning: Report) -> str:
    before, after = (db(finetuning[f"sqnr_{when}_db"]) for when in ("before", "after"))
    return (
        f"{before} before, {after} after {finetuning['n_steps']} steps: "
        f"{'kept' if finetuning['is_kept'] else 'not kept'}"
    )


def _of_stream(report: Report) -> list[tuple[str, str]]:
    gate, stream = report["gate"], report["data"]["judged"]
    state = "cleared at each sequence" if stream["resets"] else "not reset"
    shape = (
        f"{stream['n_steps']} steps in {stream['n_streams']} streams, state {state}, from "
        f"{stream['n_sequences']} sequences ({stream['n_data_steps']} steps)"
        f"{_HOLDS if stream['has_holds'] else ''}"
    )
    rows = [("judged stream", shape)]
    for precision, found in report["deviation_from_fp32"].items():
        text = (
            f"{db(found['sqnr_db'])}, largest {number(found['largest_std'])} std, "
            f"last tenth over first {number(found['last_over_first'], '.2f')}"
        )
        rows.append((f"{precision} against fp32, streamed", text))
    rows.append(("one step from a float state", f"{number(gate['one_step_error_std'])} std"))
    return rows


def _of_tensors(report: Report) -> list[tuple[str, str]]:
    tau = report["gate"]["time_constants"]
    slowest = max(
        (
            (steps, f"{state}[{k}]")
            for state, v in tau["steps"].items()
            for k, steps in enumerate(v)
        ),
        default=(0.0, ""),
    )
    units = report["gate"]["worst_units"][:1]
    sensitive = report["sensitivity"][:_N_SENSITIVE]
    return [
        ("slowest unit", f"{slowest[1]}, time constant {slowest[0]:.3g} steps ({tau['measured']})"),
        ("worst unit", "".join(_unit(unit) for unit in units)),
        (
            "most costly on 8 bits, alone",
            ", ".join(f"{row['tensor']} {db(row['sqnr_db'])}" for row in sensitive),
        ),
        ("size of the step graph", _sizes(report["sizes"])),
    ]


def _unit(unit: dict[str, Any]) -> str:
    return f"{unit['name']}, {db(unit['sqnr_db'])}, time constant {unit['tau_steps']:.3g} steps"


def _sizes(sizes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {n / 1e3:.1f} kB" for name, n in sizes["graphs_bytes"].items())
