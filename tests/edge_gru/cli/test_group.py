from __future__ import annotations

import subprocess
import sys

import pytest

from edge_gru.cli import VERBS

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""
HEAVY = ("torch", "onnx", "onnxruntime", "quantization")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_without(blocked: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKER.format(blocked=blocked) + "from edge_gru.cli import main; main()"
    return run_python(code, *arguments)


def test_help_lists_every_verb_with_its_line(call):
    text = call("--help").stdout
    for name, row in VERBS.items():
        assert f"{name} " in text
        assert row.help in text
    assert "quantize  Make a bundle" in text
    assert "demo " in text
    assert "Example" in text


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_an_example(call, verb: str):
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"\n    edge-gru {verb}" in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_line_of_the_table_is_what_the_verb_does(verb: str):
    assert VERBS[verb].help.endswith(".")
    assert len(VERBS[verb].help) < 60


def test_verb_of_the_host_says_what_to_install():
    result = run_without(("packaging",), "ship", "deb", "--python", "3.10")
    assert result.returncode == 2
    assert "pip install 'edge-gru[ship]'" in result.stderr


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from edge_gru.cli import main
main(["--help"], standalone_mode=False)
print("loaded", sorted({set(HEAVY)!r} & set(sys.modules)), file=sys.stderr)
"""
    assert run_python(code).stderr == "loaded []\n"


def test_importing_the_device_packages_loads_nothing_of_the_build_host():
    code = f"""
import sys, edge_gru, edge_gru.service, firmware_bridge.link, firmware_bridge.simulator
print("loaded", sorted({set(HEAVY)!r} & set(sys.modules)))
"""
    assert run_python(code).stdout == "loaded []\n"


def test_device_verbs_work_without_the_build_host(bundle_path):
    assert run_without(HEAVY, "--help").returncode == 0
    inspected = run_without(HEAVY, "inspect", str(bundle_path), "--engines")
    assert inspected.returncode == 0, inspected.stderr
    assert "edge-gru[onnxruntime]" in inspected.stdout
    verified = run_without(HEAVY, "verify", str(bundle_path))
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize(
    ("blocked", "extra"), [(("quantization",), "quantize"), (("onnx",), "quantize")]
)
def test_verb_whose_extra_is_missing_says_what_to_install(blocked, extra):
    assert "quantize" in run_without(blocked, "--help").stdout
    result = run_without(blocked, "quantize", "model.onnx", "--any-option")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"pip install 'edge-gru[{extra}]'" in result.stderr


def test_unknown_verb_is_a_usage_error(call):
    result = call("abracadabra")
    assert result.exit_code == 2
    assert "No such command 'abracadabra'" in result.stderr


def test_error_is_one_sentence_and_debug_shows_where_it_came_from():
    code = "from edge_gru.cli import main; main()"
    plain = run_python(code, "inspect", "/absent.egb")
    assert plain.returncode == 2
    assert plain.stderr.startswith("edge-gru: error: cannot read bundle /absent.egb")
    assert plain.stderr.count("\n") == 1
    debug = run_python(code, "--debug", "inspect", "/absent.egb")
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr


def test_version(call):
    assert call("--version").stdout.startswith("edge-gru, version ")
