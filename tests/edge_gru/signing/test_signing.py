from __future__ import annotations

import shutil
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from edge_gru.errors import BundleError, ConfigError
from edge_gru.signing import (
    KdfLimits,
    PublicKey,
    Release,
    SecretKey,
    Signature,
    read_trusted_keys,
    sign,
    verify,
)
from edge_gru.signing.keys import is_hidden

pytest.importorskip("cryptography", reason="signatures need the extra `signed`")

DATA = b"a bundle"
QUICK = KdfLimits(n_operations=1 << 15, n_bytes=1 << 24)
# Made with minisign 0.11: `minisign -G -W`, `minisign -S`, `minisign -S -l` over b"hello\n".
MINISIGN_PUBLIC = """untrusted comment: minisign public key 157446C3D78F372D
RWQtN4/Xw0Z0Fa2rvUkH1dHuESgwnI56fnFpHrdzLSexak3meNs/Njp0
"""
MINISIGN_KEY = """untrusted comment: minisign encrypted secret key
RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAALTeP18NGdBXJyL1qHdQrrlIYvAOZKqjqlvu3\
EOAE2oTcN1DlGOKzc62rvUkH1dHuESgwnI56fnFpHrdzLSexak3meNs/Njp0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
"""
MINISIGN_SIGNATURE = """untrusted comment: signature from minisign secret key
RUQtN4/Xw0Z0FSfCuc+Fav8ATZtrK8HmPrjckzwW0Aer9z5rfUAKn5b76vMTfspVcTyDmeQdx5RxhyHpzVBE9XV6l+0VUi3+Kgo=
trusted comment: timestamp:1795751320\tfile:f\thashed
hJ96nDnIHbC1AMix/59xfrW5JM9yHr5p8aVAq1SxaFlQuHQMF9JryYx/lxZfHDk4Tr8TRZ5JKl2g+yfphfpzDA==
"""
MINISIGN_OLD_FORM = MINISIGN_SIGNATURE.replace("RUQt", "RWQt")


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return SecretKey.generate()


def test_what_minisign_made_is_read_and_written_the_same():
    public = PublicKey.parse(MINISIGN_PUBLIC)
    assert public.name == "157446C3D78F372D"
    assert public.to_text() == MINISIGN_PUBLIC
    assert PublicKey.parse(public.line) == public
    secret = SecretKey.parse(MINISIGN_KEY)
    assert secret.public == public
    assert secret.to_text() == MINISIGN_KEY
    signature = Signature.parse(MINISIGN_SIGNATURE)
    assert verify(b"hello\n", signature, [public]) == public
    again = sign(b"hello\n", secret, signature.comment)  # Ed25519 has no chance in it
    assert again == signature
    assert again.to_text().splitlines()[1:] == MINISIGN_SIGNATURE.splitlines()[1:]


def test_base64_that_means_the_same_in_other_letters_is_refused():
    with pytest.raises(ConfigError, match="expected a signature of 64 bytes"):
        Signature.parse(MINISIGN_SIGNATURE.replace("pzDA==", "pzDB=="))


def test_old_form_is_refused():
    with pytest.raises(ConfigError, match="sign it again without -l"):
        Signature.parse(MINISIGN_OLD_FORM)


def test_signature_of_other_bytes_another_comment_or_a_stranger_is_refused(key):
    signature = sign(DATA, key, "version:1")
    public = [key.public]
    assert verify(DATA, signature, public) == key.public
    with pytest.raises(BundleError, match="the file was changed after signing"):
        verify(DATA + b" ", signature, public)
    changed = Signature(signature.key_id, signature.signature, "version:2", b"\0" * 64)
    with pytest.raises(BundleError, match="the signed comment was changed"):
        verify(DATA, changed, public)
    moved = sign(b"other", key, "version:2")
    grafted = Signature(
        signature.key_id, signature.signature, moved.comment, moved.global_signature
    )
    with pytest.raises(BundleError, match="the signed comment was changed"):
        verify(DATA, grafted, public)
    stranger = SecretKey.generate()
    with pytest.raises(BundleError, match="which is not trusted here"):
        verify(DATA, sign(DATA, stranger, "version:1"), public)
    impostor = SecretKey(PublicKey(key.public.id, stranger.public.key), stranger.seed)
    with pytest.raises(BundleError, match="the file was changed after signing"):
        verify(DATA, sign(DATA, impostor, "version:1"), public)


