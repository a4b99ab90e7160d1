"""What the unit that builds engines leaves for `edge-gru status`."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def compile_models(deploy, run, tmp_path):
    """Run the script with another program in the place of edge-gru."""

    def call(body: str) -> tuple[int, list[dict]]:
        program = tmp_path / "edge-gru"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        state = tmp_path / "compile.json"
        script = (deploy / "bin/compile").read_text()
        script = script.replace("/run/edge-gru/compile.json", str(state))
        script = script.replace("/var/cache/edge-gru", str(tmp_path))
        script = script.replace("/var/lib/edge-gru", str(tmp_path))
        script = script.replace(
            'mv "$FILE.new" "$FILE"', f'cat "$FILE.new" >>{tmp_path}/all; mv "$FILE.new" "$FILE"'
        )
        path = f"{tmp_path}:/usr/bin:/bin"
        result = run("sh", "-c", script, env={"PATH": path})
        said = (tmp_path / "all").read_text().splitlines()
        return result.returncode, [json.loads(line) for line in said]

    return call


def test_stages_are_told_as_they_come(compile_models):
    code, said = compile_models("echo 'tensorrt int8: \"parsed\"' >&2; echo table")
    assert code == 0
    assert {"state": "building", "stage": "tensorrt int8: parsed"} in said
    assert said[-1] == {"state": "built", "stage": "all"}


def test_failure_is_told_and_is_one(compile_models):
    code, said = compile_models("echo no >&2; exit 3")
    assert code == 3
    assert said[-1]["state"] == "failed"


def test_build_that_failed_is_not_tried_again_for_the_same_model(compile_models, tmp_path):
    for name in ("pump-1", "pump-2"):
        (tmp_path / "bundles" / name).mkdir(parents=True)
        (tmp_path / "bundles" / name / "model.egb").write_text("")
    current = tmp_path / "bundles/current"
    current.symlink_to("pump-1")
    assert compile_models("exit 1")[0] == 1
    code, said = compile_models("echo again >&2; exit 1")
    assert code == 0
    assert said[-1]["state"] == "failed"
    assert said[-1]["stage"] == f"before; to try again: sudo rm {tmp_path}/failed"
    assert "again" not in [line["stage"] for line in said]
    current.unlink()
    current.symlink_to("pump-2")
    assert compile_models("exit 0")[1][-1]["state"] == "built"
    assert not (tmp_path / "failed").exists()


def test_build_that_was_killed_is_tried_again(compile_models):
    assert compile_models("kill -9 $$")[0] == 137
    assert compile_models("exit 0")[1][-1]["state"] == "built"
