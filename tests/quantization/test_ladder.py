from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from edge_gru.errors import EngineUnavailableError
from quantization import ladder, quantize
from quantization.checks import CONTROL_CHECK
from quantization.judgement import Check
from quantization.report import report_of


@pytest.fixture
def priced(monkeypatch):
    """Let steps cost what a test says, by the order of the recipes."""

    def set_prices(*recipes):
        def times(engines, samples):
            names = {key: key.split()[0] for key in engines}
            return {key: [float(recipes.index(name))] for key, name in names.items()}

        monkeypatch.setattr(ladder, "times_us", times)

    return set_prices


ORDER = ("int8", "rec", "rec-hilo", "int8-hilo", "fp16", "fp32")


def test_cheapest_that_passes_is_taken_and_the_rest_is_not_tried(
    gru_file, write, sequences, priced
):
    priced(*ORDER)
    bundle = quantize(write(gru_file), sequences, recipe="auto", engine="onnxruntime")
    tried = report_of(bundle)["tried"]
    assert [row["recipe"] for row in tried] == list(ORDER)
    judged = [row for row in tried if row["verdict"] is not None]
    assert judged == tried[: len(judged)]
    assert [row["verdict"] == "pass" for row in judged] == [False] * (len(judged) - 1) + [True]
    assert bundle.manifest.recipe.name == judged[-1]["recipe"]
    assert bundle.manifest.gate.verdict == "pass"
    assert all(row["reason"] for row in judged[:-1])


def test_float_is_taken_where_it_is_the_cheapest(gru_file, write, sequences, priced):
    priced("fp32", *ORDER[:-1])
    bundle = quantize(write(gru_file), sequences, recipe="auto", engine="onnxruntime")
    assert bundle.manifest.default_precision == "fp32"
    assert [row["verdict"] for row in report_of(bundle)["tried"][1:]] == [None] * 5


@pytest.mark.parametrize(
    ("found", "is_passed"),
    [
        ({}, True),
        ({CONTROL_CHECK: "warn"}, True),
        ({CONTROL_CHECK: "fail"}, False),
        ({"streamed SQNR": "warn"}, False),
        ({CONTROL_CHECK: "warn", "largest deviation": "warn"}, False),
        ({CONTROL_CHECK: "warn", "task metric esr": "fail"}, False),
    ],
)
def test_what_is_said_of_float_itself_holds_no_recipe_up(found, is_passed):
    verdicts = {"task metric esr": "pass", "streamed SQNR": "info", **found}
    checks = [Check(name, verdict, "", "", "") for name, verdict in verdicts.items()]
    failures = [check for check in checks if check.verdict == "fail"]
    judgement = SimpleNamespace(checks=checks, failures=failures)
    assert ladder._is_passed(judgement) is is_passed


def test_steps_are_measured_on_the_engine_that_is_named(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences, recipe="auto", engine="reference")
    tried = report_of(bundle)["tried"]
    assert {row["engine"] for row in tried} == {"reference"}
    prices = [row["p50_us"] for row in tried]
    assert all(a <= b for a, b in itertools.pairwise(prices))
    assert prices[0] > 0


def test_engine_that_is_not_there_is_one_sentence(gru_file, write, sequences):
    for recipe in ("auto", "rec"):
        with pytest.raises(EngineUnavailableError, match=r"expected an engine of .*onnxruntime"):
            quantize(write(gru_file), sequences, recipe=recipe, engine="abacus")
