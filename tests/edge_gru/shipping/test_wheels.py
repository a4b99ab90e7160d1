"""Wheels: what the Python of a board asks for, and the way from source tree to folder."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from edge_gru.errors import ShippingError
from edge_gru.shipping import Source, Target
from edge_gru.shipping.requirements import missing
from edge_gru.shipping.target import ONNXRUNTIME, l4t_major, python_of_l4t
from edge_gru.shipping.wheels import gather


def write(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: deep"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")


def ask(folder: Path, python: str) -> list[str]:
    return missing(folder, "root[deep]", Target(python))


def test_condition_is_read_for_the_python_of_the_board(tmp_path):
    write(tmp_path, "root", "1.0", ('tomli>=2; python_version < "3.11"',))
    assert ask(tmp_path, "3.10") == ["tomli>=2"]
    assert ask(tmp_path, "3.12") == []


def test_condition_is_read_for_the_architecture_of_the_board(tmp_path):
    write(tmp_path, "root", "1.0", ("a; platform_machine == 'x86_64'", "b"))
    assert ask(tmp_path, "3.12") == ["b"]


def test_requirement_of_a_requirement_is_missed(tmp_path):
    write(tmp_path, "root", "1.0", ("helper[deep]>=2; extra == 'deep'",))
    write(tmp_path, "helper", "2.0", ("below; extra == 'deep'", "other; extra == 'x'"))
    assert ask(tmp_path, "3.12") == ["below"]


def test_wheel_of_too_old_a_version_is_missed(tmp_path):
    write(tmp_path, "root", "1.0", ("helper>=2",))
    write(tmp_path, "helper", "1.9")
    assert ask(tmp_path, "3.12") == ["helper>=2"]


def test_circle_of_requirements_ends(tmp_path):
    write(tmp_path, "root", "1.0", ("helper",))
    write(tmp_path, "helper", "1.0", ("root",))
    assert ask(tmp_path, "3.12") == []


@pytest.mark.parametrize(
    ("release", "python"),
    [("# R36 (release), REVISION: 4.4", "3.10"), ("# R38 (release), REVISION: 2.1", "3.12")],
)
def test_jetson_tells_its_python(release, python):
    assert python_of_l4t(l4t_major(release)) == python


def test_old_jetson_is_told_what_to_flash():
    assert l4t_major("something else") is None
    with pytest.raises(ShippingError, match="got r35; flash JetPack 6 or 7"):
        python_of_l4t(35)


def test_wheels_that_cannot_be_had_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ShippingError, match=r"the wheel of edge-gru could not be built: .*"):
        gather(Source(), Target("3.12"), tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_gathered_wheels_are_used_again_until_the_source_changes(tmp_path):
    source, target = Source(), Target("3.12")
    made = tmp_path / f"3.12-aarch64-{source.digest()[:12]}"
    made.mkdir()
    assert gather(source, target, tmp_path) == made


@pytest.mark.slow
@pytest.mark.parametrize("python", ONNXRUNTIME)
def test_wheels_for_every_python_of_a_board_can_be_had(tmp_path, python):
    if "EDGE_GRU_TEST_INDEX" not in os.environ:
        pytest.skip("needs a package index; set EDGE_GRU_TEST_INDEX=1 to use pip's")
    folder = gather(Source(), Target(python), tmp_path)
    names = [path.name for path in folder.glob("*.whl")]
    assert not [name for name in names if not name.endswith(("-any.whl", "aarch64.whl"))]
    assert not [name for name in names if name.startswith(("tensorrt", "torch", "onnx-"))]
    packages = {name.split("-")[0] for name in names}
    assert {"edge_gru", "onnxruntime", "numpy", "pyserial", "cryptography"} <= packages
    sys.stdout.write(f"Python {python}: {', '.join(sorted(names))}\n")
