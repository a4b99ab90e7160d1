"""Wheel folders: what a board's Python asks for, and the way from source tree to command."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
ARCH = platform.machine()


@pytest.fixture
def missing(deploy, run, tmp_path):
    """Ask missing_wheels.py about the wheels in a folder."""

    def ask(python: str, requirement: str = "edge-gru[onnxruntime]") -> list[str]:
        result = run(
            sys.executable,
            deploy / "missing_wheels.py",
            *("--python", python, "--arch", "aarch64", tmp_path, requirement),
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    return ask


def test_condition_is_read_for_the_python_of_the_board(missing, small_wheel, tmp_path):
    small_wheel(tmp_path, "edge-gru", "1.0", ('tomli>=2; python_version < "3.11"',))
    assert missing("3.10") == ["tomli>=2"]
    assert missing("3.12") == []


def test_condition_is_read_for_the_architecture_of_the_board(missing, small_wheel, tmp_path):
    small_wheel(tmp_path, "edge-gru", "1.0", ("a; platform_machine == 'x86_64'", "b"))
    assert missing("3.12") == ["b"]


def test_requirement_of_a_requirement_is_missed(missing, small_wheel, tmp_path):
    small_wheel(tmp_path, "edge-gru", "1.0", ("helper[onnxruntime]>=2",))
    small_wheel(tmp_path, "helper", "2.0", ("deep; extra == 'onnxruntime'", "other; extra == 'x'"))
    assert missing("3.12") == ["deep"]


def test_wheel_of_too_old_a_version_is_missed(missing, small_wheel, tmp_path):
    small_wheel(tmp_path, "edge-gru", "1.0", ("helper>=2",))
    small_wheel(tmp_path, "helper", "1.9")
    assert missing("3.12") == ["helper>=2"]


def test_circle_of_requirements_ends(missing, small_wheel, tmp_path):
    small_wheel(tmp_path, "edge-gru", "1.0", ("helper",))
    small_wheel(tmp_path, "helper", "1.0", ("edge-gru",))
    assert missing("3.12") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["folder"], "expected --python VERSION and a FOLDER"),
        (["--python", "3.8", "folder"], "expected --python 3.10, 3.11, 3.12 or 3.13, got '3.8'"),
        (["--python", "3.10", "--arch", "mips", "folder"], "expected --arch aarch64 or x86_64"),
        (["--python", "3.10", "."], ". exists already; remove it or name another folder"),
        (["--frobnicate"], "unknown option --frobnicate"),
    ],
)
def test_wrong_call_is_one_sentence(deploy, run, tmp_path, arguments, sentence):
    result = run(deploy / "wheels.sh", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_download_that_fails_leaves_no_folder(deploy, run, tmp_path):
    env = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    folder = tmp_path / "wheels"
    result = run(deploy / "wheels.sh", "--python", "3.12", folder, env=env)
    assert result.returncode != 0
    assert list(tmp_path.iterdir()) == []


def closure(names: list[str]) -> set[str]:
    """Return the installed distributions that ``names`` need, themselves included."""
    found: set[str] = set()
    pending = [Requirement(name) for name in names]
    while pending:
        wanted = pending.pop()
        if wanted.name in found:
            continue
        found.add(wanted.name)
        for line in importlib.metadata.requires(wanted.name) or []:
            child = Requirement(line)
            if child.marker is None or any(
                child.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}
            ):
                pending.append(child)
    return found


@pytest.fixture
def wheels(deploy, run, tmp_path, installed_wheel) -> Path:
    """The folder that wheels.sh makes for this machine, from what is installed here."""
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed here, so no wheel of it can be made offline")
    pinned = re.findall(r"echo ([\d.]+) ;;", (deploy / "wheels.sh").read_text())
    if importlib.metadata.version("onnxruntime") not in pinned:
        pytest.skip("the onnxruntime installed here is not one that wheels.sh puts on a board")
    index = tmp_path / "index"
    index.mkdir()
    for name in closure(["edge-gru[onnxruntime,signed]", "pip", "setuptools"]) - {"edge-gru"}:
        installed_wheel(name, index)
    env = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    folder = tmp_path / "wheels"
    result = run(deploy / "wheels.sh", "--python", PYTHON, "--arch", ARCH, folder, env=env, cwd="/")
    assert result.returncode == 0, result.stderr
    return folder


def test_source_tree_becomes_a_command_on_a_board_without_an_index(wheels, install, root, run):
    names = {path.name.split("-")[0] for path in wheels.glob("*.whl")}
    assert {"edge_gru", "onnxruntime", "numpy", "pyserial", "pip"} <= names
    assert names.isdisjoint({"tensorrt", "torch", "onnx"})
    result = install(wheels)
    assert result.returncode == 0, result.stderr
    programs = root / "opt/edge-gru/venv/bin"
    assert "Usage" in run(programs / "edge-gru", "run", "--help", cwd="/").stdout
    imports = "import edge_gru, firmware_bridge, onnxruntime"
    assert run(programs / "python", "-c", imports, cwd="/").stderr == ""
    (root / "board.toml").write_text('channels = [{ name = "vibration" }]\n')
    for example in ("arduino", "platformio", "qemu"):
        arguments = (root / "board.toml", root / example, "--example", example)
        written = run(programs / "edge-gru", "firmware", *arguments, cwd="/")
        assert written.stderr == ""
        assert "edge_link.c" in written.stdout


@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_wheels_for_a_jetson_can_be_downloaded(deploy, run, tmp_path, python):
    if "EDGE_GRU_TEST_INDEX" not in os.environ:
        pytest.skip("needs a package index; set EDGE_GRU_TEST_INDEX=1 to use pip's")
    folder = tmp_path / "wheels"
    result = run(deploy / "wheels.sh", "--python", python, folder, env={"PYTHON": sys.executable})
    assert result.returncode == 0, result.stderr
    wheels = [path.name for path in folder.glob("*.whl")]
    assert not [name for name in wheels if not name.endswith(("-any.whl", "aarch64.whl"))]
    assert not [name for name in wheels if name.startswith(("tensorrt", "torch", "onnx-"))]
