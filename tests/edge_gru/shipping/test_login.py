"""User, host name and ssh keys of deploy.toml: what they change in a rootfs, and the undo."""

from __future__ import annotations

import json
import stat
import subprocess

import pytest
from click.testing import CliRunner

from edge_gru.cli import main
from edge_gru.errors import ConfigError, ShippingError
from edge_gru.shipping import LinuxForTegra, Target, read_deploy_settings
from edge_gru.shipping.login import Login, people
from edge_gru.shipping.rootfs_edits import edits_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFdY2eMHxaT5fgEGL1IAT8Yzu5QAXw7dp6pYDjUe5a9P me@host"


def snapshot(root) -> dict[str, tuple]:
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.lstat().st_gid,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in root.rglob("*")
    }


@pytest.fixture
def deploy_toml(tmp_path):
    """Write deploy.toml and a key beside it."""
    (tmp_path / "me.pub").write_text(f"# of the workshop\n{KEY}\n")

    def write(text: str = 'user = "jetson"\nhostname = "pump-4"\nssh_keys = ["me.pub"]\n'):
        file = tmp_path / "deploy.toml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def call(tegra, small_wheels, source, deploy_toml):
    wheels = small_wheels(Target("3.10"))
    file = deploy_toml()

    def run(*words: str):
        options = ("--wheels", str(wheels), "--source", str(source.root), "--deploy", str(file))
        return CliRunner().invoke(main, ["ship", "l4t", str(tegra), *options, *words])

    return run


