from __future__ import annotations

import os
import random

import pytest

from edge_gru import bundle as bundles
from edge_gru.errors import BundleError, ConfigError, EdgeGruError, StoreError
from edge_gru.signing import PublicKey, Release, SecretKey, sign
from edge_gru.store import Store, board_names, read_signed
from edge_gru.store.board import fits

pytest.importorskip("cryptography", reason="signatures need the extra `signed`")

BOARDS = ("press", "nvidia-p3767-0005", "aarch64")


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return SecretKey.generate()


@pytest.fixture
def brought(bundle, key, tmp_path):
    """Write the tiny bundle and a signature; return a function that reads them as a device."""
    file = bundle.save(tmp_path / "tiny.egb")

    def read(*, trusted=None, **changes):
        release = Release(**{"name": "tiny", "version": 1, **changes})
        text = sign(file.read_bytes(), key, release.to_comment(file.name)).to_text()
        file.with_name("tiny.egb.minisig").write_text(text)
        return read_signed(file, keys=trusted or [key.public], boards=BOARDS)

    read.file = file
    read.signature = file.with_name("tiny.egb.minisig")
    return read


def test_signed_bundle_is_read_with_what_was_signed(brought, bundle, key):
    found = brought(version=7, boards=("press",), continues=("a" * 64,), signed_at_s=5)
    assert found.bundle == bundle
    assert (found.entry.version, found.entry.key) == (7, key.public.name)
    assert (found.entry.model_hash, found.entry.continues) == (bundle.hash, ("a" * 64,))


def test_unsigned_bundle_is_refused(brought, key):
    with pytest.raises(StoreError, match="is not signed: expected its signature in"):
        read_signed(brought.file, keys=[key.public], boards=BOARDS)


def test_key_that_is_not_trusted_is_refused(brought, key):
    stranger = SecretKey.generate().public
    with pytest.raises(BundleError, match=f"{stranger.name}, got one by {key.public.name}"):
        brought(trusted=[stranger])


@pytest.mark.parametrize("boards", [("any",), ("press",), ("toaster", "aarch64")])
def test_bundle_for_this_board_is_taken(brought, boards):
    assert brought(boards=boards).release.boards == boards


def test_bundle_for_another_board_is_refused(brought):
    with pytest.raises(StoreError, match="is for toaster, this board is press, nvidia-p3767-0005"):
        brought(boards=("toaster",))


def test_bundle_signed_under_another_name_is_refused(brought):
    with pytest.raises(BundleError, match="signed as 'pump', but the model in it is 'tiny'"):
        brought(name="pump")


def test_flipped_bits_anywhere_in_the_bundle_are_refused(brought, key):
    brought()
    whole = brought.file.read_bytes()
    chosen = random.Random(1)
    positions = {0, len(whole) - 1, *(chosen.randrange(len(whole)) for _ in range(60))}
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 1 << chosen.randrange(8)
        brought.file.write_bytes(changed)
        with pytest.raises(BundleError, match="the file was changed after signing"):
            read_signed(brought.file, keys=[key.public], boards=BOARDS)


@pytest.mark.parametrize("n_kept", [0, 1, 100])
def test_truncated_files_are_refused(brought, key, n_kept):
    brought()
    for file in (brought.file, brought.signature):
        whole = file.read_bytes()
        file.write_bytes(whole[:n_kept])
        with pytest.raises(EdgeGruError):
            read_signed(brought.file, keys=[key.public], boards=BOARDS)
        file.write_bytes(whole)


def test_nothing_is_parsed_before_the_signature_is_checked(brought, key, monkeypatch):
    brought()
    brought.file.write_bytes(brought.file.read_bytes() + b"x")
    monkeypatch.setattr(bundles, "parse", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(BundleError, match="the file was changed after signing"):
        read_signed(brought.file, keys=[key.public], boards=BOARDS)


def test_signed_file_that_is_no_bundle_is_refused(brought, key):
    brought.file.write_bytes(b"PK not a bundle")
    with pytest.raises(BundleError, match=r"tiny\.egb: expected a bundle"):
        brought()


def test_files_that_never_end_or_are_huge_are_refused_at_once(brought, key, tmp_path):
    brought()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(bundles.MAX_BYTES + 1)
    for odd in (pipe, huge, tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError):
            read_signed(odd, keys=[key.public], boards=BOARDS)
    for odd in (pipe, huge, tmp_path):
        with pytest.raises(ConfigError, match="expected a file of a few lines"):
            read_signed(brought.file, keys=[key.public], boards=BOARDS, signature_file=odd)


def test_refused_bundle_leaves_the_one_that_serves(brought, key, signed, tmp_path):
    store = Store(tmp_path / "bundles")
    store.install(signed(1))
    before = store.stamp()
    for file in (brought.file, tmp_path / "absent"):
        with pytest.raises(EdgeGruError):
            store.install(read_signed(file, keys=[key.public], boards=BOARDS))
    assert store.stamp() == before


def test_board_is_known_by_its_owner_its_tree_and_its_architecture(tmp_path):
    (tmp_path / "board").write_text("press-4 press\n")
    (tmp_path / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    names = board_names(tmp_path / "board", tmp_path / "compatible")
    assert names[:4] == ("press-4", "press", "nvidia-p3768-0000+p3767-0005", "nvidia-tegra234")
    assert len(names) == 5
    assert fits(("press",), names)
    assert fits(("any",), ())
    assert not fits(("press-5",), names)


def test_board_without_a_tree_is_known_by_its_architecture(tmp_path):
    assert len(board_names(tmp_path / "absent", tmp_path / "absent")) == 1


def test_public_key_of_a_signature_is_named():
    assert PublicKey(bytes(range(8)), b"").name == "0706050403020100"
