"""What install.sh leaves on a staged board: after each run, after a power cut, after its undo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CONFIG = "etc/edge-gru/edge-gru.toml"
UNIT = "etc/systemd/system/edge-gru.service"
ENABLED = "etc/systemd/system/multi-user.target.wants/edge-gru.service"
RULES = "etc/udev/rules.d/61-edge-gru-serial.rules"
USERS = "etc/sysusers.d/edge-gru.conf"
COMMAND = "usr/local/bin/edge-gru"
VENV = "opt/edge-gru/venv"


def tree(root: Path) -> dict[str, tuple]:
    """Return every name under ``root`` with what tells whether it was written again."""
    return {
        str(path.relative_to(root)): (info.st_ino, info.st_mtime_ns * path.is_file())
        for path in root.rglob("*")
        for info in [path.lstat()]
    }


def outside_venv(root: Path) -> set[str]:
    return {
        name
        for name in tree(root)
        if not name.startswith("opt/edge-gru/venv-")
        and ((root / name).is_symlink() or (root / name).is_file())
    }


def test_install_puts_every_file_in_its_place(install, root, small_wheels, deploy, run):
    result = install(small_wheels())
    assert result.returncode == 0, result.stderr
    assert outside_venv(root) == {CONFIG, UNIT, ENABLED, RULES, USERS, COMMAND, VENV}
    assert (root / UNIT).read_bytes() == (deploy / "systemd/edge-gru.service").read_bytes()
    assert (root / CONFIG).read_bytes() == (deploy / "edge-gru.toml.example").read_bytes()
    assert (root / COMMAND).readlink() == Path(f"/{VENV}/bin/edge-gru")
    assert run(root / VENV / "bin/edge-gru").returncode == 0
    assert "include-system-site-packages = true" in (root / VENV / "pyvenv.cfg").read_text()


def test_second_install_changes_nothing(install, root, small_wheels):
    wheels = small_wheels()
    install(wheels)
    before = tree(root)
    result = install(wheels)
    assert result.returncode == 0, result.stderr
    assert tree(root) == before


def test_install_keeps_the_config_that_is_there(install, root, small_wheels):
    (root / CONFIG).parent.mkdir(parents=True)
    (root / CONFIG).write_text("mine\n")
    assert install(small_wheels()).returncode == 0
    assert (root / CONFIG).read_text() == "mine\n"


def test_service_may_read_what_a_careful_root_installs(install, root, small_wheels):
    result = install(small_wheels(), umask=0o077)
    assert result.returncode == 0, result.stderr
    (package,) = (root / VENV).resolve().glob("lib/python*/site-packages/edge_gru.py")
    readable = [root / CONFIG, package, root / VENV / "bin/edge-gru"]
    searchable = [(root / CONFIG).parent, (root / VENV).resolve(), package.parent]
    assert all(path.stat().st_mode & 0o004 for path in readable)
    assert all(path.stat().st_mode & 0o001 for path in searchable)


def test_venv_holds_its_own_copy_of_what_the_system_has_too(install, root, small_wheels):
    wheels = small_wheels(requires=("pip",))
    assert install(wheels).returncode == 0
    assert list((root / VENV).glob("lib/python*/site-packages/pip/__init__.py"))


def test_update_replaces_the_venv_and_drops_the_old_one(install, root, small_wheels, run):
    install(small_wheels("1.0", "print('old')"))
    result = install(small_wheels("1.1", "print('new')"))
    assert result.returncode == 0, result.stderr
    assert run(root / VENV / "bin/edge-gru").stdout == "new\n"
    assert len(list((root / "opt/edge-gru").glob("venv-*"))) == 1


def test_update_that_does_not_start_leaves_the_old_one_serving(install, root, small_wheels, run):
    install(small_wheels("1.0", "print('old')"))
    result = install(small_wheels("1.1", "raise SystemExit(1)"))
    assert result.returncode == 2
    assert "does not start" in result.stderr
    assert run(root / VENV / "bin/edge-gru").stdout == "old\n"


def test_install_completes_what_a_power_cut_left(install, root, small_wheels, run):
    wheels = small_wheels(body="print('whole')")
    install(wheels)
    (root / VENV / "bin/edge-gru").write_bytes(b"\0" * 100)
    left_over = root / VENV / "bin/half-written"
    left_over.write_bytes(b"\0")
    for name in (VENV, ENABLED, RULES):
        (root / name).unlink()
    (root / f"{RULES}.new").write_bytes(b"\0")
    result = install(wheels)
    assert result.returncode == 0, result.stderr
    assert run(root / VENV / "bin/edge-gru").stdout == "whole\n"
    assert not left_over.exists()
    assert outside_venv(root) == {CONFIG, UNIT, ENABLED, RULES, USERS, COMMAND, VENV}


def test_uninstall_leaves_config_and_data_and_purge_leaves_nothing(install, root, small_wheels):
    before = set(tree(root))
    install(small_wheels())
    (root / "var/lib/edge-gru/predictions.jsonl").write_text("{}\n")
    assert install("--uninstall").returncode == 0
    assert set(tree(root)) - before == {
        "etc/edge-gru",
        "etc/edge-gru/keys",
        CONFIG,
        "var/lib/edge-gru",
        "var/lib/edge-gru/predictions.jsonl",
    }
    assert install("--uninstall", "--purge").returncode == 0
    assert set(tree(root)) == before


def test_uninstall_of_nothing_is_no_error(install, root):
    before = tree(root)
    assert install("--uninstall", "--purge").returncode == 0
    assert tree(root) == before


def test_command_of_somebody_else_is_left_alone(install, root, small_wheels):
    (root / COMMAND).symlink_to("/home/me/.local/bin/edge-gru")
    before = tree(root)
    result = install(small_wheels())
    assert result.returncode == 2
    assert "belongs to something else" in result.stderr
    install("--uninstall")
    assert tree(root) == before


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ({"arch": "riscv64"}, "the wheels are for riscv64 and this is "),
        ({"python": "3.1"}, "the wheels are for Python 3.1 and "),
    ],
)
def test_wheels_for_another_board_are_refused(install, root, small_wheels, target, sentence):
    before = tree(root)
    result = install(small_wheels(**target))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert tree(root) == before


def test_damaged_wheels_are_refused(install, root, small_wheels):
    wheels = small_wheels()
    with (wheels / "edge_gru-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"\0")
    result = install(wheels)
    assert result.returncode == 2
    assert "copy the folder again" in result.stderr
    assert not (root / "opt/edge-gru").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected the folder that wheels.sh made"),
        (["/nowhere"], "expected a folder made by wheels.sh, got '/nowhere'"),
        (["--purge", "/nowhere"], "--purge goes with --uninstall"),
        (["--frobnicate"], "unknown option --frobnicate"),
        (["--root", "/nowhere", "x"], "expected --root to be a folder, got /nowhere"),
    ],
)
def test_wrong_call_is_one_sentence(install, arguments, sentence):
    result = install(*arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_install_on_the_board_itself_asks_for_root(deploy, run, tool):
    is_root = os.geteuid() == 0
    nobody = [tool("setpriv"), "--reuid=65534", "--clear-groups"] if is_root else []
    if run(*nobody, "test", "-r", deploy / "install.sh").returncode != 0:
        pytest.skip("this source tree cannot be read by an ordinary user")
    result = run(*nobody, "bash", deploy / "install.sh", "wheels")
    assert result.returncode == 2
    assert "expected to run as root; use: sudo" in result.stderr
