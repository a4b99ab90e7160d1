"""Keys: made, shown, kept secret, changed; and what they sign."""

from __future__ import annotations

import json
import stat

import pytest

from edge_gru.errors import ConfigError
from edge_gru.signing import KdfLimits

pytest.importorskip("cryptography", reason="signatures need the extra `signed`")


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


def test_key_that_is_taken_away_signs_nothing_any_more(
    done, refused, released, where, tmp_path, listed
):
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
    assert listed()["current"].startswith("tiny-1-")
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