def test_owner_gets_in_and_the_board_knows_its_name(call, tegra):
    rootfs = tegra / "rootfs"
    laid = call()
    assert laid.exit_code == 0, laid.output
    keys = rootfs / "home/jetson/.ssh/authorized_keys"
    assert keys.read_text() == f"{KEY}\n"
    assert (stat.S_IMODE(keys.stat().st_mode), stat.S_IMODE(keys.parent.stat().st_mode)) == (
        0o600,
        0o700,
    )
    (owner,) = people(rootfs)
    for path in (keys, keys.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (owner.uid, owner.gid)
    assert (rootfs / "etc/hostname").read_text() == "pump-4\n"
    assert (rootfs / "etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tpump-4\n"
    assert f"changed: {keys}" in laid.output


def test_remove_puts_back_what_was_changed(call, tegra):
    keys = tegra / "rootfs/home/jetson/.ssh/authorized_keys"
    for present in (None, "ssh-rsa of somebody"):
        if present is not None:
            keys.parent.mkdir(mode=0o755)
            keys.write_text(present)
            keys.chmod(0o640)
        before = snapshot(tegra)
        call()
        call()
        assert KEY in keys.read_text()
        assert present is None or keys.read_text().startswith(f"{present}\n")
        assert snapshot(tegra) != before
        assert call("--remove").exit_code == 0
        assert snapshot(tegra) == before


def test_dry_run_and_check_tell_and_change_nothing(call, tegra):
    before = snapshot(tegra)
    told = call("--dry-run").output
    for name in ("etc/hostname", "etc/hosts", "home/jetson/.ssh/authorized_keys"):
        assert f"would change {tegra}/rootfs/{name}" in told
    plan = json.loads(call("--dry-run", "--json").output)
    assert f"{tegra}/rootfs/etc/hostname" in plan["changes"]
    assert f"{tegra}/rootfs/usr/bin/edge-gru" in plan["writes"]
    assert "PASS  ssh keys: 1, for the rootfs of a flash" in call("--check").output
    gates = json.loads(call("--check", "--json").output)
    assert gates["passed"]
    assert {"name": "ssh keys", "is_passed": True} in [
        {name: gate[name] for name in ("name", "is_passed")} for gate in gates["gates"]
    ]
    assert snapshot(tegra) == before


def test_dry_run_of_the_undo_undoes_nothing(call, tegra):
    call()
    laid = snapshot(tegra)
    told = call("--remove", "--dry-run").output.splitlines()
    assert f"would take out {tegra}/rootfs/usr/bin/edge-gru" in told
    assert f"would take out {tegra}/rootfs/etc/hostname" in told
    plan = json.loads(call("--remove", "--dry-run", "--json").output)
    assert len(plan["removes"]) == len(told)
    assert "expected --check or --remove, got both" in call("--remove", "--check").output
    assert snapshot(tegra) == laid


def test_another_user_than_that_of_the_rootfs_is_a_closed_gate(call, tegra, deploy_toml):
    deploy_toml('user = "anna"\nhostname = "pump-4"\n')
    refused = call()
    assert refused.exit_code == 2
    assert "default user: jetson, and not anna as in deploy.toml" in refused.output
    assert "l4t_create_default_user.sh -u anna -p PASSWORD -n pump-4" in refused.output
    checked = call("--check", "--json")
    assert checked.exit_code == 1
    assert not json.loads(checked.output)["passed"]


def test_power_mode_is_told_and_left_to_the_board(call, deploy_toml):
    deploy_toml("power_mode = 0\n")
    assert "power mode, once, on the board: sudo nvpmodel -m 0" in call().output


def test_home_that_is_a_link_out_is_not_followed(call, tegra, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    home = tegra / "rootfs/home/jetson"
    home.rmdir()
    home.symlink_to(outside)
    refused = call()
    assert refused.exit_code == 2
    assert "to be a folder of the rootfs" in refused.output
    assert list(outside.iterdir()) == []


def test_keys_that_are_a_link_are_not_followed(call, tegra, tmp_path):
    other = tmp_path / "other"
    other.write_text("")
    (tegra / "rootfs/home/jetson/.ssh").mkdir()
    (tegra / "rootfs/home/jetson/.ssh/authorized_keys").symlink_to(other)
    assert "no link" in call().output
    assert other.read_text() == ""


def test_host_name_comes_into_hosts_that_have_none(tegra):
    (tegra / "rootfs/etc/hosts").unlink()
    edits = edits_of(Login(hostname="p"), tegra / "rootfs")
    assert edits["etc/hosts"].content == b"127.0.1.1\tp\n"


def test_keys_for_nobody_are_refused(tegra, deploy_toml):
    login = read_deploy_settings(deploy_toml()).login
    (tegra / "rootfs/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    with pytest.raises(ShippingError, match="expected a user jetson in rootfs for the ssh keys"):
        LinuxForTegra(tegra, login=login).changes()


def test_without_a_user_the_keys_are_for_the_first_person(tegra, deploy_toml):
    login = read_deploy_settings(deploy_toml('ssh_keys = ["me.pub", "me.pub"]\n')).login
    edits = edits_of(login, tegra / "rootfs")
    assert edits["home/jetson/.ssh/authorized_keys"].content == f"{KEY}\n".encode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('user = "Anna"', "expected a user such as jetson .* got 'Anna'"),
        ('user = "root:x"', "expected a user such as jetson"),
        ('hostname = "pump_4"', "expected a hostname such as pump-4 .* got 'pump_4'"),
        ('hostname = "-a"', "expected a hostname"),
        (f'hostname = "{"a" * 64}"', "expected a hostname"),
        ("power_mode = -1", "power_mode"),
        ('power_mode = "MAXN"', "power_mode"),
        ('ssh_keys = "me.pub"', "ssh_keys"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(deploy_toml, text, sentence):
    with pytest.raises(ConfigError, match=rf"deploy\.toml: .*{sentence}"):
        read_deploy_settings(deploy_toml(text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n", "is a secret ssh key, which must not leave"),
        ("", "got nothing"),
        ("hello\n", "got 'hello'"),
        (f'command="/bin/true" {KEY}\n', "one a line such as 'ssh-ed25519 AAAA... you'"),
        ("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIFdY\n", "expected public ssh keys"),
        ("ssh-ed25519 AAAA\n", "expected public ssh keys"),
        ("my-key AAAABm15LWtleQ==\n", "expected public ssh keys"),
    ],
)
def test_files_that_hold_no_public_keys_are_refused(tmp_path, text, sentence):
    file = tmp_path / "id"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        Login(ssh_keys=(file,)).key_lines()


def test_key_file_that_is_absent_or_binary_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*No such file"):
        Login(ssh_keys=(tmp_path / "absent",)).key_lines()
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="got other bytes"):
        Login(ssh_keys=(tmp_path / "b",)).key_lines()


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_of_ssh_keygen_are_taken(tmp_path, kind):
    file = tmp_path / "id"
    try:
        made = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(file)]
        subprocess.run(made, check=True)
    except FileNotFoundError:
        pytest.skip("needs ssh-keygen")
    public = file.with_suffix(".pub")
    assert Login(ssh_keys=(public,)).key_lines() == [public.read_text().strip()]
    with pytest.raises(ConfigError, match=f"name {file}.pub"):
        Login(ssh_keys=(file,)).key_lines()


def test_key_that_is_there_already_is_not_written_twice(tegra, deploy_toml):
    login = read_deploy_settings(deploy_toml()).login
    folder = tegra / "rootfs/home/jetson/.ssh"
    folder.mkdir()
    (folder / "authorized_keys").write_text(f"{KEY}\n")
    edits = edits_of(login, tegra / "rootfs")
    assert edits["home/jetson/.ssh/authorized_keys"].content == f"{KEY}\n".encode()
