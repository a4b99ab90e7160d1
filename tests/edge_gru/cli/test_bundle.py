from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from edge_gru.bundle import load
from edge_gru.cli import bundle as bundle_module  # noqa: F401 - imported before processes start
from edge_gru.cli import keys as keys_module  # noqa: F401
from edge_gru.cli import run as run_module  # noqa: F401
from edge_gru.errors import ConfigError
from edge_gru.signing import KdfLimits

pytest.importorskip("cryptography", reason="signatures need the extra `signed`")

MAIN = "from edge_gru.cli import main; main(prog_name='edge-gru')"


@pytest.fixture
def done(call):
    """Call a verb that must succeed; its stdout."""

    def invoke(*arguments: object) -> str:
        result = call(*arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return invoke


@pytest.fixture
def refused(call):
    """Call a verb that must be refused in one sentence; that sentence."""

    def invoke(*arguments: object) -> str:
        result = call(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr.splitlines()[-1]

    return invoke


@pytest.fixture
def released(done, pack, schema, tmp_path):
    """Make a signed release n of the tiny model; return its file."""
    secret, public = tmp_path / "k.key", tmp_path / "k.pub"
    done("keys", "generate", "-W", "-s", secret, "-p", public)

    def make(version: int, *options: object):
        file = pack(schema, seed=version).save(tmp_path / f"tiny-{version}.egb")
        done("keys", "sign", file, "-s", secret, "--version", version, *options)
        return file

    make.public = public
    make.secret = secret
    return make


@pytest.fixture
def where(released, tmp_path):
    return ("--store", tmp_path / "bundles", "--keys", released.public)


def listed(done, where) -> dict:
    return json.loads(done("bundle", "list", *where[:2], "--json"))


def test_without_a_terminal_no_password_is_asked_for(refused, tmp_path):
    files = ("-s", tmp_path / "a.key", "-p", tmp_path / "a.pub")
    assert "use --password-file" in refused("keys", "generate", *files)
    assert list(tmp_path.iterdir()) == []


def test_where_no_key_can_be_made_no_password_is_asked_for(refused, tmp_path, monkeypatch):
    def none():
        raise ConfigError("no cryptography here; install it")

    monkeypatch.setattr("edge_gru.cli.keys.SecretKey.generate", none)
    assert "no cryptography" in refused("keys", "generate", "-s", tmp_path / "a.key")


def test_keys_are_made_shown_and_kept_secret(done, refused, released):
    assert stat.S_IMODE(released.secret.stat().st_mode) == 0o600
    shown = json.loads(done("keys", "show", released.public, "--json"))
    assert shown["kind"] == "public key"
    assert shown["line"] in released.public.read_text()
    sentence = refused("keys", "generate", "-W", "-s", released.secret, "-p", released.public)
    assert "k.pub exists; move it away" in sentence


def test_secret_key_in_the_place_of_the_public_one_is_told(done, refused, released, where):
    said = refused("bundle", "install", released(1), *where[:2], "--keys", released.secret)
    assert f"{released.secret}: this is a secret key, which belongs to who signs" in said
    said = refused("keys", "verify", released(1), "-p", released.secret)
    assert "name the public one" in said
    shown = json.loads(done("keys", "show", released.secret, "--json"))
    assert shown == {"file": str(released.secret), "kind": "secret key", "hidden": "no password"}
    said = refused("keys", "sign", released(1), "-s", released.public, "--version", 2)
    assert f"expected a secret key in {released.public}, got something else" in said


def test_secret_key_that_others_can_read_is_warned_of(call, released, bundle_path):
    sign = ("keys", "sign", bundle_path, "-s", released.secret, "--version", 1)
    assert "others can read" not in call(*sign).stderr
    released.secret.chmod(0o644)
    result = call(*sign)
    assert result.exit_code == 0
    assert f"others can read {released.secret}; close it: chmod 600" in result.stderr


def test_key_that_is_taken_away_signs_nothing_any_more(done, refused, released, where, tmp_path):
    """Keys are rotated by two files in the folder, then one; what serves goes on to."""
    folder, secret = tmp_path / "keys", tmp_path / "new.key"
    folder.mkdir()
    old = folder / "old.pub"
    old.write_text(released.public.read_text())
    done("keys", "generate", "-W", "-s", secret, "-p", folder / "new.pub")
    keys = (*where[:2], "--keys", folder)
    done("bundle", "install", released(1), *keys)
    old.unlink()
    assert "which is not trusted here" in refused("bundle", "install", released(2), *keys)
    assert listed(done, where)["current"].startswith("tiny-1-")
    assert "serves already" not in refused("bundle", "install", released(1), *keys)
    file = released(3)
    done("keys", "sign", file, "-s", secret, "--version", 3)
    assert "version 3 serves" in done("bundle", "install", file, *keys)
    old.write_text("not a key")
    said = refused("bundle", "install", file, *keys)
    assert f"{old}: expected a public key" in said


def test_signature_is_verified_and_shown(done, refused, released):
    file = released(3, "--board", "press-4", "--board", "x86_64")
    assert "signed by" in done("keys", "verify", file, "-p", released.public)
    shown = json.loads(done("keys", "show", f"{file}.minisig", "--json"))
    assert "name:tiny\tversion:3\tboard:press-4,x86_64" in shown["comment"]
    file.write_bytes(file.read_bytes()[:-1])
    assert "changed after signing" in refused("keys", "verify", file, "-p", released.public)


def test_key_behind_a_password_signs_with_it_alone(
    done, refused, tmp_path, bundle_path, monkeypatch
):
    monkeypatch.setattr(
        "edge_gru.signing.keys.KdfLimits", lambda *given: KdfLimits(*given or (1 << 15, 1 << 24))
    )
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("word\n")
    wrong.write_text("other\n")
    files = ("-s", tmp_path / "p.key", "-p", tmp_path / "p.pub")
    done("keys", "generate", *files, "--password-file", right)
    sign = ("keys", "sign", bundle_path, *files[:2], "--version", 1, "--password-file")
    assert "the password does not open" in refused(*sign, wrong)
    assert "version 1 for any" in done(*sign, right)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--version", 0], "expected a version from 1"),
        (["--version", 1, "--board", "a b"], "expected names of boards without spaces"),
        (["--version", 1, "--continues", "/absent.egb"], "cannot read bundle /absent.egb"),
        (["--version", 1, "-s", "/absent.key"], "cannot read /absent.key"),
    ],
)
def test_what_cannot_be_signed_is_told(refused, released, bundle_path, options, sentence):
    said = refused("keys", "sign", bundle_path, "-s", released.secret, *options)
    assert sentence in said
    assert not bundle_path.with_name("tiny.egb.minisig").exists()


