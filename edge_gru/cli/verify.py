"""edge-gru verify: does every engine here answer as the model that was packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
from rich.table import Table

from edge_gru.bundle import Bundle, load
from edge_gru.cli.messages import print_json
from edge_gru.cli.tables import new_console
from edge_gru.engines.golden import GoldenResult, replay
from edge_gru.engines.select import open_engine
from edge_gru.engines.table import ENGINES
from edge_gru.engines.tensors import GOLDEN
from edge_gru.errors import EngineUnavailableError

_EXAMPLES = """\b
Examples:
  edge-gru verify pump.egb
  edge-gru verify pump.egb --engine onnxruntime --json
"""


@dataclass(frozen=True)
class Verdict:
    """How an engine did in one precision, or why it cannot be asked."""

    engine: str
    precision: str
    golden: GoldenResult | None
    reason: str = ""

    @property
    def word(self) -> str:
        """Give the verdict: pass, fail, or not here."""
        if self.golden is None:
            return "not here"
        return "pass" if self.golden.passed else "fail"


@click.command(epilog=_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engine", help="Only this engine, which must be there.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def verify(ctx: click.Context, bundle: Path, *, engine: str | None, as_json: bool) -> None:
    """Replay the golden vectors on every engine and precision that is usable here.

    Exit code 1: an engine answers otherwise than the packed model, or none is usable.
    """
    loaded = load(bundle)
    if engine is not None:
        open_engine(engine, loaded.source).close()  # what is asked for by name must be there
    verdicts = list(_verdicts(loaded, list(ENGINES) if engine is None else [engine]))
    words = {verdict.word for verdict in verdicts}
    passed = "pass" in words and "fail" not in words
    if as_json:
        rows = [{**msgspec.to_builtins(row), "verdict": row.word} for row in verdicts]
        print_json({"file": str(bundle), "passed": passed, "results": rows})
    else:
        console = new_console(markup=False)
        console.print(_table(verdicts))
        for reason in dict.fromkeys(row.reason for row in verdicts if row.reason):
            console.print(f"not here: {reason}")
    ctx.exit(0 if passed else 1)


def _verdicts(bundle: Bundle, engines: Sequence[str]) -> Iterator[Verdict]:
    for name in engines:
        for precision in bundle.manifest.precisions:
            yield _verdict(bundle, name, precision)


def _verdict(bundle: Bundle, name: str, precision: str) -> Verdict:
    try:
        engine = open_engine(name, bundle.source, precision=precision)
    except EngineUnavailableError as error:
        return Verdict(name, precision, None, str(error))
    with engine:
        return Verdict(name, precision, replay(engine, bundle.parts[GOLDEN]))


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(
        "engine", "precision", "verdict", "step error", "allowed", "stream SQNR", "needed"
    )
    for row in verdicts:
        golden = row.golden
        if golden is None:
            table.add_row(row.engine, row.precision, row.word, "-", "-", "-", "-")
            continue
        step = (f"{golden.step_error:.2g}", f"{golden.step_tolerance:.2g}")
        stream = (f"{golden.stream_sqnr_db:.1f} dB", f"{golden.stream_floor_db:g} dB")
        table.add_row(row.engine, row.precision, row.word, *step, *stream)
    return table
