"""The staging tree, and what is made of it: package and container; the same bytes each time."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from edge_gru.errors import EdgeGruError, ShippingError
from edge_gru.shipping import (
    Cargo,
    LinuxForTegra,
    Source,
    Target,
    Workshop,
    write_context,
    write_deb,
)

TARGET = Target("3.12")
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER = "3.12" if HERE == "3.13" else "3.13"


@pytest.fixture
def workshop(source, small_wheels):
    """Build with small wheels."""

    def make(cargo: Cargo | None = None, target: Target = TARGET, says: str = "small") -> Workshop:
        return Workshop(source, cargo or Cargo(), small_wheels(target, says))

    return make


def paths_in(package) -> set[str]:
    """List the files of a package, as dpkg sees them."""
    told = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(told.stdout)) as archive:
        return {member.name.removeprefix("./") for member in archive if not member.isdir()}


@pytest.fixture
def tool():
    def need(name: str) -> None:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed here")

    return need


def test_two_builds_have_the_same_bytes(workshop, cargo, source, tmp_path):
    shop = workshop(cargo())
    files = []
    for name in ("one", "two"):
        with shop.open(TARGET) as stage:
            package = write_deb(stage, source, tmp_path / name)
            layer = write_context(stage, source, tmp_path / name / "image")
        files.append([package.name, package.read_bytes(), [file.read_bytes() for file in layer]])
    assert files[0] == files[1]


def test_date_and_content_are_in_the_version(workshop, source, monkeypatch):
    versions = []
    for says, date_s in (("one", 0), ("two", 0), ("three", 60)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1767225600 + date_s))
        with workshop(says=says).open(TARGET) as stage:
            versions.append(stage.version)
    assert len(set(versions)) == 3
    assert versions[2] > max(versions[:2])


def test_all_four_ways_bring_the_same_files(workshop, cargo, source, tmp_path, tool, tegra):
    tool("dpkg-deb")
    target = Target("3.10")
    with workshop(cargo(), target).package(target) as (stage, package):
        staged = {path for path, _ in stage.tree}
        write_context(stage, source, tmp_path / "image")
        with tarfile.open(tmp_path / "image/edge-gru.tar") as layer:
            in_layer = {m.name.removeprefix("./") for m in layer if not m.isdir()}
        before = {str(p.relative_to(tegra / "rootfs")) for p in (tegra / "rootfs").rglob("*")}
        LinuxForTegra(tegra).lay(stage, source)
        laid = {
            str(path.relative_to(tegra / "rootfs"))
            for path in (tegra / "rootfs").rglob("*")
            if path.is_symlink() or path.is_file()
        } - before
        assert paths_in(package) == staged == in_layer
        assert {p for p in laid if p.startswith("usr/")} == staged


def test_package_has_owner_root_and_plain_modes(workshop, source, tmp_path, tool):
    tool("dpkg-deb")
    with workshop().open(TARGET) as stage:
        package = write_deb(stage, source, tmp_path)
    told = subprocess.run(["dpkg-deb", "-c", package], check=True, capture_output=True, text=True)
    rows = [line.split() for line in told.stdout.splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    assert {row[0] for row in rows} == {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}
    programs = {row[5] for row in rows if row[0] == "-rwxr-xr-x"}
    assert programs == {
        "./usr/bin/edge-gru",
        "./usr/lib/edge-gru/setup",
        "./usr/lib/edge-gru/precompile",
        "./usr/lib/edge-gru/compile",
        "./usr/lib/edge-gru/register",
    }


def test_package_asks_for_the_python_it_is_for_and_no_network(workshop, source, tmp_path, tool):
    tool("dpkg-deb")
    with workshop().open(TARGET) as stage:
        package = write_deb(stage, source, tmp_path)
    fields = subprocess.run(
        ["dpkg-deb", "-f", package], check=True, capture_output=True, text=True
    ).stdout
    assert "Architecture: arm64" in fields
    assert "python3 (>= 3.12~), python3 (<< 3.13~)" in fields
    scripts = "".join(
        (source.deploy / "debian" / name).read_text() for name in ("postinst", "prerm", "postrm")
    )
    assert not re.search(r"\b(pip|curl|wget|apt-get)\b", scripts)


@pytest.mark.parametrize(
    ("python", "out", "err"),
    [(HERE, "small\n", ""), (OTHER, "", f"installed for Python {OTHER}, and this is {HERE}")],
)
def test_command_runs_from_its_own_folder_on_its_own_python(
    workshop, source, tmp_path, python, out, err
):
    target = Target(python)
    with workshop(target=target).open(target) as stage:
        write_context(stage, source, tmp_path / "image")
    with tarfile.open(tmp_path / "image/edge-gru.tar") as layer:
        layer.extractall(tmp_path / "root", filter="data")
    launcher = tmp_path / "root/usr/bin/edge-gru"
    launcher.write_text(launcher.read_text().replace('"/usr/lib', f'"{tmp_path}/root/usr/lib'))
    told = subprocess.run([sys.executable, launcher], capture_output=True, text=True, check=False)
    assert told.stdout == out
    assert err in told.stderr


def test_build_host_packages_and_scripts_stay_on_the_host(workshop):
    with workshop().open(TARGET) as stage:
        paths = [path for path, _ in stage.tree]
    assert f"{TARGET.packages}/edge_gru/cli.py" in paths
    assert not [path for path in paths if "quantization" in path or "scripts" in path]


def test_model_and_key_travel_along(workshop, cargo):
    given = cargo(version=7)
    with workshop(given).open(TARGET) as stage:
        factory = {p: n.read() for p, n in stage.tree if p.startswith("usr/share/edge-gru/factory")}
    assert factory["usr/share/edge-gru/factory/model.egb"] == given.bundle.read_bytes()
    (key,) = (name for name in factory if name.endswith(".pub"))
    assert factory[key] == given.keys[0].read_bytes()
    assert given.sentence.startswith("tiny version 7, signed by ")


def test_unsigned_tampered_and_foreign_models_stay_here(workshop, cargo, tmp_path):
    given = cargo(boards=("jetson-a",))
    other = Cargo(given.bundle, given.keys, boards=("jetson-b",))
    with pytest.raises(EdgeGruError, match="is for jetson-a, this board is jetson-b"):
        workshop(other, says="a").gates()
    with pytest.raises(ShippingError, match="expected the public key"):
        workshop(Cargo(given.bundle), says="b").gates()
    data = bytearray(given.bundle.read_bytes())
    data[-1] ^= 1
    given.bundle.write_bytes(data)
    with pytest.raises(EdgeGruError, match=r"tiny\.egb"):
        workshop(given, says="c").gates()
    (tmp_path / "tiny.egb.minisig").unlink()
    with pytest.raises(EdgeGruError, match="is not signed"):
        workshop(given, says="d").gates()


def test_settings_are_read_before_they_travel(workshop, tmp_path):
    settings = tmp_path / "mine.toml"
    settings.write_text('store = "x"\nport = "y"\nbauds = 1\n')
    with (
        pytest.raises(EdgeGruError, match="did you mean 'baud'"),
        workshop(Cargo(settings=settings)).open(TARGET),
    ):
        pass


@pytest.mark.parametrize(
    ("port", "is_open"),
    [("/dev/ttyACM0", False), ("socket://10.0.0.7:4000", True), ("rfc2217://p:1", True)],
)
def test_unit_is_opened_to_the_network_where_the_settings_need_it(
    workshop, source, tmp_path, port, is_open
):
    settings = tmp_path / "mine.toml"
    settings.write_text(f'store = "x"\nport = "{port}"\n')
    with workshop(Cargo(settings=settings)).open(TARGET) as stage:
        paths = {path for path, _ in stage.tree}
    assert ("usr/lib/systemd/system/edge-gru.service.d/network.conf" in paths) is is_open
    assert "usr/share/edge-gru/network.conf" in paths


def test_sensor_gets_its_name_and_is_hidden_from_modem_manager(workshop):
    with workshop(Cargo(sensors={"A900WXPC": "edge-gru-sensor"})).open(TARGET) as stage:
        rule = stage.tree["usr/lib/udev/rules.d/62-edge-gru-sensor.rules"].read().decode()
    assert 'ENV{ID_SERIAL_SHORT}=="A900WXPC"' in rule
    assert 'ENV{ID_MM_DEVICE_IGNORE}="1", SYMLINK+="edge-gru-sensor"' in rule
    with (
        pytest.raises(ShippingError, match="expected a serial number and a name"),
        workshop(Cargo(sensors={'A"': "x"}), says="b").open(TARGET),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("../evil.py", "that is not in its folder"), ("/etc/passwd", "that is not in its folder")],
)
def test_wheel_that_reaches_out_is_refused(workshop, tmp_path, name, sentence):
    shop = workshop()
    with zipfile.ZipFile(shop.wheels / "evil-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ShippingError, match=sentence), shop.open(TARGET):
        pass


def test_damaged_wheel_and_wheels_for_another_board_are_refused(workshop):
    shop = workshop()
    with (
        pytest.raises(ShippingError, match=r"are for Python 3\.12 on aarch64, the board has 3\.10"),
        shop.open(Target("3.10")),
    ):
        pass
    (shop.wheels / "helper-1.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(ShippingError, match=r"helper.*is damaged"), shop.open(TARGET):
        pass


@pytest.mark.parametrize(
    ("python", "arch", "sentence"),
    [("3.8", "aarch64", "expected Python 3.10"), ("3.10", "mips", "expected the architecture")],
)
def test_unknown_boards_are_refused(python, arch, sentence):
    with pytest.raises(ShippingError, match=sentence):
        Target(python, arch)


def test_tree_that_is_not_the_source_is_refused(tmp_path):
    with pytest.raises(ShippingError, match="name it with --source"):
        Source(tmp_path)
