"""Forms take turns in rounds: a form's quietest round, the median of rounds, the tail of steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

MOST_CALLS = 16_384
_ROUND_US = 500.0  # shorter than a time slice: where others run too, most rounds are whole
_N_TRIES = 3
_WARM_SHARE = 8  # of a round is run before it: the form before has filled the caches
_FEW_CALLS = 4  # a round of so few has calls so long that reading the clock costs nothing
_NS_A_US = 1e3


@dataclass(frozen=True)
class Case:
    """What is timed: ``run`` makes a number of calls, ``call`` the one of a number."""

    run: Callable[[int], object]
    call: Callable[[int], object]


@dataclass(frozen=True)
class Timing:
    """Microseconds a call.

    ``quiet_us`` is the mean of the quietest round and ``median_us`` the median of the rounds'
    means, without a clock in between; ``p50_us`` and ``p99_us`` are of all single calls of a round
    but those that warm it up, with the clock read around each.
    """

    quiet_us: float
    median_us: float
    p50_us: float
    p99_us: float
    n_rounds: int
    n_calls: int


def time_in_rounds(
    cases: Mapping[str, Case], n_rounds: int, budget_s: float, least_rounds: int = 5
) -> dict[str, Timing]:
    """Time the cases in turns, in another order every round; fewer rounds than asked if long."""
    n_calls = {name: _calls_of_a_round(case.run) for name, case in cases.items()}
    means: dict[str, list[float]] = {name: [] for name in cases}
    singles: dict[str, list[int]] = {name: [] for name in cases}
    rng = np.random.default_rng(0)
    names = list(cases)
    end_s = time.monotonic() + budget_s
    gc.collect()
    gc.disable()
    try:
        for k in range(n_rounds):
            if k >= least_rounds and time.monotonic() > end_s:
                break
            rng.shuffle(names)
            for name in names:
                found_ns = _single_ns(cases[name].call, n_calls[name])
                singles[name] += found_ns
                if n_calls[name] > _FEW_CALLS:
                    means[name].append(_mean_us(cases[name].run, n_calls[name]))
                else:
                    means[name].append(float(np.mean(found_ns)) / _NS_A_US)
    finally:
        gc.enable()
    return {name: _timing(means[name], singles[name], n_calls[name]) for name in cases}


def quickest(runs: Mapping[int, Callable[[], object]]) -> int:
    """Try runs in turns, and name the one with the quietest call."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(_N_TRIES):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return min(best, key=best.__getitem__)


def _calls_of_a_round(run: Callable[[int], object]) -> int:
    """Find how many calls take as long as a round; warms up on the way."""
    n = 1
    while n < MOST_CALLS and min(_mean_us(run, n) for _ in range(_N_TRIES)) * n < _ROUND_US:
        n *= 2
    return n


def _mean_us(run: Callable[[int], object], n: int) -> float:
    start = time.perf_counter_ns()
    run(n)
    return (time.perf_counter_ns() - start) / n / _NS_A_US


def _single_ns(call: Callable[[int], object], n: int) -> list[int]:
    clock = time.perf_counter_ns
    times = [0] * n
    for k in range(n // _WARM_SHARE):
        call(k)
    for k in range(n):
        start = clock()
        call(k)
        times[k] = clock() - start
    return times


def _timing(means_us: list[float], singles_ns: list[int], n_calls: int) -> Timing:
    p50_us, p99_us = (np.percentile(singles_ns, [50, 99]) / _NS_A_US).tolist()
    median_us = float(np.median(means_us))
    return Timing(min(means_us), median_us, p50_us, p99_us, len(means_us), n_calls)