def test_install_list_confirm_and_rollback(done, refused, released, where, tmp_path):
    assert "tiny version 1 serves from now on\n" in done("bundle", "install", released(1), *where)
    said = done("bundle", "install", released(2), *where, "--trial", 30, "--starts", 2)
    assert said.endswith("on trial for 30 s of good service in 2 starts\n")
    facts = json.loads(done("bundle", "install", released(2), *where, "--json"))
    assert (facts["is_new"], facts["version"], facts["trial"]["duration_s"]) == (False, 2, 30)
    table = done("bundle", "list", *where[:2])
    assert "trial: 0 of 30 s, 2 of 2 starts left" in table
    assert "tiny version 2 stays" in done("bundle", "confirm", *where[:2])
    assert listed(done, where)["trial"] is None
    said = done("bundle", "rollback", *where[:2], "--reason", "too loud")
    assert said == "tiny version 1 serves again\n"
    assert "failed: too loud" in done("bundle", "list", *where[:2])
    assert "failed here before (too loud)" in refused("bundle", "install", released(2), *where)
    assert "expected an earlier bundle" in refused("bundle", "rollback", *where[:2])


def spoil(file) -> None:
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


def unsign(file) -> None:
    file.with_name(f"{file.name}.minisig").unlink()


@pytest.mark.parametrize(
    ("version", "options", "harm", "sentence"),
    [
        (3, [], spoil, "the file was changed after signing"),
        (3, [], unsign, "is not signed"),
        (1, [], None, "is older than version 2"),
        (3, ["--board", "toaster"], None, "is for toaster, this board is"),
    ],
)
def test_refused_bundle_changes_nothing(
    done, refused, released, where, version, options, harm, sentence
):
    done("bundle", "install", released(2), *where)
    before = listed(done, where)
    file = released(version, *options)
    if harm is not None:
        harm(file)
    assert sentence in refused("bundle", "install", file, *where)
    assert listed(done, where) == before


def test_bundle_that_no_engine_reproduces_is_refused(refused, released, where, pack, schema):
    honest, other = pack(schema, seed=1), pack(schema, seed=2)
    parts = {**honest.parts, "golden.safetensors": other.parts["golden.safetensors"]}
    file = released(9)
    type(honest).pack(honest.manifest, parts).save(file)
    sign = ("keys", "sign", file, "-s", released.secret, "--version", 9)
    subprocess.run([sys.executable, "-c", MAIN, *map(str, sign)], check=True, timeout=60)
    assert "does not reproduce the golden vectors" in refused("bundle", "install", file, *where)


def test_absent_keys_and_stores_are_told(refused, released, where, tmp_path):
    file = released(1)
    said = refused("bundle", "install", file, *where[:2], "--keys", tmp_path / "none")
    assert "copy the signer's public key to it" in said
    said = refused("bundle", "list", "--store", tmp_path / "none")
    assert "`edge-gru bundle install` makes it" in said


