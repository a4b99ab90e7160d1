"""The unit, the udev rules and the example of the settings, each read by the program it is for."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from edge_gru.cli.bundle import STORE
from edge_gru.service.build_unit import FILE_VARIABLE
from edge_gru.service.config import RunConfig, make_config, read_settings

PROGRAMS = (
    "/usr/bin/edge-gru",
    "/usr/lib/edge-gru/setup",
    "/usr/lib/edge-gru/compile",
    "/usr/lib/edge-gru/register",
)
# systemd's own score; what opens the others: the setup makes users, the registration runs dpkg.
MAX_EXPOSURE = {
    "edge-gru": 3.0,
    "edge-gru-compile": 4.0,
    "edge-gru-setup": 4.0,
    "edge-gru-register": 4.0,
}
OF_THE_BOARD = ("device", "health_file")  # defaults that its name, and systemd, give


def read_unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, comment_prefixes="#")
    unit.optionxform = str
    unit.read(path)
    return unit


def test_every_unit_is_rated(deploy):
    assert {path.stem for path in (deploy / "systemd").iterdir()} == set(MAX_EXPOSURE)


def test_units_verify(deploy, tool, run, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = []
    for path in (deploy / "systemd").iterdir():
        text = path.read_text()
        for name in PROGRAMS:
            text = text.replace(name, str(program))
        units.append(tmp_path / path.name)
        units[-1].write_text(text)
    result = run(tool("systemd-analyze"), "verify", "--man=no", *units)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", MAX_EXPOSURE)
def test_unit_exposure_is_low(deploy, tool, run, name):
    unit = deploy / f"systemd/{name}.service"
    result = run(tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit)
    found = re.search(rf"Overall exposure level for {name}.service: ([\d.]+)", result.stdout)
    assert found, result.stdout + result.stderr
    assert float(found[1]) <= MAX_EXPOSURE[name]


def test_unit_that_is_opened_to_the_network_is_rated_too(deploy, tool, run, tmp_path):
    opened = tmp_path / "edge-gru.service"
    text = (deploy / "systemd/edge-gru.service").read_text()
    opening = (deploy / "network.conf").read_text()
    opened.write_text(f"{text}\n{opening}")
    told = run(tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", opened)
    closed = run(
        tool("systemd-analyze"), "security", "--offline=yes", "--no-pager",
        deploy / "systemd/edge-gru.service",
    )  # fmt: skip
    scores = [re.search(r"edge-gru.service: ([\d.]+)", t.stdout)[1] for t in (closed, told)]
    assert float(scores[0]) < float(scores[1]) <= MAX_EXPOSURE["edge-gru"]


def test_unit_is_closed_to_the_network_until_somebody_opens_it(deploy):
    service = read_unit(deploy / "systemd/edge-gru.service")["Service"]
    assert service["RestrictAddressFamilies"] == "AF_UNIX"
    assert service["IPAddressDeny"] == "any"
    opening = read_unit(deploy / "network.conf")["Service"]
    assert opening["RestrictAddressFamilies"].split() == ["AF_INET", "AF_INET6"]
    assert opening["IPAddressAllow"] == "any"


def test_memory_is_bounded_by_the_board_and_a_build_goes_first(deploy):
    service = read_unit(deploy / "systemd/edge-gru.service")["Service"]
    build = read_unit(deploy / "systemd/edge-gru-compile.service")["Service"]
    assert service["MemoryMax"].endswith("%")
    assert build["MemoryMax"].endswith("%")
    assert int(build["OOMScoreAdjust"]) > 0
    assert "OOMScoreAdjust" not in service


def test_unit_runs_the_settings_that_are_put_there(deploy):
    service = read_unit(deploy / "systemd/edge-gru.service")["Service"]
    program, verb, config = service["ExecStart"].split()
    assert (program, verb) == ("/usr/bin/edge-gru", "run")
    assert f"C {config} 0644 root root" in (deploy / "tmpfiles.d/edge-gru.conf").read_text()


def test_settings_serve_the_store_that_updates_go_to(deploy):
    settings = read_settings(deploy / "edge-gru.toml.example")
    assert Path(settings["store"]) == STORE
    assert f"d {STORE} 0755 edge-gru edge-gru" in (deploy / "tmpfiles.d/edge-gru.conf").read_text()


def test_service_predicts_while_engines_are_compiled(deploy):
    unit = read_unit(deploy / "systemd/edge-gru.service")["Unit"]
    assert "edge-gru-compile.service" in unit["Wants"]
    assert "edge-gru-compile.service" not in unit["After"]


def test_service_and_compiler_share_a_folder_in_which_one_waits_for_the_other(deploy):
    service = read_unit(deploy / "systemd/edge-gru.service")["Service"]
    build = read_unit(deploy / "systemd/edge-gru-compile.service")["Service"]
    said = re.search(r"^FILE=(.+)$", (deploy / "bin/compile").read_text(), re.MULTILINE)[1]
    assert f"{FILE_VARIABLE}={said}" in service["Environment"].split()
    for name in ("User", "RuntimeDirectory", "RuntimeDirectoryMode", "CacheDirectory"):
        assert service[name] == build[name]
    assert Path(said).parent == Path("/run") / build["RuntimeDirectory"]
    assert build["RuntimeDirectoryPreserve"] == "yes"


def test_board_without_tensorrt_compiles_nothing_and_fails_not(deploy):
    service = read_unit(deploy / "systemd/edge-gru-compile.service")["Service"]
    assert service["ExecCondition"] == '/usr/bin/python3 -c "import tensorrt"'
    assert service["User"] == "edge-gru"


def test_unit_is_restarted_for_ever_and_watched(deploy):
    unit = read_unit(deploy / "systemd/edge-gru.service")
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["WatchdogSec"] == "20s"
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize("closes_devices", ["PrivateDevices", "ProtectClock", "DevicePolicy"])
def test_unit_leaves_device_nodes_open(deploy, closes_devices):
    assert closes_devices not in read_unit(deploy / "systemd/edge-gru.service")["Service"]


@pytest.mark.parametrize("waits_for", ["time-sync.target", "network-online.target", "dev-"])
def test_unit_waits_for_neither_clock_nor_network_nor_sensor(deploy, waits_for):
    unit = read_unit(deploy / "systemd/edge-gru.service")["Unit"]
    assert waits_for not in unit["After"]
    assert waits_for not in unit["Wants"]
    assert {"Requires", "BindsTo"}.isdisjoint(unit)


def test_groups_of_the_unit_are_made_by_sysusers(deploy):
    service = read_unit(deploy / "systemd/edge-gru.service")["Service"]
    lines = (deploy / "sysusers.d/edge-gru.conf").read_text().splitlines()
    members = [line.split()[1:] for line in lines if line.startswith("m ")]
    assert members == [[service["User"], group] for group in service["SupplementaryGroups"].split()]


def test_sysusers_makes_the_user(deploy, tool, run, tmp_path):
    (tmp_path / "etc").mkdir()
    users = deploy / "sysusers.d/edge-gru.conf"
    result = run(tool("systemd-sysusers"), f"--root={tmp_path}", users)
    assert result.returncode == 0, result.stderr
    assert "edge-gru:" in (tmp_path / "etc/passwd").read_text()
    assert "dialout:x:" in (tmp_path / "etc/group").read_text()


def test_settings_and_keys_on_the_board_are_never_overwritten(deploy, tool, run, tmp_path):
    """A key that was taken away stays away, and so does what somebody has changed."""
    factory, etc = tmp_path / "usr/share/edge-gru/factory", tmp_path / "etc/edge-gru"
    (factory / "keys").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    for name in ("edge-gru.toml", "keys/README", "keys/old.pub", "keys/new.pub"):
        (factory / name).write_text("of the package")
    run(tool("systemd-sysusers"), f"--root={tmp_path}", deploy / "sysusers.d/edge-gru.conf")
    make = (tool("systemd-tmpfiles"), "--create", f"--root={tmp_path}")
    for _ in range(2):
        made = run(*make, deploy / "tmpfiles.d/edge-gru.conf")
        assert made.returncode == 0, made.stderr
        (etc / "keys/old.pub").unlink(missing_ok=True)
        (etc / "edge-gru.toml").write_text("mine")
    run(*make, deploy / "tmpfiles.d/edge-gru.conf")
    assert sorted(path.name for path in (etc / "keys").iterdir()) == ["README", "new.pub"]
    assert (etc / "edge-gru.toml").read_text() == "mine"
    assert (factory / "keys/old.pub").exists()


def test_udev_rules_verify(deploy, tool, run):
    udevadm = tool("udevadm")
    if "verify" not in run(udevadm, "--help").stdout:
        pytest.skip("this udevadm is older than 254 and has no verify")
    result = run(udevadm, "verify", deploy / "udev/61-edge-gru-serial.rules")
    assert result.returncode == 0, result.stdout + result.stderr


def test_udev_rules_jump_to_a_label_that_is_there(deploy):
    text = (deploy / "udev/61-edge-gru-serial.rules").read_text()
    assert set(re.findall(r'GOTO="(\w+)"', text)) == set(re.findall(r'LABEL="(\w+)"', text))


def test_udev_rules_come_between_serial_names_and_modem_manager(deploy):
    (rules,) = (deploy / "udev").iterdir()
    assert "60-serial.rules" < rules.name < "77-mm-usb-device-blacklist.rules"


def test_example_config_is_valid_and_waits_for_its_sensor(deploy):
    path = deploy / "edge-gru.toml.example"
    config = make_config(read_settings(path), origin=str(path))
    assert config.wait_for_port
    assert config.store == str(STORE)


def test_example_config_shows_every_setting_and_its_default(deploy, tmp_path):
    text = (deploy / "edge-gru.toml.example").read_text()
    keys = re.findall(r"^#?(\w+) = ", text, flags=re.MULTILINE)
    assert sorted(keys) == sorted(RunConfig.__struct_fields__)
    text = text.replace("#bundle = ", "# bundle = ")  # in the place of store
    everything = tmp_path / "all.toml"
    everything.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    config = make_config(read_settings(everything))
    plain = RunConfig(store=config.store, port=config.port)
    for key in re.findall(r"^#(\w+) = ", text, flags=re.MULTILINE):
        default = getattr(plain, key)
        assert default is None or key in OF_THE_BOARD or getattr(config, key) == default


SCRIPTS = [
    "flash-l4t.sh",
    "bin/setup",
    "bin/precompile",
    "bin/compile",
    "bin/register",
    "container/start",
    "debian/postinst",
    "debian/prerm",
]


@pytest.mark.parametrize("script", [*SCRIPTS, "debian/postrm"])
def test_script_is_clean_shell(deploy, tool, run, script):
    result = run(tool("shellcheck"), deploy / script)
    assert result.returncode == 0, result.stdout


def test_plans_and_choices_have_a_folder_that_is_the_services_alone(deploy: Path) -> None:
    service = read_unit(deploy / "systemd/edge-gru.service")["Service"]
    assert (service["CacheDirectory"], service["CacheDirectoryMode"]) == ("edge-gru", "0700")
