from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_gru.errors import ConfigError
from edge_gru.manifest import ProductRecipe
from quantization import quantize
from quantization.recipe import RECIPES, find_recipe, recipe_of
from quantization.report import report_of
from quantization.report.content import recipe_toml
from quantization.sites import Site


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def site(weight, kind="recurrent"):
    return Site(weight, kind, "h", 1.0)


def test_file_needs_only_what_differs_from_a_preset(written):
    recipe = find_recipe(written('base = "rec"\n[input]\noperand = "int8-hilo"\nweight = "int8"\n'))
    assert recipe.name == "mine"
    assert recipe.recurrent == RECIPES["rec"].recurrent
    assert recipe.input == ProductRecipe("int8-hilo", "int8")


def test_every_preset_reads_back_from_its_own_toml(written):
    for recipe in RECIPES.values():
        assert find_recipe(written(recipe_toml(recipe))) == recipe


def test_last_pattern_that_matches_a_weight_decides(written):
    recipe = find_recipe(
        written(
            'base = "rec"\n[tensors."*.w_hh"]\noperand = "fp16"\nweight = "fp16"\n'
            '[tensors."gru_01.*"]\noperand = "fp32"\n'
        )
    )
    assert recipe_of(recipe, site("gru_00.w_hh")).weight == "fp16"
    assert recipe_of(recipe, site("gru_01.w_hh")).weight == "fp32"
    assert recipe_of(recipe, site("gru_00.w_ih", "stacked")) == RECIPES["rec"].stacked


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "mine.toml, got"),
        ('base = "magic"', "expected a recipe of rec,"),
        ('[recurrent]\noperand = "int7"', r"\$\.recurrent\.operand"),
        ('[recurent]\noperand = "int8"', "unknown field `recurent`"),
        ('[dense]\noperand = "int8"', "dense: an operand in int8 needs a weight in int8 or int4"),
        ('[tensors.head]\nweight = "fp16"', "head: a product in fp16 needs operand and weight"),
        ("[input]\nhead_room = 0.5", r"\$\.input\.head_room"),
    ],
)
def test_what_is_no_recipe_is_one_sentence(written, text, reason):
    with pytest.raises(ConfigError, match=reason):
        find_recipe(written(text))


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a recipe in .*none\.toml"):
        find_recipe(tmp_path / "none.toml")


def test_recipe_of_the_users_own_is_what_the_bundle_holds(written, gru_file, write, sequences):
    path = written('base = "rec"\n[dense]\noperand = "int8"\nweight = "int8"\nrounding = "gptq"\n')
    bundle = quantize(write(gru_file), sequences, recipe=path)
    assert bundle.manifest.recipe.name == "mine"
    products = bundle.manifest.precisions["int8"].products
    assert {(f.operand, f.weight) for f in products.values()} == {("int8", "int8")}
    assert len(products) == 2  # the head, too
    report = report_of(bundle)
    assert find_recipe(written(report["recipe_toml"])) == bundle.manifest.recipe
    assert set(report["rounding"]) == set(products)


def test_four_bit_weights_take_half_the_bytes(gru_file, write, sequences):
    whole = quantize(write(gru_file), sequences, recipe="rec", accept_failure=True)
    half = quantize(write(gru_file), sequences, recipe="w4", accept_failure=True)
    sizes = [report_of(b)["sizes"]["recurrent_int8_bytes"] for b in (whole, half)]
    assert sizes[1] < sizes[0]
    q = half.source.weights()["gru_00.w_hh_q"]
    assert np.abs(q).max() == 7
    manifest = msgspec.to_builtins(half.manifest)
    assert manifest["recipe"]["recurrent"]["weight"] == "int4"
