"""The report as one page: no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

import re
from html import escape

from quantization.report import svg
from quantization.report.content import Report
from quantization.report.sections import Section, sections

_STYLE = """
:root { --bg: #ffffff; --panel: #f6f7f9; --text: #1c2330; --soft: #5d6778; --line: #d9dee7;
  --c0: #1f6feb; --c1: #c2571a; --c2: #1a7f5a; --c3: #8250df;
  --pass: #1a7f37; --warn: #9a6700; --fail: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #10141b; --panel: #171d27; --text: #e4e9f2; --soft: #97a3b6; --line: #2b3443;
    --c0: #58a6ff; --c1: #f0883e; --c2: #4ac98f; --c3: #b392f0;
    --pass: #3fb950; --warn: #d29922; --fail: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 4px; }
p { margin: 0 0 10px; color: var(--soft); }
.badge { display: inline-block; padding: 1px 12px; border-radius: 12px; font-size: 16px;
  vertical-align: middle; color: var(--bg); }
.badge.pass { background: var(--pass); } .badge.warn { background: var(--warn); }
.badge.fail { background: var(--fail); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 20px 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; }
.card b { display: block; font-size: 21px; } .card span { color: var(--soft); font-size: 13px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; }
figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px; } figcaption { font-weight: 600; margin-bottom: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--soft); font-weight: 600; }
td.pass { color: var(--pass); font-weight: 600; } td.warn { color: var(--warn); font-weight: 600; }
td.fail { color: var(--fail); font-weight: 600; } td.info { color: var(--soft); }
td { overflow-wrap: anywhere; } td:first-child { min-width: 150px; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; overflow-x: auto; }
svg { width: 100%; height: auto; display: block; font-size: 12px; }
svg text { fill: var(--text); } svg .tick, svg .label { fill: var(--soft); }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke-width: 1.8; } svg .bar { fill: var(--c0); }
svg .bar.weight { fill: var(--c2); } svg .bar.gate { fill: var(--c1); }
svg .key.operand { fill: var(--c0); } svg .key.weight { fill: var(--c2); }
svg .key.gate { fill: var(--c1); }
svg .line.c0 { stroke: var(--c0); } svg .line.c1 { stroke: var(--c1); }
svg .line.c2 { stroke: var(--c2); } svg .line.c3 { stroke: var(--c3); }
svg .dot.c0, svg .key.c0 { fill: var(--c0); } svg .dot.c1, svg .key.c1 { fill: var(--c1); }
svg .dot.c2, svg .key.c2 { fill: var(--c2); } svg .dot.c3, svg .key.c3 { fill: var(--c3); }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
<h1>{title} <span class="badge {verdict}">{verdict}</span></h1>
<p>Recipe {recipe}, {precision} against fp32 on {n_steps} steps of joined sequences.</p>
<div class="cards">{cards}</div>
<div class="pictures">{pictures}</div>
{tables}
<h2>Recipe</h2><pre>{toml}</pre>
</main></body></html>
"""


def html_page(report: Report) -> str:
    """Write the page."""
    gate = report["gate"]
    return _PAGE.format(
        title=escape(report["model"]),
        style=_STYLE,
        verdict=escape(gate["verdict"]),
        recipe=escape(report["recipe"]),
        precision=escape(gate["precision"]),
        n_steps=f"{report['data']['judged']['n_steps']:,}",
        cards="".join(_card(*card) for card in _cards(report)),
        pictures="".join(_picture(*picture) for picture in _pictures(report)),
        tables="".join(_table(section) for section in sections(report)),
        toml=escape(report["recipe_toml"].rstrip()),
    )


def _cards(report: Report) -> list[tuple[str, str]]:
    """Choose what one looks for first: the checks with a figure, and the size."""
    shown = [
        (re.split(r"[;,(]", check["found"])[0], check["name"])
        for check in report["gate"]["checks"]
        if not check["name"].startswith("control")
    ]
    sizes = report["sizes"]["graphs_bytes"]
    precision = report["gate"]["precision"]
    size = f"{sizes[precision] / 1e3:.1f} kB"
    return [*shown, (size, f"step graph; fp32 {sizes['fp32'] / 1e3:.1f} kB")]


def _card(found: str, name: str) -> str:
    return f'<div class="card"><b>{escape(found)}</b><span>{escape(name)}</span></div>'


def _pictures(report: Report) -> list[tuple[str, str]]:
    over_time = {
        name: found["over_time_std"] for name, found in report["deviation_from_fp32"].items()
    }
    sensitivity = [(s["tensor"], s["sqnr_db"], s["kind"]) for s in report["sensitivity"]]
    pictures = [
        (
            "Error over time",
            svg.line_chart(over_time, "hundredths of the stream", "RMS error, std of the output"),
        ),
        ("Each tensor alone on 8 bits", svg.bar_chart(sensitivity)),
        (
            "Memory of the units",
            svg.dot_chart(
                report["gate"]["time_constants"]["steps"], "units, sorted", "time constant, steps"
            ),
        ),
    ]
    pictures += [
        (
            f"Row scales of {rows['tensor']}",
            svg.histogram(rows["edges"], rows["n"], "scale of a row"),
        )
        for rows in report["row_scales"]
    ]
    return [(caption, picture) for caption, picture in pictures if picture]


def _picture(caption: str, picture: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{picture}</figure>"


def _table(section: Section) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in section.header)
    body = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in section.rows)
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>{escape(section.title)}</h2>{note}<div class="wide">{table}</div>'


def _cell(text: str) -> str:
    kind = f' class="{text}"' if text in ("pass", "warn", "fail", "info") else ""
    return f"<td{kind}>{escape(text)}</td>"
