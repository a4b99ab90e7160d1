"""Where bundles are written: whole or not at all, and over nothing that is not a bundle."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_gru import bundle as bundles
from edge_gru.bundle import Bundle, load, write_atomically
from edge_gru.errors import BundleError


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_replaces_the_old_file_and_leaves_nothing_else(small: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "pump.egb"
    path.write_bytes(b"old")
    assert small.save(str(path)) == path
    assert load(path).to_bytes() == small.to_bytes()
    assert listing(tmp_path) == ["pump.egb"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_save_follows_the_umask(small: Bundle, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        path = small.save(tmp_path / "private.egb")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_save_into_the_working_folder(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small.save("pump.egb")
    assert load("pump.egb").to_bytes() == small.to_bytes()
    assert listing(tmp_path) == ["pump.egb"]


def fail_in(name: str, code: int) -> Callable[[pytest.MonkeyPatch], None]:
    def arrange(monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(bundles.os, name, fail)

    return arrange


FAILURES = {
    "read-only folder": fail_in("open", errno.EACCES),
    "full disk": fail_in("fsync", errno.ENOSPC),
    "no name for the new file": fail_in("link", errno.EIO),
    "no exchange": fail_in("replace", errno.EROFS),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("arrange", FAILURES.values(), ids=FAILURES)
def test_failed_save_keeps_the_old_file_and_leaves_nothing(
    small: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[pytest.MonkeyPatch], None],
    named: bool,
) -> None:
    path = tmp_path / "pump.egb"
    path.write_bytes(b"old")
    if named:
        without_nameless_files(monkeypatch)
    with monkeypatch.context() as patch:
        arrange(patch)
        if named and arrange is FAILURES["no name for the new file"]:
            small.save(path)  # there is nothing to link
            return
        with pytest.raises(BundleError, match=r"cannot write .*pump\.egb: .*; choose a folder"):
            small.save(path)
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["pump.egb"]


def without_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system such as vfat."""
    real = os.open

    def open_named(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(bundles.os, "open", open_named)


def test_new_file_has_no_name_until_it_is_whole(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"no nameless files in {tmp_path}: {error.strerror}")
    seen = []
    real = os.link

    def link(source: str, name: str, **folders: int) -> None:
        seen.append((listing(tmp_path), Path(source).read_bytes()))
        real(source, name, **folders)

    monkeypatch.setattr(bundles.os, "link", link)
    small.save(tmp_path / "pump.egb")
    assert seen == [([], small.to_bytes())]


def test_save_without_nameless_files(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nameless_files(monkeypatch)
    path = small.save(tmp_path / "pump.egb")
    assert load(path).to_bytes() == small.to_bytes()
    assert listing(tmp_path) == ["pump.egb"]


@pytest.mark.parametrize("where", ["missing/pump.egb", "file/pump.egb", "folder"])
def test_save_where_no_file_can_be_is_one_sentence(
    small: Bundle, tmp_path: Path, where: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    before = listing(tmp_path)
    with pytest.raises(BundleError, match=r"cannot write .*; choose a folder"):
        small.save(tmp_path / where)
    assert listing(tmp_path) == before


_WRITER = """
import sys
from pathlib import Path
from edge_gru.bundle import write_atomically

target = Path(sys.argv[1])
print("ready", flush=True)
k = 0
while True:
    write_atomically(target, bytes([k % 256]) * 300_000)
    k += 1
"""


@contextmanager
def writer_of(target: Path) -> Iterator[None]:
    """A process that writes the file again and again, until it is killed at the end."""
    command = [sys.executable, "-c", _WRITER, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            yield
        finally:
            writer.kill()


def assert_whole(target: Path) -> None:
    data = target.read_bytes()
    assert len(data) == 300_000
    assert len(set(data)) == 1


def test_killed_writer_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write_atomically(target, b"\xff" * 300_000)
    for n_reads in range(0, 400, 50):
        with writer_of(target):
            for _ in range(n_reads):  # kill at another instant each time
                target.stat()
        assert_whole(target)
    assert all(name == "state" or name.startswith(".state.") for name in listing(tmp_path))


def test_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write_atomically(target, b"a" * 300_000)
    with writer_of(target):
        for _ in range(200):
            assert_whole(target)


@pytest.mark.parametrize("content", [b"vibration,temperature\n1,2\n", b"\x08\x08\x12\x05torch"])
def test_save_leaves_a_recording_or_model_alone(
    small: Bundle, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "healthy.csv"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is no bundle: it is left alone"):
        small.save(path)
    assert path.read_bytes() == content
    assert listing(tmp_path) == ["healthy.csv"]


def test_save_leaves_a_device_alone(small: Bundle) -> None:
    with pytest.raises(BundleError, match="left alone"):
        small.save("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_save_over_a_bundle_of_another_name_is_an_update(small: Bundle, tmp_path: Path) -> None:
    path = small.save(tmp_path / "model.bin")
    assert small.save(path) == path
