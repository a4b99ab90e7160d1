"""The tables that Markdown and the page share: a title, a note, a header, rows of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from quantization.report.content import Report
from quantization.report.table import db, facts, number


class Section(NamedTuple):
    """One table; ``key`` names it for whoever puts a picture beside."""

    key: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sections(report: Report) -> list[Section]:
    """Make every table that has rows, in order."""
    made = (make(report) for make in _SECTIONS)
    return [section for section in made if section.rows]


def _gate(report: Report) -> Section:
    rows = [
        (c["name"], c["verdict"], c["found"], c["needs"], c["reason"])
        for c in report["gate"]["checks"]
    ]
    note = "Outside its tolerance, the task metric decides alone."
    return Section("gate", "Gate", note, ("check", "verdict", "found", "needed", "why"), rows)


def _tried(report: Report) -> Section:
    rows = [
        (
            r["recipe"],
            f"{r['p50_us']:.3g} us on {r['engine']}",
            "" if r["verdict"] is None else db(r["sqnr_db"]),
            r["verdict"] or "not asked",
            r["reason"],
        )
        for r in report.get("tried", [])
    ]
    note = "The cheapest step that passes the gate without a warning is taken; medians, here."
    return Section("tried", "Recipes tried", note, ("recipe", "step", "SQNR", "gate", "why"), rows)


def _facts(report: Report) -> Section:
    return Section(
        "facts", "Measured", "Printed, never judged by.", ("what", "result"), facts(report)
    )


def _outputs(report: Report) -> Section:
    gate = report["gate"]
    found = report["deviation_from_fp32"].get(gate["precision"])
    names = report["outputs"]
    rows = []
    if found is not None:
        rows = [
            (name, db(value) if value is not None else "stands still, or no difference")
            for name, value in zip(names, found["sqnr_db_by_output"], strict=True)
        ]
    return Section("outputs", "Outputs", "Streamed SQNR of each.", ("output", "SQNR"), rows)


def _tensors(report: Report) -> Section:
    rows = [
        (
            t["name"],
            t["dtype"],
            " x ".join(map(str, t["shape"])),
            t["grid"],
            _scale(t["scale"]),
            "" if t["sqnr_db"] is None else db(t["sqnr_db"]),
            "" if t["saturated"] is None else f"{t['saturated']:.2g}",
        )
        for t in report["tensors"]
    ]
    header = ("tensor", "type", "shape", "grid", "step", "SQNR", "saturated")
    note = "Operands as the judged stream has them; weights as they are."
    return Section("tensors", "Tensors of the step", note, header, rows)


def _scale(scale: list[float] | None) -> str:
    if scale is None:
        return ""
    low, high = scale
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _sensitivity(report: Report) -> Section:
    rows = [(s["tensor"], s["kind"], s["grid"], db(s["sqnr_db"])) for s in report["sensitivity"]]
    note = "Each tensor on 8 bits alone, everything else float; the most costly first."
    return Section("sensitivity", "Sensitivity", note, ("tensor", "kind", "grid", "SQNR"), rows)


def _units(report: Report) -> Section:
    rows = [
        (u["name"], db(u["sqnr_db"]), f"{number(u['tau_steps'])} steps")
        for u in report["gate"]["worst_units"]
    ]
    note = "States along the judged stream against those of fp32."
    return Section("units", "Worst units", note, ("unit", "SQNR", "time constant"), rows)


def _sizes(report: Report) -> Section:
    sizes = report["sizes"]
    rows = [(f"step graph, {name}", f"{n} bytes") for name, n in sizes["graphs_bytes"].items()]
    if sizes["weights_integer_bytes"]:
        rows.append(("narrowed weights, float32", f"{sizes['weights_float_bytes']} bytes"))
        rows.append(("narrowed weights, integers", f"{sizes['weights_integer_bytes']} bytes"))
    return Section("sizes", "Sizes", "", ("what", "size"), rows)


def _channels(report: Report) -> Section:
    rows = [
        (
            c["name"],
            c["unit"] or "",
            f"{c['minimum']:.4g} to {c['maximum']:.4g}",
            f"{c['share_outside']:.2%}",
        )
        for c in report["channels"]
    ]
    header = ("channel", "unit", "calibrated range", "judged outside it")
    return Section("channels", "Inputs", "", header, rows)


def _data(report: Report) -> Section:
    rows = [
        (name, str(part["n_sequences"]), str(_n_steps(part)), _hash(part))
        for name, part in report["data"].items()
        if isinstance(part, dict)
    ]
    note = f"Parts are disjoint: {report['data'].get('split', 'all given data judge')}."
    return Section("data", "Data", note, ("part", "sequences", "steps", "SHA-256"), rows)


def _n_steps(part: dict[str, Any]) -> int:
    return int(part.get("n_data_steps", part["n_steps"]))


def _hash(part: dict[str, Any]) -> str:
    return str(part.get("data_sha256") or part.get("sha256", ""))


def _versions(report: Report) -> Section:
    return Section("versions", "Made by", "", ("what", "version"), list(report["versions"].items()))


_SECTIONS: tuple[Callable[[Report], Section], ...] = (
    _gate, _tried, _facts, _outputs, _sensitivity, _units, _tensors, _sizes, _channels, _data,
    _versions,
)  # fmt: skip
