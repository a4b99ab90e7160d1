"""`ship l4t` on a stand-in for Linux_for_Tegra: each gate shut in turn, and the undo."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_gru.cli import main
from edge_gru.errors import ShippingError
from edge_gru.shipping import Cargo, LinuxForTegra, Target, Workshop

TARGET = Target("3.10")


def shut_layout(tegra: Path) -> None:
    (tegra / "apply_binaries.sh").unlink()


def shut_drivers(tegra: Path) -> None:
    (tegra / "rootfs/etc/nv_tegra_release").unlink()


def shut_python(tegra: Path) -> None:
    (tegra / "rootfs/usr/bin/python3").unlink()
    (tegra / "rootfs/usr/bin/python3").symlink_to("python3.8")


def shut_user(tegra: Path) -> None:
    (tegra / "rootfs/etc/passwd").write_text("root:x:0:0::/root:/bin/bash\n")


def shut_wizard(tegra: Path) -> None:
    folder = tegra / "rootfs/etc/systemd/system"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "default.target").symlink_to("/lib/systemd/system/nv-oem-config.target")


def shut_board(tegra: Path) -> None:
    (tegra / "jetson-orin-nano-devkit.conf").rename(tegra / "jetson-other.conf")


def shut_file_system(tegra: Path) -> None:
    (tegra / "rootfs/usr/bin/sudo").chmod(0o755)


GATES = [
    (shut_layout, "Linux_for_Tegra: no apply_binaries.sh"),
    (shut_drivers, "sudo ./apply_binaries.sh"),
    (shut_python, "Python: 3.8; expected usr/bin/python3 to be one of 3.10"),
    (shut_user, "sudo ./tools/l4t_create_default_user.sh"),
    (shut_wizard, "first-boot wizard: starts, and waits for somebody before there is ssh"),
    (shut_board, "there is no jetson-orin-nano-devkit.conf; name one of jetson-other"),
    pytest.param(
        shut_file_system,
        "unpack with sudo tar, on ext4",
        marks=pytest.mark.skipif(
            os.geteuid() != 0, reason="only root makes a setuid program of root"
        ),
    ),
]


def snapshot(root: Path) -> dict[str, tuple]:
    return {
        str(path.relative_to(root)): (
            stat.S_IMODE(path.lstat().st_mode),
            str(path.readlink()) if path.is_symlink() else "",
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in root.rglob("*")
    }


@pytest.fixture
def call(tegra, small_wheels, source):
    """Call the verb."""
    wheels = small_wheels(TARGET)

    def run(*words: str, folder: Path = tegra):
        board = () if "--remove" in words else ("--board", "jetson-orin-nano-devkit")
        options = ("--wheels", str(wheels), "--source", str(source.root))
        return CliRunner().invoke(main, ["ship", "l4t", str(folder), *board, *options, *words])

    return run


@pytest.mark.parametrize(("shut", "sentence"), GATES)
def test_each_gate_stops_it_and_says_the_way_out(call, tegra, shut, sentence):
    shut(tegra)
    before = snapshot(tegra)
    refused = call()
    assert refused.exit_code == 2
    assert sentence in refused.output
    assert refused.output.strip().endswith("nothing was changed")
    checked = call("--check")
    assert checked.exit_code == 1
    assert [line for line in checked.output.splitlines() if line.startswith("FAIL")]
    assert snapshot(tegra) == before


def test_check_of_a_good_tree_passes_and_changes_nothing(call, tegra):
    before = snapshot(tegra)
    checked = call("--check")
    assert checked.exit_code == 0, checked.output
    assert "FAIL" not in checked.output
    assert snapshot(tegra) == before


def test_overlay_starts_with_the_board_and_registers_the_package(call, tegra):
    laid = call()
    assert laid.exit_code == 0, laid.output
    rootfs = tegra / "rootfs"
    wants = rootfs / "etc/systemd/system/multi-user.target.wants"
    for unit in ("edge-gru.service", "edge-gru-register.service"):
        target = str((wants / unit).readlink())
        assert (rootfs / target.lstrip("/")).is_file()
    assert (rootfs / "usr/bin/edge-gru").stat().st_mode & 0o777 == 0o755


def test_dpkg_of_the_board_takes_the_package_in(call, tegra):
    """dpkg itself reads the records; it is told to work on the rootfs, and runs nothing of it."""
    if shutil.which("dpkg") is None:
        pytest.skip("needs dpkg")
    database = tegra / "rootfs/var/lib/dpkg"
    for name in ("info", "updates", "triggers"):
        (database / name).mkdir(parents=True)
    (database / "status").write_text("")
    call()
    admin = f"--admindir={database}"
    told = subprocess.run(
        ["dpkg", admin, "--force-not-root", "--set-selections"],
        check=True, capture_output=True, input="edge-gru hold\n", text=True,
    )  # fmt: skip
    assert told.stderr == ""
    status = (database / "status").read_text()
    assert "Package: edge-gru\nStatus: hold ok unpacked\n" in status
    listed = subprocess.run(
        ["dpkg", admin, "--listfiles", "edge-gru"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert listed[0] == "/."
    assert "/usr/bin/edge-gru" in listed
    assert all((tegra / "rootfs" / path.lstrip("/")).exists() for path in listed)


def test_remove_restores_the_tree_byte_for_byte(call, tegra):
    before = snapshot(tegra)
    call()
    call()
    assert snapshot(tegra) != before
    assert call("--remove").exit_code == 0
    assert snapshot(tegra) == before
    assert call("--remove").output.startswith("0 files")
    assert call("--remove", "--dry-run").output.startswith("nothing of ours is in ")


def test_packages_travel_along_for_the_first_boot(call, tegra, tmp_path):
    debs = tmp_path / "debs"
    debs.mkdir()
    words = ("--with-debs", str(debs))
    assert "packages: there are none; name a folder of *_arm64.deb" in call(*words).output
    (debs / "libnvinfer10_10.3.0_arm64.deb").write_text("deb")
    before = snapshot(tegra)
    assert "PASS  packages: 1 for the first boot" in call(*words, "--check").output
    laid = call(*words)
    assert laid.exit_code == 0, laid.output
    sent = tegra / "rootfs/opt/edge-gru/debs/libnvinfer10_10.3.0_arm64.deb"
    assert sent.read_text() == "deb"
    call("--remove")
    assert snapshot(tegra) == before
    (debs / "libnvinfer10_10.3.0_amd64.deb").write_text("")
    assert "libnvinfer10_10.3.0_amd64.deb is for another" in call(*words).output


def test_dry_run_writes_nothing(call, tegra):
    before = snapshot(tegra)
    told = call("--dry-run")
    assert f"would write {tegra}/rootfs/usr/lib/systemd/system/edge-gru.service" in told.output
    assert snapshot(tegra) == before


def test_file_of_somebody_else_is_not_overwritten(call, tegra):
    (tegra / "rootfs/usr/bin/edge-gru").write_text("mine")
    refused = call()
    assert refused.exit_code == 2
    assert "rootfs has usr/bin/edge-gru already, and not from here" in refused.output


def test_link_out_of_the_rootfs_is_not_followed(tegra, small_wheels, source, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tegra / "rootfs/opt").symlink_to(outside)
    workshop = Workshop(source, Cargo(), small_wheels(TARGET))
    with workshop.open(TARGET) as stage, pytest.raises(ShippingError, match="out of rootfs"):
        LinuxForTegra(tegra).lay(stage, source)
    assert list(outside.iterdir()) == []


def test_damaged_record_is_one_sentence(call, tegra):
    call()
    (tegra / "edge-gru-overlay.json").write_text("{")
    refused = call("--remove")
    assert refused.exit_code == 2
    assert "is damaged" in refused.output
