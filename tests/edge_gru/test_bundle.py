from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gru import bundle as bundles
from edge_gru import manifest as manifests
from edge_gru.bundle import MANIFEST, Bundle, load, parse
from edge_gru.errors import BundleError


def same(one: Bundle, other: Bundle) -> bool:
    return one.manifest == other.manifest and dict(one.parts) == dict(other.parts)


def test_what_was_packed_is_read(small: Bundle, tmp_path: Path) -> None:
    path = small.save(tmp_path / "small.egb")
    assert same(load(path), small)
    assert load(str(path)).hash == small.hash
    assert path.stat().st_size == small.n_bytes


def test_same_content_gives_the_same_bytes(small: Bundle) -> None:
    unlisted = msgspec.structs.replace(small.manifest, parts={})
    again = Bundle.pack(unlisted, dict(reversed(small.parts.items())))
    assert again.to_bytes() == small.to_bytes() == parse(small.to_bytes()).to_bytes()
    assert again.hash == small.hash


def test_bytes_hold_no_clock_user_or_machine(small: Bundle) -> None:
    with zipfile.ZipFile(io.BytesIO(small.to_bytes())) as archive:
        members = archive.infolist()
    assert [info.filename for info in members] == [MANIFEST, "a.bin", "b.bin"]
    assert {info.date_time for info in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in members} == {stat.S_IFREG | 0o644}
    assert {(info.create_system, info.extra, info.comment) for info in members} == {(3, b"", b"")}


def test_bytes_are_pinned_across_python_versions(small: Bundle) -> None:
    """The layout of the archive, apart from the manifest's text, to the byte."""
    text = manifests.encode(small.manifest)
    data = small.to_bytes()
    names = {MANIFEST: text, **small.parts}
    local = sum(30 + len(name) + len(part) for name, part in names.items())
    central = sum(46 + len(name) for name in names)
    assert len(data) == local + central + 22 + 64
    assert data[:14] == b"PK\3\4\x14\0\0\0\0\0\0\0\x21\0"
    assert data.endswith(hashlib.sha256(text).hexdigest().encode())


def test_hash_fixes_every_part(small: Bundle) -> None:
    unlisted = msgspec.structs.replace(small.manifest, parts={})
    other = Bundle.pack(unlisted, {**small.parts, "a.bin": b"First part"})
    assert other.hash != small.hash


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_found_or_harmless(small: Bundle, bit: int) -> None:
    data = small.to_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        assert_equal_or_refused(bytes(flipped), small)


def test_every_truncation_is_found(small: Bundle) -> None:
    data = small.to_bytes()
    for end in range(len(data)):
        with pytest.raises(BundleError):
            parse(data[:end])


def assert_equal_or_refused(data: bytes, expected: Bundle) -> None:
    try:
        got = parse(data)
    except BundleError:
        return
    assert same(got, expected)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_is_found_or_harmless(small: Bundle, data: st.DataObject) -> None:
    damaged = bytearray(small.to_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(damaged)))
        end = data.draw(st.integers(start, min(len(damaged), start + 9)))
        damaged[start:end] = data.draw(st.binary(max_size=9))
    assert_equal_or_refused(bytes(damaged), small)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    for whole in (data, b"PK\3\4" + data, data + b"PK\5\6" + bytes(18)):
        with pytest.raises(BundleError):
            parse(whole)