def test_every_flipped_bit_of_a_signature_file_is_refused_or_means_nothing(key):
    signature = sign(DATA, key, "name:pump\tversion:1")
    text = signature.to_text().encode()
    n_trusted = text.index(b"\n") + 1  # minisign lets anybody change the first line
    for position in range(n_trusted, len(text)):
        for bit in range(8):
            changed = bytearray(text)
            changed[position] ^= 1 << bit
            try:
                found = Signature.parse(changed.decode())
                verify(DATA, found, [key.public])
            except (UnicodeDecodeError, BundleError, ConfigError):
                continue
            assert position == len(text) - 1 or found == signature


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
@example("untrusted comment: x\n\n\n")
@example("untrusted comment: x\nRWQ=\ntrusted comment: \nRWQ=\n")
def test_any_text_is_read_or_refused_in_a_sentence(text):
    for parse in (PublicKey.parse, SecretKey.parse, Signature.parse):
        with pytest.raises(ConfigError, match="expected"):
            parse(text)


def test_password_hides_the_key_and_another_one_does_not_open_it(key):
    text = key.to_text(b"secret", QUICK)
    assert is_hidden(text)
    assert not is_hidden(key.to_text())
    assert SecretKey.parse(text, b"secret") == key
    with pytest.raises(ConfigError, match="the password does not open"):
        SecretKey.parse(text, b"Secret")
    with pytest.raises(ConfigError, match="expected the password"):
        SecretKey.parse(text)


@pytest.mark.parametrize(
    ("limits", "cost"),
    [
        (KdfLimits(), (1 << 20, 1)),  # libsodium's sensitive limits, as minisign uses them
        (KdfLimits(1 << 19, 1 << 24), (1 << 14, 1)),  # its interactive ones
        (KdfLimits(1 << 20, 1 << 24), (1 << 14, 2)),
        (KdfLimits(1, 1 << 30), (1 << 10, 1)),
    ],
)
def test_limits_of_a_password_are_those_of_libsodium(limits, cost):
    assert limits.cost == cost


def test_key_that_asks_for_too_much_memory_is_refused(key):
    with pytest.raises(ConfigError, match="expected a key that needs at most"):
        key.to_text(b"secret", KdfLimits(1 << 40, 1 << 40))


def test_trusted_keys_are_those_in_a_folder(key, tmp_path):
    with pytest.raises(ConfigError, match=r"found no \*\.pub there"):
        read_trusted_keys(tmp_path)
    (tmp_path / "a.pub").write_text(key.public.to_text())
    (tmp_path / "b.pub").write_text(MINISIGN_PUBLIC)
    (tmp_path / "notes").write_text("no key")
    assert read_trusted_keys(tmp_path) == [key.public, PublicKey.parse(MINISIGN_PUBLIC)]
    assert read_trusted_keys(tmp_path / "a.pub") == [key.public]
    (tmp_path / "c.pub").write_text("no key")
    with pytest.raises(ConfigError, match=r"c\.pub: expected a public key"):
        read_trusted_keys(tmp_path)
    with pytest.raises(ConfigError, match="found no such file"):
        read_trusted_keys(tmp_path / "absent.pub")


RELEASES = st.builds(
    Release,
    name=st.text(min_size=1, max_size=20).filter(str.isprintable),
    version=st.integers(1, 10**9),
    boards=st.lists(st.from_regex(r"[a-z0-9_.-]+", fullmatch=True), min_size=1).map(tuple),
    signed_at_s=st.integers(0, 1 << 40),
    continues=st.lists(st.from_regex("[0-9a-f]{64}", fullmatch=True)).map(tuple),
)


