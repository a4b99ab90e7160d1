from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="needs torch")

from quantization.benchmark.accuracy import __main__ as command
from quantization.benchmark.accuracy.measure import Row
from quantization.benchmark.accuracy.tables import FULL, QUICK, TABLES, TableSpec

pytestmark = pytest.mark.torch

ROW = Row(model="a network", form="rec", engine="onnxruntime", sqnr_db=55.04, n_stuck=0, n_moving=7)


@pytest.fixture
def tables(monkeypatch):
    """Two tables of one row; the second misses a bar. Returns the extents that were asked for."""
    asked = []

    def rows(extent):
        asked.append(extent)
        yield ROW

    good = TableSpec("Good", "under conditions", rows, lambda _: iter(()))
    bad = TableSpec("Bad", "under others", rows, lambda _: iter(["a network: 55.0 dB, bar 60"]))
    monkeypatch.setattr(command, "TABLES", {"good": good, "bad": bad})
    return asked


def test_a_table_that_reaches_its_bars_ends_with_0(tables, capsys):
    assert command.main(["--table", "good"]) == 0
    shown = capsys.readouterr().out
    assert "a network" in shown
    assert "55.0 dB" in shown
    assert "0 of 7" in shown
    assert "under conditions" in shown
    assert "MISSED" not in shown
    assert tables == [FULL]


def test_a_missed_bar_is_printed_and_ends_with_1(tables, capsys):
    assert command.main(["--quick"]) == 1
    assert "MISSED  a network: 55.0 dB, bar 60" in capsys.readouterr().out
    assert tables == [QUICK, QUICK]


def test_json_has_rows_conditions_and_what_is_missed(tables, capsys):
    assert command.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["good"]["rows"][0]["sqnr_db"] == 55.04
    assert report["bad"]["missed"] == ["a network: 55.0 dB, bar 60"]
    assert set(report) == {"versions", "good", "bad"}


def test_recordings_that_are_not_there_are_one_sentence(monkeypatch):
    monkeypatch.delenv("EDGE_GRU_DATA", raising=False)
    with pytest.raises(SystemExit, match="error: expected EDGE_GRU_DATA"):
        command.main(["--table", "real"])


def test_the_tables_are_those_of_the_command():
    assert list(TABLES) == ["tasks", "real", "large", "amp", "cells", "engines", "peers"]
