from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch")

from quantization.benchmark.accuracy import bars
from quantization.benchmark.accuracy.measure import Row

pytestmark = pytest.mark.torch


def row(form="rec", model="RTF GRU seed 0", **figures):
    good = {
        "engine": "onnxruntime",
        "sqnr_db": 61.0,
        "metric": "rmse",
        "metric_value": 0.1,
        "metric_worsening": 0.0,
        "n_stuck": 0,
        "gate": "pass",
    }
    return Row(model=model, form=form, **{**good, **figures})


GOOD = {
    bars.of_tasks: [row(), row(model="LM GRU seed 0"), row("w4", sqnr_db=38.0), row("int8")],
    bars.of_examples: [row(n_changed=0), row(sqnr_db=50.0)],
    bars.of_large: [row(sqnr_db=32.0), row("rec-hilo", sqnr_db=42.0)],
    bars.of_amplifiers: [row(gate="fail", remark="why"), row("auto: fp16", metric_value=0.01)],
    bars.of_cells: [row(gate="warn")],
    bars.of_engines: [row(engine="reference"), row(engine="native", sqnr_db=60.5)],
    bars.of_peers: [row(), row("a tool", sqnr_db=60.0), row("not here", sqnr_db=None)],
}
MISSED = [
    (bars.of_tasks, row(sqnr_db=54.9), "54.9 dB, bar 55"),
    (bars.of_tasks, row(model="LM GRU seed 1", sqnr_db=59.9), "59.9 dB, bar 60"),
    (bars.of_tasks, row(metric_worsening=0.0011), "worse"),
    (bars.of_tasks, row(metric_worsening=float("nan")), "worse"),
    (bars.of_tasks, row(n_stuck=1), "1 units stand still"),
    (bars.of_tasks, row("w4", sqnr_db=37.9), "37.9 dB, bar 38"),
    (bars.of_examples, row(sqnr_db=49.9), "bar 50"),
    (bars.of_examples, row(n_changed=1), "1 decisions change"),
    (bars.of_examples, row(n_stuck=2), "2 units"),
    (bars.of_large, row(sqnr_db=31.9), "bar 32"),
    (bars.of_large, row("rec-hilo", sqnr_db=41.9), "bar 42"),
    (bars.of_amplifiers, row(gate="warn", remark="why"), "refuse"),
    (bars.of_amplifiers, row(gate="fail", remark=""), "refuse"),
    (bars.of_amplifiers, row("auto: rec", metric_value=0.011), "ESR 0.011"),
    (bars.of_cells, row(gate="fail"), "does not pass"),
]


def test_engine_below_the_reference_is_named():
    (sentence,) = bars.of_engines([row(engine="reference"), row(engine="native", sqnr_db=60.4)])
    assert "60.40 dB on native, 61.00 on the reference" in sentence


@pytest.mark.parametrize("bar", GOOD, ids=lambda bar: bar.__name__)
def test_what_reaches_its_bar_is_not_named(bar):
    assert list(bar(GOOD[bar])) == []


@pytest.mark.parametrize(("bar", "missing", "says"), MISSED)
def test_what_misses_its_bar_is_named(bar, missing, says):
    (sentence,) = bar([missing])
    assert says in sentence
    assert missing.model in sentence


def test_a_tool_that_is_ahead_is_named():
    (sentence,) = bars.of_peers([row(), row("a tool", sqnr_db=61.1)])
    assert "a tool has 61.1 dB, ours 61.0" in sentence


@pytest.mark.parametrize(("theirs", "n_sentences"), [(0.0, 1), (0.004, 1), (0.006, 0)])
def test_a_metric_worse_than_that_of_a_tool_is_named(theirs, n_sentences):
    rows = [row(metric_worsening=0.005), row("a tool", sqnr_db=20.0, metric_worsening=theirs)]
    assert len(list(bars.of_peers(rows))) == n_sentences
