"""What is timed: single steps, many streams, whole sequences; every form is checked before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from edge_gru.engines.base import Float32
from edge_gru.engines.golden import sqnr_db
from edge_gru.errors import EdgeGruError, EngineUnavailableError, GoldenMismatchError
from quantization.benchmark.latency.ours import reference_of
from quantization.benchmark.latency.rounds import MOST_CALLS, Case, quickest
from quantization.benchmark.latency.runner import Form, Runner
from quantization.benchmark.latency.weights import Weights, random_weights, samples
from quantization.benchmark.native import N_OUT, N_STREAMS, SIZES

Size = tuple[int, int, int]
Kind = Literal["step", "batch", "sequence"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_OTHER_CELLS = ("LSTM", "RNN_TANH")
_OTHER_SIZE = (16, 64, 1)
_N_SEQUENCE_STEPS = 1000
_N_CHECKED_STEPS = 200
_N_CHECKED_BATCHES = 3
_N_DISTINCT = 64  # samples that are stepped through: they stay in a cache, as fresh ones would be


@dataclass(frozen=True)
class Scenario:
    """One kind of use of a network of one size."""

    kind: Kind
    cell: str
    size: Size
    n_steps: int = 1  # of a call: of as many streams, or of one sequence

    @property
    def title(self) -> str:
        """What it is, in words."""
        what = {
            "step": "single step from Python",
            "batch": f"{self.n_steps:,} streams, one step of each",
            "sequence": f"a sequence of {self.n_steps:,} steps",
        }
        return f"{self.cell.removesuffix('_TANH')} {self.size_name}: {what[self.kind]}"

    @property
    def size_name(self) -> str:
        """Inputs, hidden values, layers."""
        return "-".join(map(str, self.size))


def scenarios(sizes: Sequence[Size], *, is_quick: bool) -> list[Scenario]:
    """List what to time at these sizes; the quick ones are single steps and 256 streams."""
    found = [Scenario("step", "GRU", size) for size in sizes]
    if _OTHER_SIZE in sizes:
        found += [Scenario("step", cell, _OTHER_SIZE) for cell in _OTHER_CELLS]
    for n_streams in N_STREAMS[:1] if is_quick else N_STREAMS:
        found += [Scenario("batch", "GRU", size, n_streams) for size in sizes]
    if not is_quick:
        found += [Scenario("sequence", "GRU", size, _N_SEQUENCE_STEPS) for size in sizes]
    return found


@dataclass(frozen=True)
class Prepared:
    """A form that gave the right outputs, ready to be timed; ``n_rows`` at a time, 0 for all."""

    case: Case
    sqnr_db: float
    n_rows: int = 0


def prepare(form: Form, scenario: Scenario) -> Prepared:
    """Open a form and check it against the reference in fp32.

    Raises:
        EngineUnavailableError: the form does not have this scenario, or its library fails.
        GoldenMismatchError: its outputs are not those of the network.
    """
    weights = weights_of(scenario.cell, scenario.size)
    if not form.fits(scenario.cell, scenario.kind):
        raise EngineUnavailableError(f"{form.name} does not have this; leave it out")
    with _explained(form):
        if scenario.kind == "batch":
            return _batch(form, weights, scenario.n_steps)
        if scenario.kind == "sequence":
            return _sequence(form, weights, scenario.n_steps)
        return _step(form, weights)


@lru_cache(maxsize=len(SIZES) + len(_OTHER_CELLS))
def weights_of(cell: str, size: Size) -> Weights:
    """Make the network of a size, once."""
    return random_weights(cell, *size)


def _step(form: Form, weights: Weights) -> Prepared:
    runner = form.open(weights, 1, 1)
    x = samples(_N_CHECKED_STEPS, weights.n_in)
    y = np.stack([_row(runner.step(sample)) for sample in runner.laid_out(x)])
    found_db = _checked(form, y, expected_of_one(weights, _N_CHECKED_STEPS))
    laid_out = runner.laid_out(x[:_N_DISTINCT]) * (MOST_CALLS // _N_DISTINCT)
    case = Case(lambda n: runner.steps(laid_out[:n]), lambda k: runner.step(laid_out[k]))
    return Prepared(case, found_db)


def _row(y: object) -> Float32:
    return np.asarray(y, np.float32).reshape(N_OUT).copy()


def _sequence(form: Form, weights: Weights, n_steps: int) -> Prepared:
    runner = form.open(weights, 1, 1)
    x = samples(n_steps, weights.n_in)
    y = runner.run_sequence(x)
    return Prepared(
        _repeated(lambda: runner.run_sequence(x)),
        _checked(form, y, expected_of_one(weights, n_steps)),
    )


def _batch(form: Form, weights: Weights, n_streams: int) -> Prepared:
    x = batches(weights, n_streams)
    opened = {
        n_rows: form.open(weights, n_streams, n_rows)
        for n_rows in form.row_counts or (0,)
        if n_rows <= n_streams
    }
    n_rows = quickest({n: _stepping(runner, x[0]) for n, runner in opened.items()})
    runner = form.open(weights, n_streams, n_rows)  # from the start
    y = np.stack([runner.step_batch(row) for row in x])
    found_db = _checked(form, y, expected_of_many(weights, n_streams))
    return Prepared(_repeated(_stepping(runner, x[0])), found_db, n_rows)


def _stepping(runner: Runner, x: Float32) -> Callable[[], object]:
    return lambda: runner.step_batch(x)


def _repeated(call: Callable[[], object]) -> Case:
    def run(n: int) -> None:
        for _ in range(n):
            call()

    return Case(run, lambda _: call())


def batches(weights: Weights, n_streams: int) -> Float32:
    """Make a few steps of many streams, all different: ``(n, n_streams, n_in)``."""
    x = samples(n_streams + _N_CHECKED_BATCHES, weights.n_in)
    return np.stack([x[k : k + n_streams] for k in range(_N_CHECKED_BATCHES)])


@lru_cache(maxsize=4)
def expected_of_one(weights: Weights, n_steps: int) -> Float32:
    """Run the reference over a sequence."""
    return reference_of(weights, 1).run_sequence(samples(n_steps, weights.n_in))


@lru_cache(maxsize=2)
def expected_of_many(weights: Weights, n_streams: int) -> Float32:
    """Run the reference over the steps of ``batches``."""
    engine = reference_of(weights, n_streams)
    return np.stack([engine.step_batch(x) for x in batches(weights, n_streams)])


def _checked(form: Form, y: Float32, expected: Float32) -> float:
    found_db = sqnr_db(expected.reshape(-1, N_OUT), y.reshape(-1, N_OUT))
    if not found_db >= form.sqnr_floor_db:  # also of NaN
        raise GoldenMismatchError(
            f"expected outputs of {form.name} with at least {form.sqnr_floor_db:g} dB against the "
            f"reference, got {found_db:.1f} dB; it is not timed"
        )
    return found_db


@contextmanager
def _explained(form: Form) -> Iterator[None]:
    """Turn whatever a library raises into one sentence."""
    try:
        yield
    except EdgeGruError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineUnavailableError(
            f"{form.name} cannot run this network ({lines[-1]}); it is not timed"
        ) from error
