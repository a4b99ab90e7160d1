"""What the first boot after a flash does with packages that were sent along."""

from __future__ import annotations

import pytest


@pytest.fixture
def register(deploy, run, tmp_path):
    """Run the script with a dpkg that keeps what it was told, and refuses what it is told to."""

    def call() -> tuple[int, list[str], str]:
        program = tmp_path / "dpkg"
        program.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/log\n! [ -e {tmp_path}/$1 ]\n")
        program.chmod(0o755)
        script = (deploy / "bin/register").read_text().replace("/opt/edge-gru", str(tmp_path))
        result = run("sh", "-c", script, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        return result.returncode, (tmp_path / "log").read_text().splitlines(), result.stderr

    (tmp_path / "unregistered").write_text("")
    return call


def test_package_is_configured_and_registered_once(register, tmp_path):
    assert register() == (0, ["--configure edge-gru"], "")
    assert not (tmp_path / "unregistered").exists()


def test_packages_that_were_sent_are_installed_and_their_space_is_given_back(register, tmp_path):
    (tmp_path / "debs").mkdir()
    for name in ("a_1_arm64.deb", "b_1_all.deb"):
        (tmp_path / "debs" / name).write_text("")
    code, log, _ = register()
    assert (code, log[0]) == (0, "--configure edge-gru")
    assert log[1] == f"--install {tmp_path}/debs/a_1_arm64.deb {tmp_path}/debs/b_1_all.deb"
    assert not (tmp_path / "debs").exists()


def test_packages_that_do_not_install_are_told_and_hold_nothing_up(register, tmp_path):
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs/a_1_arm64.deb").write_text("")
    (tmp_path / "--install").write_text("")
    code, _, said = register()
    assert code == 0
    assert "sudo apt install --fix-broken" in said
    assert (tmp_path / "debs/a_1_arm64.deb").exists()
    assert not (tmp_path / "unregistered").exists()


def test_package_that_cannot_be_configured_is_tried_again_at_the_next_boot(register, tmp_path):
    (tmp_path / "--configure").write_text("")
    assert register()[0] != 0
    assert (tmp_path / "unregistered").exists()
