"""flash-l4t.sh: the order of its steps, and where it stops."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="flash-l4t.sh works as root alone")

APPLY = "#!/bin/sh\necho apply >>log\necho '# R36 (release)' >rootfs/etc/nv_tegra_release\n"
USER = "#!/bin/sh\necho user $2 >>log\necho jetson:x:1000:1000::/:/bin/sh >>rootfs/etc/passwd\n"
OVERLAY = "#!/bin/sh\necho overlay $* >>{log}\nexit $(cat {code} 2>/dev/null || echo 0)\n"


@pytest.fixture
def tegra(tmp_path: Path) -> Path:
    folder = tmp_path / "Linux_for_Tegra"
    for name in ("rootfs/etc", "rootfs/usr/bin", "tools", "bin"):
        (folder / name).mkdir(parents=True)
    (folder / "rootfs/usr/bin/python3").write_text("")
    (folder / "rootfs/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    words = {"log": folder / "log", "code": folder / "code"}
    programs = {
        "apply_binaries.sh": APPLY,
        "tools/l4t_create_default_user.sh": USER,
        "bin/edge-gru": OVERLAY.format(**words),
        "flash-me": "#!/bin/sh\necho flash >>log\n",
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def flash(deploy, run, tegra):
    def call(*words: str):
        env = {"PATH": f"{tegra}/bin:{os.environ['PATH']}", "FLASH": "./flash-me"}
        script = deploy / "flash-l4t.sh"
        return run(script, tegra, "--board", "b", *words, env=env, input="secret\n")

    return call


def log(tegra: Path) -> list[str]:
    path = tegra / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_steps_come_in_their_order(flash, tegra):
    result = flash("--user", "jetson", "--no-flash", "--", "--bundle", "x.egb")
    assert result.returncode == 0, result.stderr
    overlay = f"overlay ship l4t {tegra} --board b --bundle x.egb"
    assert log(tegra) == ["apply", "user jetson", overlay]


def test_second_run_repeats_only_the_overlay(flash, tegra):
    flash("--user", "jetson", "--no-flash")
    flash("--no-flash")
    assert [line.split()[0] for line in log(tegra)] == ["apply", "user", "overlay", "overlay"]


def test_without_a_user_it_stops_before_the_overlay(flash, tegra):
    result = flash("--no-flash")
    assert result.returncode == 2
    assert "without one the board waits in a wizard; give --user NAME" in result.stderr
    assert log(tegra) == ["apply"]


def test_refused_overlay_is_not_flashed(flash, tegra):
    (tegra / "code").write_text("2")
    assert flash("--user", "jetson").returncode == 2
    assert "flash" not in log(tegra)


def test_without_a_board_in_recovery_mode_nothing_is_flashed(flash, tegra):
    result = flash("--user", "jetson")
    assert result.returncode == 2
    assert "flash" not in log(tegra)
    assert result.stderr.count("\n") == 1


def test_check_changes_nothing(flash, tegra):
    assert flash("--check").returncode == 0
    assert log(tegra) == [f"overlay ship l4t {tegra} --board b --check"]


def test_wrong_folder_is_one_sentence(deploy, run, tmp_path):
    result = run(deploy / "flash-l4t.sh", tmp_path, "--board", "b")
    assert result.returncode == 2
    assert "found no rootfs in it" in result.stderr
