"""Pictures as inline SVG: text and shapes whose colours the page's style sheet sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 28, 30, 44
_BAR, _LABELS = 22, 250
_DB_MAX = 120.0
_N_TICKS = 5


def line_chart(series: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> str:
    """Draw curves over equal x steps on a logarithmic y axis; zeros are left out."""
    positive = [v for values in series.values() for v in values if v > 0]
    if not positive:
        return ""
    low, high = _decades(min(positive), max(positive))
    shapes = _log_grid(low, high) + _axis_labels(x_label, y_label)
    for k, (name, values) in enumerate(series.items()):
        points = " ".join(
            f"{_x(i, len(values)):.1f},{_y(v, low, high):.1f}"
            for i, v in enumerate(values)
            if v > 0
        )
        shapes += f'<polyline class="line c{k}" points="{points}"/>'
        shapes += _text(_LEFT + 12 + 130 * k, _TOP - 12, name, f"key c{k}")
    return _svg(shapes, HEIGHT, f"{y_label} over {x_label}")


def dot_chart(series: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> str:
    """Draw sorted values as dots on a logarithmic y axis."""
    positive = [v for values in series.values() for v in values if v > 0]
    if not positive:
        return ""
    low, high = _decades(min(positive), max(positive))
    shapes = _log_grid(low, high) + _axis_labels(x_label, y_label)
    for k, (name, values) in enumerate(series.items()):
        for i, v in enumerate(sorted(values)):
            x, y = _x(i, len(values)), _y(v, low, high)
            shapes += f'<circle class="dot c{k}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        shapes += _text(_LEFT + 12 + 130 * k, _TOP - 12, name, f"key c{k}")
    return _svg(shapes, HEIGHT, f"{y_label}, {x_label}")


def histogram(edges: Sequence[float], counts: Sequence[int], x_label: str) -> str:
    """Draw counts between edges that lie on a logarithmic axis."""
    most = max(counts, default=0)
    if not most:
        return ""
    shapes, width = _axis_labels(x_label, "rows"), (WIDTH - _LEFT - _RIGHT) / len(counts)
    floor = HEIGHT - _BOTTOM
    for k, n in enumerate(counts):
        height = (floor - _TOP) * n / most
        shapes += (
            f'<rect class="bar" x="{_LEFT + k * width + 1:.1f}" y="{floor - height:.1f}" '
            f'width="{width - 2:.1f}" height="{height:.1f}"><title>{n}</title></rect>'
        )
    for k in range(0, len(edges), max(1, len(counts) // _N_TICKS)):
        shapes += _text(_LEFT + k * width, floor + 16, f"{edges[k]:.2g}", "tick middle")
    for n in sorted({0, most}):
        shapes += _text(_LEFT - 8, floor - (floor - _TOP) * n / most + 4, str(n), "tick end")
    return _svg(shapes, HEIGHT, f"histogram of {x_label}")


def bar_chart(rows: Sequence[tuple[str, float | None, str]]) -> str:
    """Draw horizontal bars of decibels, ``(label, value, class)``; None is no difference."""
    if not rows:
        return ""
    shapes, room = "", WIDTH - _LABELS - 90
    for k, kind in enumerate(dict.fromkeys(kind for _, _, kind in rows)):
        shapes += _text(_LABELS + 90 * k, 14, kind, f"key {kind}")
    for k, (label, value, kind) in enumerate(rows):
        y = 24 + k * _BAR
        shown = _DB_MAX if value is None else min(max(value, 0.0), _DB_MAX)
        width = max(1.0, room * shown / _DB_MAX)
        name = label if len(label) <= 40 else f"{label[:38]}.."
        shapes += _text(_LABELS - 8, y + 13, name, "tick end")
        shapes += (
            f'<rect class="bar {escape(kind)}" x="{_LABELS}" y="{y}" width="{width:.1f}" '
            f'height="{_BAR - 6}" rx="2"/>'
        )
        text = "no difference" if value is None else f"{value:.1f} dB"
        shapes += _text(_LABELS + width + 6, y + 13, text, "tick")
    return _svg(shapes, 32 + len(rows) * _BAR, "bars of decibels")


def _decades(low: float, high: float) -> tuple[float, float]:
    """Widen a range to whole powers of ten."""
    floor, ceiling = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**floor, 10.0 ** max(ceiling, floor + 1)


def _x(k: int, n: int) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (k + 0.5) / n


def _y(value: float, low: float, high: float) -> float:
    share = math.log(value / low) / math.log(high / low)
    return HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP)


def _log_grid(low: float, high: float) -> str:
    shapes, first, last = "", round(math.log10(low)), round(math.log10(high))
    for power in range(first, last + 1, max(1, (last - first) // _N_TICKS)):
        y = _y(10.0**power, low, high)
        shapes += (
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        shapes += _text(_LEFT - 8, y + 4, f"{10.0**power:g}", "tick end")
    return shapes


def _axis_labels(x_label: str, y_label: str) -> str:
    floor = HEIGHT - _BOTTOM
    axis = f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    middle = (_TOP + floor) / 2
    return (
        axis
        + _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x_label, "label middle")
        + f'<text class="label middle" transform="translate(12 {middle:.0f}) rotate(-90)">'
        + f"{escape(y_label)}</text>"
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(shapes: str, height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{shapes}</svg>"
    )
