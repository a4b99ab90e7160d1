"""Options that more than one verb takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from quantization.gate import TOLERANCE
from quantization.metrics import METRICS

_JUDGING = (
    click.option(
        "--targets",
        "target_files",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Truth of each recording, in the same order; class indices for accuracy.",
    ),
    click.option("--metric", help=f"Of the task: {', '.join(METRICS)}."),
    click.option(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        show_default=True,
        help="How much worse than fp32 the metric may be, relative.",
    ),
    click.option(
        "--reset-each",
        "resets",
        is_flag=True,
        help="The product clears its state where a recording begins: judge it so.",
    ),
)


def judging_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add what the gate judges by: targets, metric, tolerance, and where the state is cleared."""
    for option in reversed(_JUDGING):
        verb = option(verb)
    return verb