def archive_of(members: Mapping[str, bytes], edit: Callable[[zipfile.ZipInfo], None]) -> bytes:
    """An archive that a hostile packer makes: right hashes, wrong members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            edit(info)
            archive.writestr(info, data)
        archive.comment = hashlib.sha256(members[MANIFEST]).hexdigest().encode()
    return buffer.getvalue()


def hostile(small: Bundle, edit: Callable[[zipfile.ZipInfo], None], **extra: bytes) -> bytes:
    return archive_of({MANIFEST: manifests.encode(small.manifest), **small.parts, **extra}, edit)


def unchanged(_: zipfile.ZipInfo) -> None:
    pass


def test_archive_made_the_hostile_way_is_fine_without_malice(small: Bundle) -> None:
    assert same(parse(hostile(small, unchanged)), small)


NAMES = [
    "../outside", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "C:evil", "A.BIN", "a b", "-rf",
    "ä", "a\n", "x" * 65, "a.bin/",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_odd_name_is_refused(small: Bundle, name: str) -> None:
    with pytest.raises(BundleError, match="flat part names"):
        parse(hostile(small, unchanged, **{name: b"x"}))


@pytest.mark.parametrize("name", [*NAMES, "", MANIFEST])
def test_odd_name_is_never_packed(small: Bundle, name: str) -> None:
    unlisted = msgspec.structs.replace(small.manifest, parts={})
    with pytest.raises(BundleError, match=r"flat part names|distinct parts"):
        Bundle.pack(unlisted, {name: b"x"})


def test_name_cut_by_a_zero_byte_is_refused(small: Bundle) -> None:
    data = hostile(small, unchanged, **{"c.bin_evil": b"x"})
    with pytest.raises(BundleError, match="flat part names"):
        parse(data.replace(b"c.bin_evil", b"c.bin\0evil"))


def test_double_name_is_refused(small: Bundle) -> None:
    data = hostile(small, unchanged, **{"c.bin": b"x"})
    with pytest.raises(BundleError, match="distinct parts"):
        parse(data.replace(b"c.bin", b"a.bin"))


def test_too_many_parts_are_refused(small: Bundle) -> None:
    many = {f"p{k}": b"" for k in range(bundles.MAX_PARTS)}
    with pytest.raises(BundleError, match="at most 64 distinct parts"):
        parse(hostile(small, unchanged, **many))
    with pytest.raises(BundleError, match="at most 64 distinct parts"):
        Bundle.pack(msgspec.structs.replace(small.manifest, parts={}), many)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, 0])
def test_anything_but_a_regular_file_is_refused(small: Bundle, kind: int) -> None:
    def edit(info: zipfile.ZipInfo) -> None:
        if info.filename == "a.bin":
            info.external_attr = (kind | 0o777) << 16

    with pytest.raises(BundleError, match=r"regular files, got a\.bin"):
        parse(hostile(small, edit))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_part_is_refused_before_it_is_unpacked(small: Bundle, method: int) -> None:
    def edit(info: zipfile.ZipInfo) -> None:
        if info.filename in ("bomb", "noise"):
            info.compress_type = method

    with pytest.raises(BundleError, match="claim more than the file"):
        parse(hostile(small, edit, bomb=bytes(4 << 20)))
    with pytest.raises(BundleError, match="stored parts, got a packed noise"):
        parse(hostile(small, edit, noise=bytes(range(256))))


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Change a field of the last header of a kind."""
    start = data.rindex(signature) + offset
    return data[:start] + value + data[start + len(value) :]


CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
FIELDS = {
    "encrypted": (CENTRAL, 8, b"\1\0"),
    "strongly encrypted": (CENTRAL, 8, b"\x41\0"),
    "a patch": (CENTRAL, 8, b"\x20\0"),
    "a later zip": (CENTRAL, 6, b"\xff\0"),
    "an unknown method": (CENTRAL, 10, b"\x63\0"),
    "a huge size": (CENTRAL, 20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff"),
    "a huge size, unpacked": (CENTRAL, 24, b"\xfe\xff\xff\x7f"),
    "another disk's": (CENTRAL, 42, b"\xfe\xff\xff\xff"),
    "an overlapping part": (CENTRAL, 42, b"\0\0\0\0"),
    "a local name of its own": (LOCAL, 30, b"z"),
    "a huge directory": (END, 12, b"\xfe\xff\xff\xff"),
    "a directory elsewhere": (END, 16, b"\xfe\xff\xff\xff"),
    "a wrong checksum": (CENTRAL, 16, b"\0\0\0\0"),
}


@pytest.mark.parametrize(("signature", "offset", "value"), FIELDS.values(), ids=FIELDS)
def test_hostile_header_is_refused(
    small: Bundle, signature: bytes, offset: int, value: bytes
) -> None:
    with pytest.raises(BundleError, match=r"copy or pack it again|do not trust"):
        parse(patched(small.to_bytes(), signature, offset, value))


@pytest.mark.parametrize("offset", [5, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_64_bit_offset_out_of_the_file_is_refused(offset: int) -> None:
    name, data = MANIFEST.encode(), b"{}"
    extra = struct.pack("<HHQ", 1, 8, offset)
    local = struct.pack("<4s5H3L2H", LOCAL, 45, 0, 0, 0, 33, 0, 2, 2, len(name), 0) + name + data
    fields = (45, 3, 45, 0, 0, 0, 0, 33, 0, 2, 2, len(name), len(extra), 0, 0, 0)
    central = struct.pack("<4s4B4HL2L5H", CENTRAL, *fields)
    central += struct.pack("<2L", (stat.S_IFREG | 0o644) << 16, 0xFFFFFFFF) + name + extra
    end = struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(central), len(local), 0)
    with pytest.raises(BundleError, match="truncated or no archive"):
        parse(local + central + end)


def test_manifest_must_be_there(small: Bundle) -> None:
    data = small.to_bytes().replace(MANIFEST.encode(), b"manifest.jsom")
    with pytest.raises(BundleError, match=r"a bundle with manifest\.json"):
        parse(data)


def test_changed_part_is_named_though_its_checksum_is_right(small: Bundle) -> None:
    changed = {**small.parts, "a.bin": b"other part"}
    data = archive_of({MANIFEST: manifests.encode(small.manifest), **changed}, unchanged)
    with pytest.raises(BundleError, match=r"part a\.bin was changed after packing"):
        parse(data)


def test_changed_manifest_is_found_though_its_checksum_is_right(small: Bundle) -> None:
    data = small.to_bytes()
    text = manifests.encode(small.manifest)
    other = msgspec.structs.replace(small.manifest, n_warmup=4)
    forged = archive_of({MANIFEST: manifests.encode(other), **small.parts}, unchanged)
    forged = forged[:-64] + hashlib.sha256(text).hexdigest().encode()
    assert data[-64:] == forged[-64:]
    with pytest.raises(BundleError, match="manifest was changed after packing"):
        parse(forged)


@pytest.mark.parametrize("name", ["a.bin", "extra"])
def test_parts_and_manifest_must_agree(small: Bundle, name: str) -> None:
    parts = {**small.parts, "extra": b"x"} if name == "extra" else {"b.bin": small.parts["b.bin"]}
    data = archive_of({MANIFEST: manifests.encode(small.manifest), **parts}, unchanged)
    with pytest.raises(BundleError, match=rf"parts and manifest disagree on \['{name}'\]"):
        parse(data)


def test_pack_refuses_what_load_would(small: Bundle) -> None:
    odd = msgspec.structs.replace(small.manifest, parts={}, default_precision="int1")
    with pytest.raises(BundleError, match="default precision"):
        Bundle.pack(odd, dict(small.parts))


def test_pack_keeps_its_own_parts(small: Bundle) -> None:
    parts = dict(small.parts)
    bundle = Bundle.pack(msgspec.structs.replace(small.manifest, parts={}), parts)
    parts["a.bin"] = b"changed"
    assert same(parse(bundle.to_bytes()), small)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.exists, "No such file or directory; check the path"),
        (Path.mkdir, "Is a directory; check the path"),
        (os.mkfifo, "expected a file, got a device or pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a file, got a device or pipe"),
        (lambda path: path.write_bytes(b""), "expected a bundle, got 0 bytes"),
        (lambda path: path.write_text("text"), "truncated or no archive"),
        (lambda path: make_sparse(path, bundles.MAX_BYTES + 1), "is it a bundle?"),
    ],
)
def test_load_names_the_file_and_the_cause(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "pump.egb"
    make(path)
    with pytest.raises(BundleError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def make_sparse(path: Path, n_bytes: int) -> None:
    path.touch()
    os.truncate(path, n_bytes)


def test_bundle_is_a_value(small: Bundle) -> None:
    assert replace(small) == small
    assert small.source.manifest is small.manifest


def test_a_bundle_does_not_flood_the_terminal(small: Bundle) -> None:
    assert len(repr(small)) < 5000
