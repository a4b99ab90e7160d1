"""edge-gru compile: build the engines that need it, prove them, and tell which is the fastest."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from edge_gru.bundle import load
from edge_gru.cli.messages import print_json
from edge_gru.cli.progress import build_progress
from edge_gru.cli.tables import engine_table, new_console
from edge_gru.engines.base import EngineSource
from edge_gru.engines.measure import Measurement, candidates, fastest, measure
from edge_gru.engines.select import keep
from edge_gru.engines.table import unavailable
from edge_gru.errors import EngineUnavailableError

_TENSORRT = "tensorrt"
_PLANS = "edge_gru.engines.tensorrt.plans"

_EXAMPLES = """\b
Examples:
  edge-gru compile pump.egb
  edge-gru compile pump.egb --precision int8,fp16 --streams 8
"""


class Plan(msgspec.Struct, frozen=True):
    """What became of the plan of one precision; ``reason`` says why there is none."""

    precision: str
    was_built: bool = False
    path: str = ""
    n_bytes: int = 0
    duration_s: float = 0.0
    reason: str = ""


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", "precisions", help="Such as int8,fp16; default: all that may win.")
@click.option("--streams", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--force", is_flag=True, help="Build anew what was built before.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def compile(  # noqa: A001 - the name of the verb
    ctx: click.Context,
    bundle: Path,
    *,
    precisions: str | None,
    streams: int,
    force: bool,
    as_json: bool,
) -> None:
    """Build TensorRT plans on this board, prove them, and measure them beside the CPU engines.

    Plans go into the cache of this user, and `run` serves on the fastest engine from its start.
    Compile in the power mode that the board is to work in. Exit code 1: a plan could not be built,
    or does not reproduce the golden vectors.
    """
    source = load(bundle).source
    reason = unavailable(_TENSORRT)
    if reason is not None:
        raise EngineUnavailableError(reason)
    wanted = _wanted(precisions, source)
    plans = list(_build_all(source, wanted, streams, is_forced=force))
    rows = measure(source, precisions=wanted if precisions else (), n_streams=streams)
    if streams == 1 and (not precisions or len(wanted) == 1):
        keep(source, wanted[0] if precisions else None, rows)
    sentences = list(verdict(rows, source.precision(None)))
    if as_json:
        print_json(_report(bundle, source, streams, plans, rows, sentences))
    else:
        _print(plans, rows, sentences)
    built = [row for row in rows if row.engine == _TENSORRT]
    ctx.exit(0 if built and all(row.usable for row in built) else 1)


def _wanted(given: str | None, source: EngineSource) -> list[str]:
    names = candidates(_TENSORRT, source) if given is None else given.split(",")
    return [source.precision(name.strip()) for name in names]


def _build_all(
    source: EngineSource, precisions: Sequence[str], n_streams: int, *, is_forced: bool
) -> Iterator[Plan]:
    compile_plan = importlib.import_module(_PLANS).compile_plan
    for precision in precisions:
        begin_s = time.monotonic()
        with build_progress(f"tensorrt {precision}") as progress:
            try:
                made = compile_plan(
                    source,
                    n_streams=n_streams,
                    precision=precision,
                    progress=progress,
                    force=is_forced,
                )
            except EngineUnavailableError as error:
                yield Plan(precision, reason=str(error))
                continue
        cached = made.cached
        duration_s = time.monotonic() - begin_s if made.was_built else 0.0
        n_bytes = cached.info.n_bytes
        yield Plan(precision, made.was_built, str(cached.path), n_bytes, round(duration_s, 1))


def verdict(rows: Sequence[Measurement], own: str) -> Iterator[str]:
    """Say which engine is the fastest, and where the narrower numbers are the slower ones."""
    usable = [row for row in rows if row.usable]
    if not usable:
        return
    best = fastest(usable, own)
    yield f"fastest here: {best.title}, {best.p50_us:.3g} us a step"
    built = [row for row in usable if row.engine == _TENSORRT]
    if not built:
        return
    narrow, wide = (
        next((row for row in built if row.precision == name), None) for name in ("int8", "fp16")
    )
    if narrow is not None and wide is not None and _us(narrow) > _us(wide):
        yield (
            f"INT8 is slower than FP16 here: {_us(narrow):.3g} us against {_us(wide):.3g} us; at "
            "one sample a step a GPU waits for memory and launches, not for arithmetic"
        )
    ready = [row for row in usable if row.engine != _TENSORRT]
    if ready and best.engine != _TENSORRT:
        gpu = min(built, key=_us)
        yield f"the GPU does not pay here: {gpu.title} takes {_us(gpu):.3g} us"


def _us(row: Measurement) -> float:
    return row.p50_us or 0.0


def _report(
    path: Path,
    source: EngineSource,
    n_streams: int,
    plans: Sequence[Plan],
    rows: Sequence[Measurement],
    sentences: Sequence[str],
) -> dict[str, Any]:
    return {
        "file": str(path),
        "model_hash": source.manifest.model_hash,
        "n_streams": n_streams,
        "plans": msgspec.to_builtins(plans),
        "engines": [{**msgspec.to_builtins(row), "usable": row.usable} for row in rows],
        "verdict": list(sentences),
    }


def _print(plans: Sequence[Plan], rows: Sequence[Measurement], sentences: Sequence[str]) -> None:
    console = new_console(markup=False)
    table = Table("precision", "built", "bytes", "file", title="TensorRT plans")
    for plan in plans:
        how = f"in {plan.duration_s:g} s" if plan.was_built else "before"
        row = ("no", "-", plan.reason) if plan.reason else (how, str(plan.n_bytes), plan.path)
        table.add_row(plan.precision, *row)
    console.print(table)
    console.print(engine_table(rows))
    for sentence in sentences:
        console.print(sentence)
