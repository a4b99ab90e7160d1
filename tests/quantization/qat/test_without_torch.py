from __future__ import annotations

import subprocess
import sys

import pytest

from edge_gru.errors import ConfigError
from quantization.recipe import find_recipe


def run_without_torch(path, recipe):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from quantization import quantize\n"
        "from edge_gru.errors import ConfigError\n"
        "x = np.random.default_rng(0).normal(size=(80, 3))\n"
        "try:\n"
        f"    quantize({str(path)!r}, [x], recipe={recipe!r}, accept_failure=True)\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_recipe_that_finetunes_says_what_to_install(gru_file, write):
    said = run_without_torch(write(gru_file), "w4-qat")
    assert said.startswith("recipe w4-qat finetunes, which takes torch")
    assert "pip install 'edge-gru[torch]'" in said
    assert said.count("\n") == 1


def test_same_form_without_finetuning_needs_no_torch(gru_file, write):
    assert run_without_torch(write(gru_file), "w4-both") == ""


def test_steps_without_integers_to_learn_are_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "fp16"\nn_finetune_steps = 10\n')
    with pytest.raises(ConfigError, match=r"mine: n_finetune_steps learns weights in int8 or int4"):
        find_recipe(path)
    path.write_text('base = "w4"\nn_finetune_steps = 10\n')
    assert find_recipe(path).n_finetune_steps == 10
