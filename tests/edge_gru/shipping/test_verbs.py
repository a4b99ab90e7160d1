"""The verbs deb and container, and deploy.toml: what they write, refuse and say."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from click.testing import CliRunner

from edge_gru.cli import main
from edge_gru.errors import ConfigError
from edge_gru.shipping import Target, read_deploy_settings
from edge_gru.shipping.settings import DeploySettings

TARGET = Target("3.10")


@pytest.fixture
def call(small_wheels, source, tmp_path):
    """Call `edge-gru ship`; what it writes goes to the folder ``out``."""
    options = ["--wheels", small_wheels(TARGET), "--source", source.root, "--out", tmp_path / "out"]

    def run(*words: object):
        return CliRunner().invoke(main, ["ship", *map(str, words), *map(str, options)])

    return run


def test_deb_is_written_with_how_to_use_and_undo_it(call, tmp_path):
    made = call("deb", "--python", "3.10")
    assert made.exit_code == 0, made.output
    (package,) = (tmp_path / "out").iterdir()
    assert f"sudo dpkg -i {package.name}" in made.output
    assert "undo there: sudo apt remove edge-gru" in made.output


@pytest.mark.parametrize("words", [("deb", "--python", "3.10"), ("container", "--l4t", "r36")])
def test_dry_run_and_check_write_nothing(call, tmp_path, words):
    assert "would write" in call(*words, "--dry-run").output
    assert call(*words, "--check").output.startswith("PASS  model: no model")
    assert not (tmp_path / "out").exists()


def test_container_is_a_layer_a_base_and_a_start(call, tmp_path):
    made = call("container", "--l4t", "r36.4")
    assert made.exit_code == 0, made.output
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {"Dockerfile", "compose.yaml", "edge-gru.tar", "start"}
    assert "ARG BASE=nvcr.io/nvidia/l4t-tensorrt" in (out / "Dockerfile").read_text()
    assert "@" not in (out / "Dockerfile").read_text()
    assert os.access(out / "start", os.X_OK)
    assert f"undo: docker compose --project-directory {out} down" in made.output


def test_container_has_few_rights_and_sees_adapters_come_and_go(source):
    text = (source.deploy / "container/compose.yaml").read_text()
    for line in ("network_mode: none", "read_only: true", "cap_drop: [ALL]", "c 188:* rmw"):
        assert line in text
    assert "privileged: true" not in text


@pytest.mark.parametrize(("code", "is_healthy"), [(0, True), (1, True), (3, False), (127, False)])
def test_container_without_its_sensor_is_well_and_one_that_hangs_is_not(
    source, tmp_path, code, is_healthy
):
    text = (source.deploy / "container/Dockerfile").read_text()
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (.+)$", text, re.MULTILINE)
    program = tmp_path / "edge-gru"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    checked = subprocess.run(["sh", "-c", check], check=False, env=env)
    assert (checked.returncode == 0) is is_healthy


def test_container_fills_its_store_once(source, tmp_path):
    start = (source.deploy / "container/start").read_text()
    store, factory, log = tmp_path / "store", tmp_path / "factory", tmp_path / "log"
    for folder in (store, factory):
        folder.mkdir()
    (factory / "model.egb").write_text("")
    start = start.replace("/var/lib/edge-gru/bundles", str(store))
    start = start.replace("/usr/share/edge-gru/factory", str(factory))
    program = tmp_path / "edge-gru"
    program.write_text(f'#!/bin/sh\necho "$1" >>{log}\ntouch {store}/state.json\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run(["sh", "-c", start], check=True, env=env)
    assert log.read_text().split() == ["bundle", "run", "run"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("deb", "--python", "2.7"), "expected Python 3.10, 3.11, 3.12, 3.13, got '2.7'"),
        (("deb", "--python", "3.12"), "the wheels in "),
        (("container", "--l4t", "r35"), "got r35; flash JetPack 6 or 7"),
        (("container", "--l4t", "jetpack"), "expected --l4t such as r36 or r38.2"),
        (("container",), "expected --l4t, or --python"),
        (("container", "--l4t", "r36", "--python", "3.10"), "expected --l4t, or --python"),
    ],
)
def test_wrong_call_is_one_sentence(call, words, sentence):
    refused = call(*words)
    assert refused.exit_code == 2
    assert sentence in refused.output


def test_deploy_settings_are_relative_to_their_file(tmp_path, source):
    text = (source.deploy / "deploy.toml.example").read_text()
    file = tmp_path / "deploy.toml"
    file.write_text(text)
    cargo = read_deploy_settings(file)
    assert cargo.bundle == tmp_path / "pump.egb"
    assert cargo.keys == (tmp_path / "fleet.pub",)
    assert cargo.sensors == {"A900WXPC": "edge-gru-sensor"}


def test_example_of_the_deploy_settings_shows_every_key(tmp_path, source):
    text = (source.deploy / "deploy.toml.example").read_text()
    shown = re.findall(r"^#?(\w+) = ", text.partition("[sensors]")[0], flags=re.MULTILINE)
    assert sorted([*shown, "sensors"]) == sorted(DeploySettings.__struct_fields__)
    everything = tmp_path / "deploy.toml"
    everything.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    cargo = read_deploy_settings(everything)
    assert (cargo.login.user, cargo.login.hostname) == ("jetson", "pump-4")
    assert cargo.login.ssh_keys == (tmp_path / "me.pub",)
    assert (cargo.power_mode, cargo.boards) == (0, ("nvidia-p3767-0005",))


@pytest.mark.parametrize("words", [("deb", "--python", "3.10"), ("container", "--l4t", "r36")])
def test_plans_and_gates_are_json_for_programs(call, words):
    plan = json.loads(call(*words, "--dry-run", "--json").stdout)
    assert plan["python"] == "3.10"
    assert len(plan["writes"]) == 1
    gates = json.loads(call(*words, "--check", "--json").stdout)
    assert gates["passed"]
    assert gates["gates"][0]["name"] == "model"
    refused = call(*words, "--json")
    assert refused.exit_code == 2
    assert "expected --json together with --check or --dry-run" in refused.output


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bundel = 'x'", "unknown key 'bundel'; did you mean 'bundle'?"),
        ("wifi = 'x'", "unknown key 'wifi'; expected one of bundle, pubkeys"),
        ("bundle = 1", "bundle: expected `str`, got `int` (the value is 1)"),
        ("x", "expected TOML (key = value lines), got "),
    ],
)
def test_deploy_settings_that_are_none_are_refused(tmp_path, text, sentence):
    file = tmp_path / "deploy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"{file}: {sentence}")):
        read_deploy_settings(file)
    with pytest.raises(ConfigError, match="check the path"):
        read_deploy_settings(tmp_path / "absent.toml")


def test_secret_ssh_key_is_found_whichever_way_is_taken(call, tmp_path):
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "deploy.toml").write_text('ssh_keys = ["id"]\n')
    refused = call("deb", "--python", "3.10", "--deploy", tmp_path / "deploy.toml")
    assert refused.exit_code == 2
    assert "is a secret ssh key, which must not leave this machine" in refused.output
    assert not (tmp_path / "out").exists()
