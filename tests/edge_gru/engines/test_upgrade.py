"""Which engine serves at once, and whether a better one is looked for."""

from __future__ import annotations

import pytest

from edge_gru.engines.choices import Choice, recall, remember
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.measure import Measurement
from edge_gru.engines.table import ENGINES, Build, EngineRow
from edge_gru.engines.upgrade import start
from edge_gru.errors import EngineUnavailableError

PASSED = GoldenResult("any", "fp32", 1, 0.0, 1.0, 100.0, 30.0)


def kept(engine: str, *engines: str, is_whole: bool = True) -> Choice:
    rows = tuple(Measurement(name, "fp32", 5.0, 6.0, PASSED) for name in (engine, *engines))
    return Choice(engine, "fp32", rows, is_whole)


def test_without_an_engine_that_needs_a_build_nothing_is_looked_for(bundle, monkeypatch):
    monkeypatch.delitem(ENGINES, "tensorrt")
    begun = start("auto", bundle.source)
    with begun.engine:
        assert begun.upgrade is None
        assert begun.golden.passed


def test_what_is_asked_for_and_ready_serves(bundle, slow_build):
    begun = start("reference", bundle.source, precision="fp32")
    with begun.engine:
        assert (begun.engine.name, begun.engine.precision) == ("reference", "fp32")
    assert begun.upgrade is None


def test_what_is_not_installed_is_an_error_at_once(bundle, monkeypatch):
    row = EngineRow("edge_gru.absent", "Absent", "buy it", serves=True, needs_build=True)
    monkeypatch.setitem(ENGINES, "absent", row)
    with pytest.raises(EngineUnavailableError, match=r"'absent' is not installed .*; buy it"):
        start("absent", bundle.source)
    with pytest.raises(EngineUnavailableError, match="expected one of the precisions"):
        start("auto", bundle.source, precision="int3")


@pytest.mark.parametrize(
    ("choice", "is_looked_for"),
    [
        (kept("reference"), False),
        (kept("reference", is_whole=False), True),
        (kept("slow", "reference"), True),
        (kept("abacus"), True),
        (None, True),
    ],
)
def test_a_better_engine_is_looked_for_unless_all_were_measured(
    bundle, slow_build, choice, is_looked_for
):
    if choice is not None:
        remember(bundle.hash, None, choice)
    begun = start("auto", bundle.source)
    with begun.engine:
        assert begun.engine.name != "slow"
        assert (begun.upgrade is not None) == is_looked_for
    assert slow_build.n_begun == 0


def test_what_was_the_fastest_is_opened_without_measuring_again(bundle, slow_build):
    remember(bundle.hash, None, kept("slow", "reference"))
    slow_build.may_end.set()
    begun = start("auto", bundle.source)
    begun.engine.close()
    better = begun.upgrade.find(Build())
    with better.engine:
        assert (better.engine.name, better.engine.precision) == ("slow", "fp32")
    assert slow_build.n_begun == 1


@pytest.mark.usefixtures("slow_is_fastest")
def test_what_was_the_fastest_and_fails_now_is_measured_again(bundle, slow_build):
    remember(bundle.hash, None, Choice("slow", "int3", (), is_whole=True))
    slow_build.may_end.set()
    begun = start("auto", bundle.source)
    begun.engine.close()
    better = begun.upgrade.find(Build())
    with better.engine:
        assert better.engine.name == "slow"
    choice = recall(bundle.hash, None)
    assert (choice.engine, choice.is_whole) == ("slow", True)
    assert len(choice.rows) > 1


def test_a_search_that_is_stopped_keeps_nothing(bundle, slow_build):
    begun = start("auto", bundle.source)
    begun.engine.close()
    build = Build()
    build.cancel.set()
    with pytest.raises(EngineUnavailableError, match="stopped"):
        begun.upgrade.find(build)
    assert not recall(bundle.hash, None).is_whole