@settings(deadline=None, max_examples=40)
@given(RELEASES)
def test_release_survives_its_comment(release):
    comment = release.to_comment("pump.egb")
    assert Release.from_comment(comment) == release
    assert "\n" not in comment


@pytest.mark.parametrize(
    ("comment", "sentence"),
    [
        ("", "without name, version, board"),
        ("timestamp:1\tfile:f\thashed", "without name, version, board"),
        ("name:a\tversion:1", "without board"),
        ("name:a\tversion:1\tversion:2\tboard:any", "says something twice"),
        ("name:a\tversion:-1\tboard:any", "expected a number, got '-1'"),
        ("name:a\tversion:1e3\tboard:any", "expected a number"),
        ("name:a\tversion:٣\tboard:any", "expected a number"),
        ("name:a\tversion:0\tboard:any", "expected a version from 1"),
        ("name:a\tversion:99999999999\tboard:any", "expected a version from 1"),
        ("name:a\tversion:1\tboard:a b", "expected names of boards"),
        ("name:a\tversion:1\tboard:any\tcontinues:xyz", "expected hashes of models"),
    ],
)
def test_comment_that_does_not_say_enough_is_refused(comment, sentence):
    with pytest.raises(BundleError, match=sentence):
        Release.from_comment(comment)


@pytest.mark.parametrize("comment", ["a\nb", "a\rb", "a\0b", "x" * 9000])
def test_comment_of_more_than_a_line_is_not_signed(key, comment):
    with pytest.raises(ConfigError, match="expected a comment of one printable line"):
        sign(DATA, key, comment)


def test_without_the_library_nothing_is_taken_for_signed(tmp_path):
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from edge_gru.signing import *\n"
        "from edge_gru.errors import ConfigError\n"
        "try: verify(b'', Signature(b'x' * 8, b'', '', b''), [PublicKey(b'x' * 8, b'y' * 32)])\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert "apt install python3-cryptography, or pip install 'edge-gru[signed]'" in done.stdout


needs_minisign = pytest.mark.skipif(
    shutil.which("minisign") is None, reason="the program minisign is not installed"
)


def minisign(*arguments: object, text: str = "", folder) -> str:
    done = subprocess.run(
        ["minisign", *map(str, arguments)],
        cwd=folder, input=text, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


@needs_minisign
def test_minisign_checks_what_we_sign(key, tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    comment = Release("pump", 3, ("jetson",), 5).to_comment("f")
    (tmp_path / "f.minisig").write_text(sign(DATA, key, comment).to_text())
    (tmp_path / "our.pub").write_text(key.public.to_text())
    assert comment in minisign("-Vm", "f", "-p", "our.pub", folder=tmp_path)
    (tmp_path / "f").write_bytes(DATA + b" ")
    with pytest.raises(subprocess.CalledProcessError):
        minisign("-Vm", "f", "-p", "our.pub", folder=tmp_path)


@needs_minisign
@pytest.mark.parametrize("password", [None, b"secret"])
def test_minisign_signs_with_our_key(key, tmp_path, password):
    (tmp_path / "f").write_bytes(DATA)
    (tmp_path / "our.key").write_text(key.to_text(password, QUICK))
    typed = f"{password.decode()}\n" if password else ""
    minisign("-S", "-s", "our.key", "-m", "f", "-t", "version:1", text=typed, folder=tmp_path)
    signature = Signature.parse((tmp_path / "f.minisig").read_text())
    assert verify(DATA, signature, [key.public]) == key.public
    assert signature.comment == "version:1"


@needs_minisign
@pytest.mark.slow
def test_we_sign_with_a_key_of_minisign_behind_a_password(tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    minisign("-G", "-p", "its.pub", "-s", "its.key", text="pw\npw\n", folder=tmp_path)
    its = SecretKey.parse((tmp_path / "its.key").read_text(), b"pw")
    (tmp_path / "f.minisig").write_text(sign(DATA, its, "version:1").to_text())
    assert "version:1" in minisign("-Vm", "f", "-p", "its.pub", folder=tmp_path)
