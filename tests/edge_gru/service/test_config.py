from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_gru.errors import ConfigError
from edge_gru.predictor import GapPolicy
from edge_gru.service.config import make_config, read_settings

MINIMAL = {"bundle": "m.egb", "port": "/dev/ttyACM0"}


def test_defaults_need_only_bundle_and_port():
    config = make_config(MINIMAL)
    assert (config.engine, config.format, config.outputs) == ("auto", "framed", ("-",))
    assert config.device


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"engine": "tensort"},
            "expected an engine of auto, reference, native, onnxruntime, tensorrt, got 'tensort'",
        ),
        ({"baudd": 1}, "unknown key 'baudd'; did you mean 'baud'"),
        ({"zzz": 1}, "unknown key 'zzz'; expected one of bundle, port, format"),
        ({"baud": "fast"}, "baud: expected `int`, got `str` (the value is 'fast')"),
        ({"baud": 0}, "baud: expected `int` >= 1 (the value is 0)"),
        ({"rate_hz": -5}, "rate_hz: expected `float` > 0.0 (the value is -5)"),
        ({"max_gap_s": 0}, "max_gap_s: expected `float` > 0.0 (the value is 0)"),
        ({"outputs": ["a", 3]}, "outputs[1]: expected `str`, got `int` (the value is ['a', 3])"),
        ({"port": ""}, "expected a port, got none; give --port"),
        ({"bundle": None}, "expected a bundle, got none"),
    ],
)
def test_bad_setting_is_named(settings: dict[str, object], sentence: str):
    with pytest.raises(ConfigError, match=re.escape(f"here: {sentence}")):
        make_config({**MINIMAL, **settings}, origin="here")


def test_configured_gap_policy_goes_before_that_of_the_rate():
    assert make_config(MINIMAL).gap_policy(100.0) == GapPolicy.for_rate(100.0)
    config = make_config({**MINIMAL, "max_missing": 0, "max_gap_s": 7})
    assert config.gap_policy(100.0) == GapPolicy(max_missing=0, max_gap_s=7)


def test_paths_in_a_file_are_relative_to_its_folder(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text('bundle = "m.egb"\nport = "p"\noutputs = ["-", "o.jsonl", "/abs/o.jsonl"]\n')
    settings = read_settings(file)
    assert settings["bundle"] == str(tmp_path / "m.egb")
    assert settings["outputs"] == ["-", str(tmp_path / "o.jsonl"), "/abs/o.jsonl"]


def test_absent_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        read_settings(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"bundle = ", b"\xff\xfe"])
def test_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml: expected TOML"):
        read_settings(file)
