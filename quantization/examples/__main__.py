"""Stream the test recordings of every example through a serial port, and compare.

One table: the fp32 engine against the torch module on whole recordings, INT8 against fp32, the task
metric of both, and what the gate says of the test recordings joined to 100,000 steps. Needs torch,
and the recordings in EDGE_GRU_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_gru.bundle import Bundle
from edge_gru.cli.messages import print_json
from edge_gru.engines.base import Engine
from edge_gru.engines.golden import sqnr_db
from edge_gru.predictor import GapPolicy, Predictor
from firmware_bridge.link import Link
from firmware_bridge.sample import Float32, SampleBlock, Schema
from firmware_bridge.simulator import ReplaySource, SimulatedBoard
from quantization.evaluation import evaluate_bundle
from quantization.examples import EXAMPLES
from quantization.examples.example import Example, Targets
from quantization.examples.network import run_whole
from quantization.metrics import Metric
from quantization.pipeline import quantize

RECORDED = ("cmapss_fd001", "basicmotions", "phone_motion")
RATE_HZ = 2000.0  # faster than life, so that hours of recording take a minute
_PRECISIONS = ("fp32", "int8")
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Row:
    """What streaming one example showed."""

    example: str
    n_recordings: int
    n_samples: int
    n_lost: int
    largest_difference: float
    allowed_difference: float
    int8_sqnr_db: float
    metric: str
    fp32: float
    int8: float
    gate: str
    n_stuck: int
    gate_sqnr_db: float

    @property
    def metric_change(self) -> float:
        """Relative change of the task metric by INT8."""
        return abs(self.int8 - self.fp32) / abs(self.fp32)


def make_bundle(example: Example) -> Bundle:
    """Quantize a trained example on recordings that it was trained on."""
    return quantize(
        example.load_trained(),
        example.sequences("train"),
        schema=example.schema(),
        name=example.name,
        outputs=example.outputs,
        labels=example.labels,
        resets=example.resets,
    )


def stream_recording(
    bundle: Bundle, engines: Sequence[Engine], recording: Float32
) -> tuple[list[Float32], int]:
    """Send a recording through a pty and predict every sample on each engine, from zero.

    Returns the outputs ``(n_steps, n_out)`` of each engine, and how many samples were lost.
    """
    schema = Schema(bundle.manifest.schema.channels, RATE_HZ)
    policy = GapPolicy.for_rate(RATE_HZ)
    predictors = [Predictor(e, gap_policy=policy, n_warmup=None) for e in engines]
    outputs: list[list[Float32]] = [[] for _ in engines]
    with (
        SimulatedBoard(ReplaySource(recording, schema)) as board,
        Link(board.port, schema=schema) as link,
    ):
        while len(outputs[0]) < len(recording):
            item = link.receive(_PATIENCE_S)
            if item is None:
                break
            if isinstance(item, SampleBlock):
                for predictor, rows in zip(predictors, outputs, strict=True):
                    rows.extend(p.values for p in map(predictor.push, item) if p is not None)
        n_lost = len(recording) - len(outputs[0]) + link.statistics.lost_samples
    return [np.stack(rows) for rows in outputs], n_lost


def compare(example: Example, split: str = "test") -> Row:
    """Stream the recordings of a split on fp32 and INT8, and compare with the torch module."""
    bundle = make_bundle(example)
    recordings = example.sequences(split)
    engines = [bundle.open("onnxruntime", precision=p) for p in _PRECISIONS]
    streamed: list[list[Float32]] = [[], []]
    n_lost = 0
    for recording in track(recordings, example.name, console=Console(stderr=True)):
        outputs, lost = stream_recording(bundle, engines, recording)
        n_lost += lost
        for kept, found in zip(streamed, outputs, strict=True):
            kept.append(found)
    whole = run_whole(example.load_trained(), recordings)
    fp32, int8 = (np.concatenate(parts) for parts in streamed)
    scores = [example.metric(parts, split)[example.task_metric] for parts in streamed]
    return Row(
        example=example.name,
        n_recordings=len(recordings),
        n_samples=len(fp32),
        n_lost=n_lost,
        largest_difference=float(np.abs(fp32 - np.concatenate(whole)).max()),
        allowed_difference=1e-5 * max(1.0, float(np.abs(np.concatenate(whole)).max())),
        int8_sqnr_db=sqnr_db(fp32, int8),
        metric=example.task_metric,
        fp32=scores[0],
        int8=scores[1],
        **judged(example, bundle, split),
    )


def judged(example: Example, bundle: Bundle, split: str = "test") -> dict[str, Any]:
    """Run the gate on the recordings of a split, with the task metric of the example."""

    def score(outputs: Sequence[Float32], _: Sequence[Targets]) -> float:
        return example.metric(outputs, split)[example.task_metric]

    report = evaluate_bundle(
        bundle,
        example.sequences(split),
        targets=example.targets(split),
        metric=Metric(example.task_metric, score, example.more_is_better),
        resets=example.resets,
    )
    return {
        "gate": report["gate"]["verdict"],
        "n_stuck": report["gate"]["stuck"]["n_stuck"],
        "gate_sqnr_db": report["deviation_from_fp32"]["int8"]["sqnr_db"],
    }


def main(arguments: Sequence[str]) -> None:
    """Compare the examples named, all by default, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join(EXAMPLES)
    parser.add_argument("examples", nargs="*", help=f"of {names}; the recorded ones by default")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(arguments)
    if unknown := set(options.examples) - set(EXAMPLES):
        parser.error(f"expected examples of {names}, got {', '.join(sorted(unknown))}")
    try:
        rows = [compare(EXAMPLES[name]) for name in options.examples or RECORDED]
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    if options.json:
        print_json([asdict(row) for row in rows])
        return
    table = Table(
        *("example", "recordings", "samples", "lost", "fp32 stream - torch (allowed)"),
        *("INT8 SQNR", "metric", "fp32", "INT8", "change", "gate", "stuck"),
        title=f"Streamed through a pty at {RATE_HZ:g} Hz, onnxruntime",
    )
    for row in rows:
        table.add_row(
            *(row.example, str(row.n_recordings), str(row.n_samples), str(row.n_lost)),
            f"{row.largest_difference:.1e} ({row.allowed_difference:.0e})",
            *(f"{row.int8_sqnr_db:.1f} dB", row.metric, f"{row.fp32:.4f}", f"{row.int8:.4f}"),
            *(f"{row.metric_change:.3%}", f"{row.gate}, {row.gate_sqnr_db:.1f} dB"),
            str(row.n_stuck),
        )
    Console(width=170).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
