"""flash-l4t.sh: the order of its steps, and where it stops."""

from __future__ import annotations

import os
import shutil
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
def host(tmp_path) -> Path:
    """A machine that lacks nothing."""
    root = tmp_path / "host"
    files = {
        "proc/sys/fs/binfmt_misc/qemu-aarch64": "",
        "sys/module/usbcore/parameters/autosuspend": "-1\n",
        "sys/bus/usb/devices/1-2/idVendor": "0955\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def flash(deploy, run, tegra, host):
    (tegra / "bin/exportfs").write_text("#!/bin/sh\n")
    (tegra / "bin/exportfs").chmod(0o755)
    (tegra / "bin/uname").write_text("#!/bin/sh\necho x86_64\n")
    (tegra / "bin/uname").chmod(0o755)

    def call(*words: str):
        env = {"PATH": f"{tegra}/bin:{os.environ['PATH']}", "FLASH": "./flash-me"}
        env["EDGE_GRU_HOST"] = str(host)
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


def test_board_is_flashed_last(flash, tegra):
    result = flash("--user", "jetson")
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in log(tegra)] == ["apply", "user", "overlay", "flash"]


def test_without_a_board_in_recovery_mode_nothing_is_flashed(flash, tegra, host):
    (host / "sys/bus/usb/devices/1-2/idVendor").write_text("1d6b\n")
    result = flash("--user", "jetson")
    assert result.returncode == 2
    assert [line.split()[0] for line in log(tegra)] == ["apply", "user", "overlay"]
    assert "hold its recovery button" in result.stderr
    assert result.stderr.count("\n") == 1


def shut_programs(host, tegra) -> None:
    (host / "proc/sys/fs/binfmt_misc/qemu-aarch64").unlink()


def shut_usb_power(host, tegra) -> None:
    (host / "sys/module/usbcore/parameters/autosuspend").write_text("2\n")


def shut_nfs(host, tegra) -> None:
    (tegra / "bin/exportfs").unlink()


SHUT = {
    "binfmt: this machine runs no programs of the board": shut_programs,
    "USB autosuspend: it is on": shut_usb_power,
    "NFS server: there is none": shut_nfs,
}


@pytest.mark.parametrize("sentence", SHUT)
def test_machine_that_lacks_something_is_told_before_anything_is_done(flash, tegra, host, sentence):
    if shutil.which("exportfs") and "NFS" in sentence:
        pytest.skip("this machine has an NFS server")
    SHUT[sentence](host, tegra)
    checked = flash("--check")
    assert checked.returncode == 1
    assert f"FAIL  {sentence}" in checked.stdout
    assert log(tegra) == [f"overlay ship l4t {tegra} --board b --check"]
    refused = flash("--user", "jetson")
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert len(log(tegra)) == 1


def test_check_shows_all_gates_and_changes_nothing(flash, tegra):
    checked = flash("--check")
    assert checked.returncode == 0, checked.stdout
    names = [line.split(":")[0] for line in checked.stdout.splitlines()]
    assert names == [
        "PASS  binfmt", "PASS  USB autosuspend", "PASS  NFS server", "PASS  board in recovery mode"
    ]  # fmt: skip
    assert log(tegra) == [f"overlay ship l4t {tegra} --board b --check"]
    (tegra / "code").write_text("1")
    assert flash("--check").returncode == 1


def test_wrong_folder_is_one_sentence(deploy, run, tmp_path):
    result = run(deploy / "flash-l4t.sh", tmp_path, "--board", "b")
    assert result.returncode == 2
    assert "found no rootfs in it" in result.stderr