def test_clock_that_is_not_set_changes_nothing(done, released, where, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    done("bundle", "install", released(1), *where)
    done("bundle", "install", released(2), *where)
    assert "1970-01-01" in done("bundle", "list", *where[:2])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights up")
def test_root_writes_as_the_owner_of_the_store(released):
    folder = Path(tempfile.mkdtemp())  # that other users reach, as those of pytest are not
    folder.chmod(0o755)
    store = folder / "var" / "bundles"
    store.parent.mkdir()
    os.chown(store.parent, 1234, 1235)
    where = ("--store", store)
    for arguments in (
        ("install", released(1), *where, "--keys", released.public),
        ("install", released(2), *where, "--keys", released.public),
        ("confirm", *where),
        ("rollback", *where),
    ):
        command = [sys.executable, "-c", MAIN, "bundle", *map(str, arguments)]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in store.rglob("*")}
    shutil.rmtree(folder)
    assert owners == {(1234, 1235)}


def health(path) -> dict:
    return json.loads(path.read_text())


def test_running_service_takes_an_update_without_losing_a_sample(
    live, done, call, released, board, where, tmp_path
):
    store, file = where[1], tmp_path / "health.json"
    done("bundle", "install", released(1), *where)
    assert call("status", "--store", store, "--health", file).exit_code == 3
    with board:
        running = live("run", store, "--port", board.port, "--health-file", file)
        running.read_sample(20)
        second = released(2)
        done("bundle", "install", second, *where, "--trial", 1)
        running.read_until(lambda event: event.get("model_hash") == load(second).hash)
        running.read_until(lambda event: event.get("n_steps") == 100)
        seconds = threading.Event()
        for _ in range(600):
            if listed(done, where)["trial"] is None:
                break
            seconds.wait(0.05)
        text = call("status", "--store", store, "--health", file)
        running.end(signal.SIGTERM)
    assert text.exit_code == 0
    assert "bundle    tiny version 2, committed" in text.stdout
    found = json.loads(call("status", "--store", store, "--health", file, "--json").stdout)
    assert found["problem"].startswith("not running: it was stopped")
    seq = [event["sample_seq"] for event in running.predictions]
    assert seq == list(range(len(seq)))
    assert running.process.returncode == 0


def test_bundle_whose_service_is_killed_again_and_again_goes_back(
    live, done, released, board, where
):
    done("bundle", "install", released(1), *where)
    done("bundle", "install", released(2), *where, "--starts", 2)
    with board:
        for _ in range(2):
            running = live("run", where[1], "--port", board.port)
            running.read_until(lambda event: event["kind"] == "prediction")
            assert running.events[0]["model_hash"] == load(released(2)).hash
            running.process.send_signal(signal.SIGABRT)  # as the watchdog does
            running.process.wait(30)
        running = live("run", where[1], "--port", board.port)
        running.read_until(lambda event: event["kind"] == "prediction")
        running.end(signal.SIGTERM)
    assert running.events[0]["model_hash"] == load(released(1)).hash
    entries = listed(done, where)["entries"].values()
    (failed,) = (entry for entry in entries if entry["status"] == "failed")
    assert failed["reason"] == "it did not stay up in 2 starts"


def test_cache_that_cannot_be_written_keeps_nobody_from_predicting(
    live, done, released, board, where, tmp_path
):
    done("bundle", "install", released(1), *where)
    (tmp_path / "cache").write_text("a file in the place of the folder")
    with board:
        cache = str(tmp_path / "cache")
        running = live(
            "run", where[1], "--port", board.port, CACHE_DIRECTORY=cache, XDG_CACHE_HOME=cache
        )
        running.read_sample(20)
        running.end(signal.SIGTERM)
    assert running.process.returncode == 0


def test_rollback_by_hand_leaves_nothing_older_to_replay(done, refused, released, where):
    for version in (5, 7):
        done("bundle", "install", released(version), *where, "--trial", 0)
    done("bundle", "rollback", *where[:2])
    assert "failed here before (by hand)" in refused("bundle", "install", released(7), *where)
    assert "is older than version 7" in refused("bundle", "install", released(6), *where)
    assert "version 6 serves" in done("bundle", "install", released(6), *where, "--force")
    assert "is older than version 7" in refused("bundle", "install", released(4), *where)
    assert "version 8 serves" in done("bundle", "install", released(8), *where)


def test_bundle_that_failed_is_not_taken_under_a_new_version_either(done, refused, released, where):
    done("bundle", "install", released(1), *where)
    file = released(2)
    done("bundle", "install", file, *where)
    done("bundle", "rollback", *where[:2], "--reason", "no good")
    done("keys", "sign", file, "-s", released.secret, "--version", 3)
    assert "failed here before (no good)" in refused("bundle", "install", file, *where)


def test_settings_of_a_service_name_its_store(call, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('store = "bundles"\nport = "p"\nhealth_file = "h.json"\n')
    found = json.loads(call("run", file, "--check").stdout)
    assert (found["store"], found["health_file"]) == (
        str(tmp_path / "bundles"),
        str(tmp_path / "h.json"),
    )
    file.write_text('store = "bundles"\nbundle = "x.egb"\nport = "p"\n')
    assert "expected a bundle or a store, got both" in call("run", file, "--check").stderr
