"""Time our engines beside the peers that are installed here, one pinned core, in rounds.

Every form is checked against the reference in fp32 before it is timed. A round of a form is half a
millisecond, forms take turns in another order every round; a row has the mean of its quietest
round, the median of rounds, and p50 and p99 of single calls. Rows are Markdown, or JSON.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from edge_gru.cli.messages import print_json, print_log
from edge_gru.errors import EngineUnavailableError, GoldenMismatchError
from edge_gru.native import KERNELS
from edge_gru.version import __version__
from quantization.benchmark.latency import ours
from quantization.benchmark.latency.registry import PEERS, find_peers
from quantization.benchmark.latency.rounds import time_in_rounds
from quantization.benchmark.latency.runner import Form
from quantization.benchmark.latency.scenarios import (
    KINDS,
    Prepared,
    Scenario,
    Size,
    prepare,
    scenarios,
)
from quantization.benchmark.latency.tables import Result, Row, ratios, summaries, table_of
from quantization.benchmark.native import SIZES

_log = logging.getLogger(__name__)

_WIDTH = 200
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # a kernel chosen for others than this numpy


@dataclass(frozen=True)
class Effort:
    """How long to measure a scenario: rounds, and seconds after which there are no more."""

    n_rounds: int
    budget_s: float


FULL = Effort(201, 30.0)
QUICK = Effort(31, 3.0)


def measure(scenario: Scenario, forms: Sequence[Form], effort: Effort) -> Result:
    """Check every form, and time those that are right, in turns."""
    ready: dict[str, Prepared] = {}
    failures = []
    for form in forms:
        if not form.fits(scenario.cell, scenario.kind):
            continue
        try:
            ready[form.name] = prepare(form, scenario)
        except (EngineUnavailableError, GoldenMismatchError) as error:
            failures.append(str(error))
    cases = {name: prepared.case for name, prepared in ready.items()}
    timings = time_in_rounds(cases, effort.n_rounds, effort.budget_s)
    rows = [Row(n, timings[n], found.sqnr_db, found.n_rows) for n, found in ready.items()]
    return Result(scenario, rows, failures, os.getloadavg()[0])


def conditions(versions: Sequence[str]) -> dict[str, str]:
    """Say what this was measured on, with what, and when."""
    cpu = next(
        (s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")),
        platform.machine(),
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu.partition(":")[2].strip(),
        "core": f"one, pinned, of {os.cpu_count()}",
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "kernels": ", ".join(KERNELS),
        "kernel of the system": platform.release(),
        "versions": ", ".join([f"edge-gru {__version__}", *versions]),
        "python": platform.python_version(),
    }


def _size(text: str) -> Size:
    parts = tuple(int(part) for part in text.split("-"))
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"expected n_in-hidden-layers as in 16-64-1, got {text!r}")
    return parts


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m quantization.benchmark.latency", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="single steps and 256 streams, short")
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--sizes", nargs="+", type=_size, default=list(SIZES), metavar="I-H-L")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Measure, and print."""
    options = _options(arguments)
    print_log(debug=False, quiet=False)
    peers = find_peers(options.peers)
    forms = [*ours.forms(), *peers.forms]
    start = conditions(peers.versions)
    results = []
    for scenario in scenarios(options.sizes, is_quick=options.quick):
        if scenario.kind not in options.kinds:
            continue
        _log.info("%s", scenario.title)
        results.append(measure(scenario, forms, QUICK if options.quick else FULL))
    if options.json:
        rows = [{**_fields(result), "ratios": ratios(result)} for result in results]
        print_json({"conditions": start, "missing": peers.missing, "results": rows})
        return
    console = Console(width=_WIDTH)
    for name, value in start.items():
        console.print(f"{name}: {value}", markup=False, highlight=False)
    for table in (*map(table_of, results), *summaries(results)):
        console.print(table)
    for sentence in dict.fromkeys([*peers.missing, *(f for r in results for f in r.failures)]):
        console.print(f"NOT TIMED  {sentence}", markup=False, highlight=False)


def _fields(result: Result) -> dict[str, object]:
    names = ("scenario", "rows", "failures", "load")
    return {name: getattr(result, name) for name in names}


def _pin() -> None:
    """Start again on one core and one thread: libraries read both when they are loaded."""
    if all(name in os.environ for name in _ONE_THREAD) and not set(_SLOWING) & set(os.environ):
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kept = {name: value for name, value in os.environ.items() if name not in _SLOWING}
    command = [sys.executable, "-m", "quantization.benchmark.latency", *sys.argv[1:]]
    os.execve(sys.executable, command, kept | _ONE_THREAD)  # noqa: S606 - ourselves


if __name__ == "__main__":
    _pin()
    main(sys.argv[1:])
