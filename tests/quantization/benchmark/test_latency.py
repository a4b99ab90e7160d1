"""Engines and peers are timed only where they are right; the tables say what was measured."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

pytest.importorskip("edge_gru.native._native", reason="the native engine was not built here")

from edge_gru.errors import EngineUnavailableError, GoldenMismatchError
from quantization.benchmark.latency import __main__ as command
from quantization.benchmark.latency import ours, registry, rounds, scenarios
from quantization.benchmark.latency.rounds import Case, Timing, quickest, time_in_rounds
from quantization.benchmark.latency.runner import Form
from quantization.benchmark.latency.scenarios import Scenario, prepare
from quantization.benchmark.latency.tables import (
    Result,
    Row,
    ratios,
    summaries,
    table_of,
)

SIZE = (5, 40, 2)  # more than one vector of every kernel, and not a whole number of them
CELLS = ("GRU", "LSTM", "RNN_TANH")
FAST_PEERS = ("numpy", "onnxruntime", "torch")
KINDS = {"step": 1, "batch": 128, "sequence": 40}  # a batch of more than one chunk


def forms_of(peer: str) -> list[Form]:
    found = registry.find_peers([peer])
    if found.missing:
        pytest.skip(found.missing[0])
    return list(found.forms)


def scenario_of(kind: str, cell: str = "GRU") -> Scenario:
    return Scenario(kind, cell, SIZE, KINDS[kind])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_our_engines_compute_the_network(kind: str, cell: str) -> None:
    for form in ours.forms():
        if kind != "batch" or form.has_batch:
            found = prepare(form, scenario_of(kind, cell))
            assert found.sqnr_db >= form.sqnr_floor_db


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", FAST_PEERS)
def test_peer_computes_the_network(peer: str, kind: str, cell: str) -> None:
    for form in forms_of(peer):
        if cell in form.cells:
            found = prepare(form, scenario_of(kind, cell))
            assert found.sqnr_db >= form.sqnr_floor_db
            assert (found.n_rows in form.row_counts) == (kind == "batch")


@pytest.mark.parametrize("peer", [name for name in registry.PEERS if name not in FAST_PEERS])
@pytest.mark.filterwarnings("ignore")  # of libraries that the project does not depend on
def test_peer_that_happens_to_be_here_computes_the_network(peer: str) -> None:
    for form in forms_of(peer):
        found = prepare(form, scenario_of("sequence"))
        assert found.sqnr_db >= form.sqnr_floor_db


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_network_is_not_timed(kind: str) -> None:
    (form,) = forms_of("numpy")

    def other(weights: scenarios.Weights, n_streams: int, n_rows: int) -> object:
        arrays = {**weights.arrays, "cell_1.b_hh": weights.arrays["cell_1.b_hh"] + 0.01}
        return form.open(replace(weights, arrays=arrays), n_streams, n_rows)

    with pytest.raises(GoldenMismatchError, match=r"numpy fp32 with at least 90 dB .* got \d+"):
        prepare(replace(form, open=other), scenario_of(kind))


def test_library_that_fails_is_one_sentence() -> None:
    (form,) = forms_of("numpy")

    def failing(*_: object) -> object:
        raise RuntimeError("at src/node.cpp\nindex 0 out of range\n")

    with pytest.raises(EngineUnavailableError, match=r"cannot run .*\(index 0 out of range\)"):
        prepare(replace(form, open=failing), scenario_of("step"))


def test_form_without_a_kind_of_use_says_so() -> None:
    (form,) = forms_of("numpy")
    with pytest.raises(EngineUnavailableError, match="numpy fp32 does not have this"):
        prepare(replace(form, has_batch=False), scenario_of("batch"))


def test_peer_that_is_not_installed_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = registry.PeerRow("no_such_adapter", "pip install such")
    monkeypatch.setitem(registry.PEERS, "such", row)
    found = registry.find_peers(["such", "numpy"])
    assert [form.name for form in found.forms] == ["numpy fp32"]
    (sentence,) = found.missing
    assert sentence.startswith("such is not installed here (")
    assert sentence.endswith("; pip install such")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves only when told, by microseconds."""
    now_ns = [0]

    def pass_us(us: float) -> None:
        now_ns[0] += round(us * 1000)

    monkeypatch.setattr(rounds.time, "perf_counter_ns", lambda: now_ns[0])
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now_ns[0] / 1e9)
    monkeypatch.setattr(rounds.time, "monotonic", lambda: now_ns[0] / 1e9)
    return pass_us


def case_of(clock: Callable[[float], None], us: Callable[[], float]) -> Case:
    def run(n: int) -> None:
        for _ in range(n):
            clock(us())

    return Case(run, lambda _: clock(us()))


