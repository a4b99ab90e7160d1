from __future__ import annotations

import msgspec
import numpy as np
import pytest
from onnx import helper

from edge_gru.engines.measure import measure
from edge_gru.engines.table import ENGINES
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
        ('base = "magic"', "expected a base of rec, .*, got 'magic'"),
        ('base = "auto"', "expected a base of rec,"),
        ('base = ["rec"]', "expected a base of rec,"),
        ("[input]\nhead_room = inf", r"\$\.input\.head_room"),
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
    sizes = [report_of(b)["sizes"]["weights_integer_bytes"] for b in (whole, half)]
    assert sizes[1] < sizes[0]
    q = half.source.weights()["gru_00.w_hh_q"]
    assert np.abs(q).max() == 7
    manifest = msgspec.to_builtins(half.manifest)
    assert manifest["recipe"]["recurrent"]["weight"] == "int4"


def test_a_file_of_bytes_is_one_sentence(tmp_path):
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="expected a recipe in"):
        find_recipe(path)


def test_what_differs_from_a_preset_leaves_the_rest_of_a_table(written):
    recipe = find_recipe(written('base = "rec"\n[recurrent]\nrounding = "nearest"\n'))
    assert recipe.recurrent == RECIPES["rec-nearest"].recurrent


def test_override_of_no_weight_is_refused(written, gru_file, write, sequences):
    path = written('base = "rec"\n[tensors."gru_1.w_hh"]\noperand = "fp32"\nweight = "fp32"\n')
    with pytest.raises(ConfigError, match=r"expected a pattern of gru_00.w_ih.*got 'gru_1.w_hh'"):
        quantize(write(gru_file), sequences, recipe=path)


@pytest.mark.parametrize("n_out", [2, 5])
@pytest.mark.parametrize(
    ("operand", "weight"),
    [("fp16", "fp16"), ("int8", "int4"), ("fp32", "int8"), ("int8-hilo", "int8")],
)
def test_other_layers_in_every_form_are_the_same_on_every_engine(
    written, gru_file, write, sequences, operand, weight, n_out
):
    """Also where the weight is square, so that it fits the wrong way round."""
    gru_file.weights["head"] = np.random.default_rng(4).normal(size=(5, n_out)).astype(np.float32)
    path = written(f'base = "rec"\n[dense]\noperand = "{operand}"\nweight = "{weight}"\n')
    bundle = quantize(write(gru_file), sequences, recipe=path, accept_failure=True)
    products = bundle.manifest.precisions["int8"].products
    (name,) = set(products) - {"gru_00.w_hh"}
    head = next(row for row in report_of(bundle)["tensors"] if row["name"] == name)
    assert head["dtype"] == {"fp16": "float16"}.get(weight, weight)
    if weight == "int8":
        assert head["sqnr_db"] > 40
    for row in measure(bundle.source):
        assert row.usable or ENGINES[row.engine].on_gpu, row


def test_products_of_fp16_beside_integers_are_held_to_what_fp16_is(
    written, gru_file, write, sequences
):
    path = written('base = "rec"\n[input]\noperand = "fp16"\nweight = "fp16"\n')
    bundle = quantize(write(gru_file), sequences, recipe=path, accept_failure=True)
    for row in measure(bundle.source):
        assert row.usable or ENGINES[row.engine].on_gpu, row


@pytest.mark.parametrize("name", ["k_scale", "k_q", "k_q4", "k_operand_gain"])
def test_names_of_the_users_own_are_not_taken_for_ours(name, gru_file, write, sequences):
    gru_file.weights[name] = np.array([-0.25, 0.0], np.float32)
    gru_file.tail.append(helper.make_node("PRelu", [gru_file.output, name], ["z"], name="last"))
    gru_file.output = "z"
    report = report_of(quantize(write(gru_file), sequences, accept_failure=True))
    assert any(name in row["name"] for row in report["tensors"])
    assert [row["tensor"] for row in report["row_scales"]] == ["gru_00.w_hh"]
