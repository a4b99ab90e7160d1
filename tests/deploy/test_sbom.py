"""The bill of materials: what a folder holds, the same each time."""

from __future__ import annotations

import json
import sys

import pytest


@pytest.fixture
def bill(deploy, run):
    """Ask sbom.py about folders."""

    def ask(*places: object) -> dict:
        result = run(sys.executable, deploy / "sbom.py", *places)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return ask


def put(folder, name: str, version: str, *fields: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *fields, ""]
    (info / "METADATA").write_text("\n".join(lines))
    (info / "RECORD").write_text(f"{name}/__init__.py,sha256=x,1\n{info.name}/INSTALLER,,\n")


@pytest.fixture
def installed(tmp_path):
    folder = tmp_path / "site-packages"
    put(folder, "edge_gru", "0.1", "License-Expression: MIT", "Requires-Dist: NumPy>=1.26")
    put(folder, "numpy", "2.0", "License: BSD-3-Clause", "Requires-Dist: absent; extra == 'x'")
    classifier = "Classifier: License :: OSI Approved :: MIT License"
    put(folder, "Odd.Name", "1", "License: a\n        long text", classifier)
    return folder


def test_packages_are_listed_with_versions_licences_and_needs(bill, installed):
    found = bill(installed)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    root = found["metadata"]["component"]
    assert (root["name"], root["version"]) == ("edge-gru", "0.1")
    assert root["licenses"] == [{"expression": "MIT"}]
    components = {c["name"]: c for c in found["components"]}
    assert list(components) == ["numpy", "odd-name"]
    assert components["numpy"]["purl"] == "pkg:pypi/numpy@2.0"
    assert components["numpy"]["licenses"] == [{"license": {"name": "BSD-3-Clause"}}]
    assert components["odd-name"]["licenses"] == [{"license": {"name": "MIT License"}}]
    needs = {entry["ref"]: entry["dependsOn"] for entry in found["dependencies"]}
    assert needs == {"edge-gru@0.1": ["numpy@2.0"], "numpy@2.0": [], "odd-name@1": []}


def test_same_packages_give_the_same_bytes(deploy, run, installed, tmp_path):
    outputs = [tmp_path / "a.json", tmp_path / "b.json"]
    for output in outputs:
        run(sys.executable, deploy / "sbom.py", "-o", output, installed)
        info = installed / "numpy-2.0.dist-info" / "RECORD"
        info.write_text("numpy-2.0.dist-info/INSTALLER,sha256=y,4\nnumpy/__init__.py,sha256=x,1\n")
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_wheels_are_read_where_they_lie(bill, small_wheel, tmp_path):
    small_wheel(tmp_path, "edge-gru", "1.0", ("helper",))
    small_wheel(tmp_path, "helper", "2.0")
    found = bill(tmp_path)
    assert found["metadata"]["component"]["name"] == "edge-gru"
    assert [c["name"] for c in found["components"]] == ["helper"]
    assert found["dependencies"][0]["dependsOn"] == ["helper@2.0"]


def test_package_without_a_licence_is_named(deploy, run, installed):
    put(installed, "silent", "1")
    result = run(sys.executable, deploy / "sbom.py", installed)
    assert "no licence is given by silent" in result.stderr


def test_folder_without_packages_is_told(deploy, run, tmp_path):
    result = run(sys.executable, deploy / "sbom.py", tmp_path)
    assert result.returncode == 2
    assert "expected Python packages in" in result.stderr