def test_rounds_give_the_quietest_and_the_median(clock: Callable[[float], None]) -> None:
    calls = iter(range(1_000_000))
    cases = {
        "steady": case_of(clock, lambda: 2.0),
        "disturbed": case_of(clock, lambda: 900.0 if next(calls) % 3 else 600.0),
    }
    found = time_in_rounds(cases, n_rounds=30, budget_s=1e6)
    steady, disturbed = found["steady"], found["disturbed"]
    assert steady.quiet_us == steady.median_us == steady.p50_us == pytest.approx(2.0)
    assert steady.n_calls == 256
    assert disturbed.n_calls == 1
    assert (disturbed.quiet_us, disturbed.median_us) == (600.0, 900.0)
    assert disturbed.n_rounds == steady.n_rounds == 30


def test_rounds_end_with_the_budget_but_not_before_the_least(
    clock: Callable[[float], None],
) -> None:
    cases = {"slow": case_of(clock, lambda: 1e6)}
    assert time_in_rounds(cases, 100, budget_s=8.5)["slow"].n_rounds == 9
    assert time_in_rounds(cases, 100, budget_s=0.0, least_rounds=3)["slow"].n_rounds == 3


def test_rare_slow_call_shows_in_p99(clock: Callable[[float], None]) -> None:
    calls = iter(range(1_000_000))
    cases = {"spiky": case_of(clock, lambda: 500.0 if next(calls) % 50 == 0 else 5.0)}
    found = time_in_rounds(cases, 40, budget_s=1e6)["spiky"]
    assert (found.p50_us, found.p99_us) == (5.0, 500.0)


def test_first_call_after_another_form_is_not_in_p99(clock: Callable[[float], None]) -> None:
    cached = [""]

    def us(name: str) -> float:
        is_cold, cached[0] = cached[0] != name, name
        return 90.0 if is_cold else 9.0

    cases = {name: case_of(clock, lambda name=name: us(name)) for name in ("one", "other")}
    found = time_in_rounds(cases, n_rounds=20, budget_s=1e6)
    assert found["one"].n_calls == 64
    assert (found["one"].p99_us, found["other"].p99_us) == (9.0, 9.0)


def test_quickest_is_found_by_its_best_call(clock: Callable[[float], None]) -> None:
    first = iter([50.0, 1.0, 50.0])
    runs = {16: lambda: clock(next(first)), 64: lambda: clock(2.0)}
    assert quickest(runs) == 16


def row_of(form: str, quiet_us: float, median_us: float, n_rows: int = 0) -> Row:
    return Row(form, Timing(quiet_us, median_us, median_us, 9.0, 7, 100), 41.25, n_rows)


RESULT = Result(
    Scenario("batch", "GRU", (16, 64, 1), 256),
    [row_of("slow peer", 80.0, 120.0, 64), row_of(ours.NATIVE_INT8, 20.0, 40.0)],
    ["third cannot run"],
    load=0.5,
)


def text_of(table: Table) -> list[list[str]]:
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    lines = [line.strip() for line in out.getvalue().splitlines() if "|" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_ratios_are_to_native_int8() -> None:
    found = ratios(RESULT)
    assert (found["slow peer"].quiet, found["slow peer"].median) == (4.0, 3.0)
    assert ratios(replace(RESULT, rows=RESULT.rows[:1])) == {}


def test_table_has_the_fastest_first() -> None:
    heading, _, *body = text_of(table_of(RESULT))
    assert heading[0] == "form"
    assert [row[0] for row in body] == [ours.NATIVE_INT8, "slow peer"]
    assert body[1][1:3] == ["80.0", "120"]
    assert body[1][4:] == ["3,200 k", "4.00", "3.00", "41.2", "64"]


def test_summary_has_a_column_a_size() -> None:
    other = replace(
        RESULT, scenario=Scenario("batch", "LSTM", (6, 32, 1), 256), rows=RESULT.rows[1:]
    )
    (table,) = summaries([RESULT, other])
    heading, _, *body = text_of(table)
    assert heading == ["form", "GRU 16-64-1", "LSTM 6-32-1"]
    assert body[0] == ["slow peer", "3,200 (4.00x)", "-"]
    assert body[1] == [ours.NATIVE_INT8, "12,800 (1.00x)", "12,800 (1.00x)"]


def test_command_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "QUICK", command.Effort(1, 0.0))
    monkeypatch.setattr(rounds, "_ROUND_US", 0.0)
    command.main(["--json", "--quick", "--peers", "numpy", "--sizes", "3-8-1"])
    found = json.loads(capsys.readouterr().out)
    assert {"date", "cpu", "load", "versions"} <= set(found["conditions"])
    step, batch = found["results"]
    assert step["scenario"]["kind"] == "step"
    assert batch["scenario"]["n_steps"] == 256
    assert {row["form"] for row in batch["rows"]} >= {ours.NATIVE_INT8, "numpy fp32"}
    assert step["ratios"][ours.NATIVE_INT8] == {"quiet": 1.0, "median": 1.0}
    assert step["failures"] == []


def test_command_refuses_a_size_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--sizes", "16-64"])
    assert "expected n_in-hidden-layers as in 16-64-1, got '16-64'" in capsys.readouterr().err
