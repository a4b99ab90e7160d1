from __future__ import annotations

import json
import os
import shutil
import signal
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

pytest.importorskip("cryptography", reason="signatures need the extra `signed`")

MAIN = "from edge_gru.cli import main; main(prog_name='edge-gru')"


def test_install_list_confirm_and_rollback(done, refused, released, where, tmp_path, listed):
    assert "tiny version 1 serves from now on\n" in done("bundle", "install", released(1), *where)
    said = done("bundle", "install", released(2), *where, "--trial", 30, "--starts", 2)
    assert said.endswith("on trial for 30 s of good service in 2 starts\n")
    facts = json.loads(done("bundle", "install", released(2), *where, "--json"))
    assert (facts["is_new"], facts["version"], facts["trial"]["duration_s"]) == (False, 2, 30)
    table = done("bundle", "list", *where[:2])
    assert "trial: 0 of 30 s, 2 of 2 starts left" in table
    assert "tiny version 2 stays" in done("bundle", "confirm", *where[:2])
    assert listed()["trial"] is None
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
    done, refused, released, where, version, options, harm, sentence, listed
):
    done("bundle", "install", released(2), *where)
    before = listed()
    file = released(version, *options)
    if harm is not None:
        harm(file)
    assert sentence in refused("bundle", "install", file, *where)
    assert listed() == before


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
    live, done, call, released, board, where, tmp_path, listed
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
            if listed()["trial"] is None:
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
    live, done, released, board, where, listed
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
    entries = listed()["entries"].values()
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
