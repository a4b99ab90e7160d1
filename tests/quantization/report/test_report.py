from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from rich.console import Console

from edge_gru.errors import ConfigError
from edge_gru.manifest import ProductRecipe, Recipe
from quantization import evaluate_bundle, quantize, report_of, report_table, write_report
from quantization.recipe import RECIPES
from quantization.report import svg
from quantization.report.content import recipe_toml, rounded
from quantization.report.html import html_page
from quantization.report.markdown import markdown_text

HOSTILE = "<script>alert(1)</script> | & \"'"


@pytest.fixture
def report(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences, outputs=("wear", HOSTILE), name=HOSTILE)
    return report_of(bundle)


def text_of(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_report_answers_what_users_ask(report):
    tensors = {row["name"]: row for row in report["tensors"]}
    assert tensors["gru_00.w_hh"]["dtype"] == "int8"
    assert tensors["gru_00.w_hh"]["scale"][0] > 0
    operand = tensors["state_00_h into gru_00.w_hh"]
    assert operand["scale"] == [pytest.approx(1 / 127, rel=1e-4)] * 2
    assert operand["sqnr_db"] > 30
    assert operand["saturated"] == 0
    assert tensors["state_00_h"]["grid"] == "carried; never through Q/DQ"
    assert [rows["tensor"] for rows in report["row_scales"]] == ["gru_00.w_hh"]
    assert sum(report["row_scales"][0]["n"]) == 15
    assert report["sizes"]["weights_integer_bytes"] == 15 * 5 + 15 * 4
    assert report["sizes"]["weights_float_bytes"] == 15 * 5 * 4
    costs = [row["sqnr_db"] for row in report["sensitivity"]]
    assert costs == sorted(costs)
    assert len(report["deviation_from_fp32"]["int8"]["over_time_std"]) == 100
    parts = {k: v for k, v in report["data"].items() if isinstance(v, dict)}
    assert set(parts) == {"calibration", "fitted to", "chooses", "judged"}
    hashes = [part.get("sha256") or part["data_sha256"] for part in parts.values()]
    assert len(set(hashes)) == 4


def test_files_are_written_and_json_is_the_report(report, tmp_path):
    paths = write_report(report, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert json.loads(paths[0].read_text()) == report


def test_a_folder_that_cannot_be_made_is_one_sentence(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the report"):
        write_report(report, tmp_path / "file")


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.urls, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "line", "polyline", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_by_itself(report):
    text = html_page(report)
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.urls == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 4
    assert not re.search(r"https?://|@import|url\(", text)
    assert "&lt;script&gt;alert(1)" in text


def test_markdown_keeps_its_tables(report):
    lines = markdown_text(report).splitlines()
    assert lines[0].startswith("# ")
    for k, line in enumerate(lines):
        if line.startswith("| ---"):
            n_columns = line.count("|")
            block = lines[k - 1 :]
            rows = block[: next(i for i, row in enumerate(block) if not row.startswith("|"))]
            assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {n_columns}
    assert '```toml\nname = "rec"\n\n[recurrent]\noperand = "int8"' in "\n".join(lines)


def test_table_has_every_check_and_fact(report):
    text = text_of(report_table(report))
    for check in report["gate"]["checks"]:
        assert check["name"] in text
    for fact in ("step graph against the model", "int8 against fp32, streamed", "warm-up",
                 "slowest unit", "one step from a float state"):  # fmt: skip
        assert fact in text


def test_evaluating_again_gives_a_report_of_the_same_form(gru_file, write, sequences, tmp_path):
    bundle = quantize(write(gru_file), sequences)
    again = evaluate_bundle(bundle, sequences)
    assert set(report_of(bundle)) - set(again) == {
        "proof",
        "rounding",
        "tried",
        "finetuning",
        "warmup",
        "tensorrt_lint",
    }
    assert again["bundle_hash"] == bundle.hash
    assert write_report(again, tmp_path)
    fp16 = evaluate_bundle(bundle, sequences, precision="fp16", n_steps=4000)
    assert fp16["gate"]["precision"] == "fp16"
    dtypes = {row["name"]: row["dtype"] for row in fp16["tensors"]}
    assert dtypes["gru_00.w_hh"] != "int8"


def test_inputs_off_the_calibrated_range_are_shown(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences)
    shifted = [sequence + np.float32([0, 100, 0]) for sequence in sequences]
    shares = [row["share_outside"] for row in evaluate_bundle(bundle, shifted)["channels"]]
    assert shares == [0, 1, 0]


def test_recipe_as_toml_reads_back():
    odd = Recipe('odd "name"', tensors={"cell *.w_hh": ProductRecipe("fp16", "fp16")})
    for recipe in (*RECIPES.values(), odd):
        assert msgspec.toml.decode(recipe_toml(recipe), type=Recipe) == recipe


def test_what_is_not_finite_becomes_none():
    assert rounded({"a": [float("inf"), 1 / 3], "b": (float("nan"), "x", 2)}) == {
        "a": [None, 0.333333],
        "b": [None, "x", 2],
    }


def test_pictures_of_nothing_are_left_out():
    assert svg.line_chart({"int8": [0.0, 0.0]}, "x", "y") == ""
    assert svg.histogram([1.0, 2.0], [0], "x") == ""
    assert svg.bar_chart([]) == ""
    assert "no difference" in svg.bar_chart([("w", None, "weight")])
