"""edge-gru demo: the whole way on a simulated pump, from the trained network to the call."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_gru.bundle import Bundle
from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import engine_table, new_console
from edge_gru.engines.golden import sqnr_db
from edge_gru.engines.measure import measure
from edge_gru.engines.select import ready_engines
from edge_gru.engines.table import ENGINES
from edge_gru.manifest import Alert
from edge_gru.service import RunConfig, Service, Summary, stop_on_signals
from firmware_bridge.simulator import PumpScenario, PumpSource, SimulatedBoard
from quantization.cli.live import LiveSink
from quantization.cli.progress import show_progress
from quantization.evaluate import run_stream
from quantization.examples.pump import Pump
from quantization.pipeline import quantize
from quantization.report import report_of, report_table

_N_CALIBRATION = 12
_MIN_SQNR_DB = 40.0
_PATIENCE_S = 2.0
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo saw; ``faults`` is empty if all was well."""

    n_sent: int
    summary: Summary
    int8_sqnr_db: float
    streamed_minus_offline: float
    wear_began_s: float
    wear_called_s: float | None
    faults: list[str]


@click.command(epilog="\b\nExample:\n  edge-gru demo --seed 3 -o pump.egb")
@click.option(
    *("--duration", "duration_s"),
    type=click.IntRange(min=10, max=3600),
    default=20,
    show_default=True,
    help="Seconds to run.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which pump."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Keep the bundle here.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def demo(
    ctx: click.Context, *, duration_s: int, seed: int, output: Path | None, as_json: bool
) -> None:
    """See it all work on a simulated pump: quantize, verify, run.

    A GRU that was trained to tell the wear of a bearing is imported, proven, quantized and
    verified, and then predicts live from a serial port while the bearing of a simulated pump goes
    from healthy to failing. No hardware is needed. The exit code is 1 if anything was off.
    """
    logging.getLogger().setLevel(logging.WARNING)  # the table tells it all, and must not be torn
    console = Console(stderr=True) if as_json else new_console()
    scenario = PumpScenario(
        seed=seed, duration_s=duration_s, onset_s=0.4 * duration_s, failure_s=0.9 * duration_s
    )
    with _bundle_path(output) as path:
        bundle = _quantized(console)
        bundle.save(path)
        faults = _verified(console, bundle)
        result = _run(console, bundle, path, PumpSource(scenario), faults)
    if result is None:
        click.echo("edge-gru: interrupted", err=True)
        ctx.exit(_INTERRUPTED)
    if as_json:
        print_json(result)
    else:
        console.print(_summary_table(result))
    for fault in result.faults:
        click.echo(f"edge-gru: off: {fault}", err=True)
    ctx.exit(1 if result.faults else 0)


@contextmanager
def _bundle_path(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="edge-gru-") as folder:
        yield Path(folder) / "pump.egb"


def _quantized(console: Console) -> Bundle:
    console.print("[bold]1  import, prove, quantize[/] a GRU that was trained in PyTorch")
    example = Pump()
    scenarios = example.scenarios("train")[:_N_CALIBRATION]
    rule = example.alert
    with show_progress() as progress:
        bundle = quantize(
            example.checkpoint.with_suffix(".onnx"),
            [PumpSource(scenario).arrays()[0] for scenario in scenarios],
            schema=example.schema(),
            outputs=example.outputs,
            alerts=[Alert("wear", "y.wear", rule.enter, rule.exit, rule.for_s)],
            progress=progress,
        )
    console.print(report_table(report_of(bundle)))
    return bundle


def _verified(console: Console, bundle: Bundle) -> list[str]:
    console.print("\n[bold]2  verify[/] the engines of this machine on the golden vectors")
    engines = [name for name in ready_engines() if not ENGINES[name].on_gpu]
    rows = measure(bundle.source, precisions=["int8"], engines=engines)
    console.print(engine_table(rows))
    return [f"engine {row.engine}: {row.reason}" for row in rows if not row.usable]


def _run(
    console: Console, bundle: Bundle, path: Path, source: PumpSource, faults: list[str]
) -> DemoResult | None:
    """Run to the end of the source; None if a signal ended it before."""
    scenario = source.scenario
    with SimulatedBoard(source) as board:
        console.print(
            f"\n[bold]3  run[/] INT8 on {board.port}: a pump at {scenario.rate_hz:g} Hz, "
            f"its bearing begins to wear at {scenario.onset_s:g} s"
        )
        sink = LiveSink(console, scenario.rate_hz, source.wear_at)
        config = RunConfig(bundle=str(path), port=board.port, precision="int8")
        service = Service(config, [sink])
        ending = threading.Thread(target=_stop_when_seen, args=(board, sink, service), daemon=True)
        ending.start()
        interrupted = threading.Event()

        def interrupt() -> None:
            interrupted.set()
            service.stop()

        with stop_on_signals(interrupt):
            summary = service.run()
        n_sent = board.n_sent
    if interrupted.is_set():
        return None
    return _judged(bundle, source, sink, summary, n_sent, faults)


def _stop_when_seen(board: SimulatedBoard, sink: LiveSink, service: Service) -> None:
    """End the run once all that was sent is predicted; what is still on the line counts as lost."""
    board.wait()
    deadline_s = time.monotonic() + _PATIENCE_S
    while len(sink.predictions) < board.n_sent and time.monotonic() < deadline_s:
        time.sleep(0.02)
    service.stop()


def _judged(
    bundle: Bundle,
    source: PumpSource,
    sink: LiveSink,
    summary: Summary,
    n_sent: int,
    faults: list[str],
) -> DemoResult:
    samples, _ = source.arrays()
    live = sink.outputs
    name, _, precision = summary.engine.partition("-")
    with bundle.open(name, precision=precision) as engine:
        offline = run_stream(engine, samples[: len(live)])
    with bundle.open(name, precision="fp32") as engine:
        fp32 = run_stream(engine, samples[: len(live)])
    called = next((alert for alert in sink.alerts if alert.active), None)
    result = DemoResult(
        n_sent=n_sent,
        summary=summary,
        int8_sqnr_db=round(sqnr_db(fp32, live), 1),
        streamed_minus_offline=float(np.abs(live - offline).max(initial=0)),
        wear_began_s=source.scenario.onset_s,
        wear_called_s=None if called is None else called.sample_seq / source.scenario.rate_hz,
        faults=[],
    )
    return msgspec.structs.replace(result, faults=faults + _faults(result, len(samples)))


def _faults(result: DemoResult, n_samples: int) -> list[str]:
    summary, called_s = result.summary, result.wear_called_s
    bad = summary.lost_samples + summary.overrun_samples + summary.frames_bad
    checks = {
        f"{summary.n_predictions} predictions of {n_samples} samples": (
            summary.n_predictions == result.n_sent == n_samples
        ),
        f"{bad} samples lost or frames bad": bad == 0,
        f"INT8 at {result.int8_sqnr_db} dB": result.int8_sqnr_db >= _MIN_SQNR_DB,
        f"streamed and offline differ by {result.streamed_minus_offline:g}": (
            result.streamed_minus_offline == 0
        ),
        "wear was never called": called_s is not None,
        f"wear was called at {called_s} s, before it began": (
            called_s is None or called_s >= result.wear_began_s
        ),
    }
    return [what for what, is_well in checks.items() if not is_well]


def _summary_table(result: DemoResult) -> Table:
    summary, latency = result.summary, result.summary.latency
    table = Table("what", "result", title="Summary", title_justify="left")
    table.add_row("samples", f"{result.n_sent} sent, {summary.n_predictions} predicted")
    table.add_row("lost", f"{summary.lost_samples} lost, {summary.frames_bad} bad frames")
    table.add_row("engine", summary.engine)
    table.add_row("byte to prediction", f"p50 {latency.p50_us:.0f} us, p99 {latency.p99_us:.0f} us")
    table.add_row("INT8 against fp32", f"{result.int8_sqnr_db} dB over the whole run")
    table.add_row("streamed against offline", f"largest difference {result.streamed_minus_offline}")
    called = result.wear_called_s
    delay = "" if called is None else f" ({called - result.wear_began_s:.2f} s later)"
    table.add_row("wear truly began", f"{result.wear_began_s:.2f} s")
    table.add_row("wear first called", f"{'never' if called is None else f'{called:.2f} s'}{delay}")
    return table
