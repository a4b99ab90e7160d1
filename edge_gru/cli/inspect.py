"""edge-gru inspect: what is in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table

from edge_gru.bundle import Bundle, load
from edge_gru.cli.graph import step_tree
from edge_gru.cli.messages import print_json
from edge_gru.cli.progress import build_progress
from edge_gru.cli.tables import engine_table, new_console, shortened
from edge_gru.engines.base import EngineSource
from edge_gru.engines.choices import recall
from edge_gru.engines.measure import Measurement, measure
from edge_gru.engines.select import keep, ready_engines
from edge_gru.engines.table import ENGINES, Build, unavailable
from edge_gru.engines.tensors import WEIGHTS
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import Manifest

_EXAMPLES = """\b
Examples:
  edge-gru inspect pump.egb
  edge-gru inspect pump.egb --graph
  edge-gru inspect pump.egb --engines --json
  edge-gru inspect pump.egb --measure
"""


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engines", is_flag=True, help="Also show what every engine does here.")
@click.option("--measure", "anew", is_flag=True, help="Measure them anew, with what needs a build.")
@click.option("--precision", help="Of the engines: fp32, int8 ...; default: all that may win.")
@click.option("--graph", is_flag=True, help="Draw the step instead: its operations as a tree.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(
    bundle: Path, *, engines: bool, anew: bool, precision: str | None, graph: bool, as_json: bool
) -> None:
    """Show what is in a bundle: channels, outputs, states, precisions, sizes and hashes.

    The engines are verified and timed once, and the table is kept for this bundle and machine.
    """
    loaded = load(bundle)
    table = _engines(loaded.source, precision, anew=anew) if engines or anew else None
    if as_json:
        print_json(_report(bundle, loaded, table))
        return
    console = new_console(markup=False)
    if graph:
        console.print(step_tree(loaded))
    else:
        _print_model(console, bundle, loaded)
        _print_parts(console, loaded)
    if table is not None:
        console.print(engine_table(table.rows))
        console.print(table.note)


class _Table(NamedTuple):
    """What the engines do here, and when that was found out; None: now."""

    rows: Sequence[Measurement]
    measured: datetime | None

    @property
    def note(self) -> str:
        """Say where the table is from."""
        if self.measured is None:
            return "measured now"
        return f"measured on {self.measured:%Y-%m-%d %H:%M}; --measure does it anew"


def _engines(source: EngineSource, precision: str | None, *, anew: bool) -> _Table:
    """Take the table that was kept, or measure; what needs a build only where asked to."""
    source.precision(precision)
    kept = None if anew else recall(source.manifest.model_hash, precision)
    if kept is not None and kept.rows:
        measured = datetime.fromtimestamp(kept.wall_s).astimezone()
        return _Table([*kept.rows, *_unbuilt(kept.rows)], measured)
    precisions = () if precision is None else (precision,)
    if anew:
        with build_progress("engines") as progress:
            rows = measure(source, precisions=precisions, build=Build(progress))
    else:
        rows = measure(source, precisions=precisions, engines=ready_engines())
    with suppress(EngineUnavailableError):  # none is usable: the table says why
        keep(source, precision, rows)
    return _Table([*rows, *_unbuilt(rows)], None)


def _unbuilt(rows: Sequence[Measurement]) -> list[Measurement]:
    """Say of engines that were not measured how to build them, or why there are none."""
    measured = {row.engine for row in rows}
    how = "needs a build: edge-gru compile"
    return [
        Measurement(name, "", None, None, None, unavailable(name) or how)
        for name, row in ENGINES.items()
        if row.needs_build and name not in measured
    ]


def _report(path: Path, bundle: Bundle, table: _Table | None) -> dict[str, Any]:
    report = {
        "file": str(path),
        "n_bytes": bundle.n_bytes,
        "model_hash": bundle.hash,
        "manifest": msgspec.to_builtins(bundle.manifest),
        "tensors": [tensor._asdict() for tensor in _tensors(bundle)],
    }
    if table is not None:
        rows = [{**msgspec.to_builtins(row), "usable": row.usable} for row in table.rows]
        report["engines"] = rows
        report["engines_measured"] = table.measured
    return report


class _Tensor(NamedTuple):
    name: str
    type: str
    shape: tuple[int, ...]


def _tensors(bundle: Bundle) -> list[_Tensor]:
    arrays = bundle.source.tensors(WEIGHTS) if WEIGHTS in bundle.parts else {}
    return [_Tensor(name, str(a.dtype), a.shape) for name, a in sorted(arrays.items())]


def _print_model(console: Console, path: Path, bundle: Bundle) -> None:
    manifest = bundle.manifest
    rate_hz = manifest.schema.rate_hz
    facts = {
        "file": f"{path}, {bundle.n_bytes} bytes",
        "model": manifest.name,
        "hash": bundle.hash,
        "rate": "unknown" if rate_hz is None else f"{rate_hz:g} Hz",
        "outputs": shortened(manifest.outputs),
        "labels": shortened(manifest.labels) or "none",
        "states": ", ".join(f"{state.name} ({state.size})" for state in manifest.states),
        "recipe": manifest.recipe.name,
        "products": shortened(_products(manifest)) or "all in fp32",
        "warm-up": "never measured to end"
        if manifest.n_warmup is None
        else f"{manifest.n_warmup} samples",
        "gate": _gate(manifest),
        "alerts": ", ".join(f"{a.name} ({a.on} > {a.enter:g})" for a in manifest.alerts) or "none",
        "program": ", ".join(node.op for node in manifest.program.nodes),
        "graphs": f"one step, batch on axis 0, ONNX opset {manifest.program.opset}",
        "made by": ", ".join(f"{k} {v}" for k, v in sorted(manifest.producer.items())),
    }
    grid = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        grid.add_row(name, fact)
    console.print(grid)
    console.print(_input_table(manifest))


def _products(manifest: Manifest) -> tuple[str, ...]:
    products = manifest.precisions[manifest.default_precision].products
    return tuple(f"{weight} ({f.operand} x {f.weight})" for weight, f in products.items())


def _gate(manifest: Manifest) -> str:
    gate = manifest.gate
    if gate is None:
        return "never judged"
    if not gate.reasons:
        return gate.verdict
    word = "WARNING: did not pass" if gate.verdict == "fail" else gate.verdict
    return f"{word}: {'; '.join(gate.reasons)}"


def _input_table(manifest: Manifest) -> Table:
    table = Table("channel", "unit", "calibrated from", "to", "mean", "scale", title="Inputs")
    n_in, ranges, normal = manifest.n_in, manifest.input_range, manifest.normalisation
    columns = [ranges.minimum, ranges.maximum]
    columns += [normal.mean, normal.scale] if normal else [(0.0,) * n_in, (1.0,) * n_in]
    for channel, *numbers in zip(manifest.schema.channels, *columns, strict=True):
        table.add_row(channel.name, channel.unit or "-", *(f"{number:g}" for number in numbers))
    return table


def _print_parts(console: Console, bundle: Bundle) -> None:
    manifest = bundle.manifest
    forms = Table("precision", "graphs", "step tolerance", "stream SQNR", title="Precisions")
    for name, info in manifest.precisions.items():
        marked = f"{name} (default)" if name == manifest.default_precision else name
        graphs = ", ".join(f"{use}: {part}" for use, part in sorted(info.graphs.items()))
        forms.add_row(marked, graphs, f"{info.step_tolerance:g}", f"{info.stream_sqnr_db:g} dB")
    tensors = Table("tensor", "type", "shape", title="Weights")
    for tensor in _tensors(bundle):
        tensors.add_row(tensor.name, tensor.type, " x ".join(map(str, tensor.shape)))
    parts = Table("part", "bytes", "SHA-256", title="Parts")
    for name, part in sorted(manifest.parts.items()):
        parts.add_row(name, str(part.n_bytes), part.sha256)
    for table in (forms, tensors, parts):
        console.print(table)
