from __future__ import annotations

import sys

import pytest

from edge_gru.errors import ConfigError
from quantization import quantize
from quantization.recipe import find_recipe


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "quantization.qat.distil", raising=False)


@pytest.mark.usefixtures("without_torch")
def test_recipe_that_finetunes_says_what_to_install(gru_file, write, sequences):
    path = write(gru_file)
    with pytest.raises(ConfigError) as caught:
        quantize(path, sequences, recipe="w4-qat")
    said = str(caught.value)
    assert said.startswith("recipe w4-qat finetunes, which takes torch")
    assert "pip install 'edge-gru[torch]'" in said


@pytest.mark.usefixtures("without_torch")
def test_same_form_without_finetuning_needs_no_torch(gru_file, write, sequences):
    bundle = quantize(write(gru_file), sequences, recipe="w4-both", accept_failure=True)
    assert bundle.manifest.precisions["int8"].products["gru_00.w_ih"].weight == "int4"


def test_steps_without_integers_to_learn_are_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "fp16"\nn_finetune_steps = 10\n')
    with pytest.raises(ConfigError, match=r"mine: n_finetune_steps learns weights in int8 or int4"):
        find_recipe(path)
    path.write_text('base = "w4"\nn_finetune_steps = 10\n')
    assert find_recipe(path).n_finetune_steps == 10
