"""The cache of plans: whole, ours, and exactly what was asked for; or built again."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_gru.engines.tensorrt import folder as folder_module
from edge_gru.engines.tensorrt.cache import PlanCache, PlanInfo, PlanKey
from edge_gru.engines.tensorrt.folder import PrivateFolder
from edge_gru.errors import EngineUnavailableError

KEY = PlanKey(
    bundle_sha256="b" * 64,
    graph_sha256="c" * 64,
    precision="int8",
    min_batch=1,
    opt_batch=1,
    max_batch=1,
    tensorrt="10.3.0",
    cuda_runtime=12060,
    cuda_driver=12060,
    compute_capability="8.7",
    n_multiprocessors=8,
    board="Orin Nano",
    l4t="R36 (release), REVISION: 4.3",
    workspace_bytes=64 << 20,
    optimization_level=3,
    verbosity="none",
)
PLAN = b"ftrt" + bytes(range(256)) * 40
TIMINGS = b"timings"


def info_of(key: PlanKey, plan: bytes = PLAN) -> PlanInfo:
    return PlanInfo(key, hashlib.sha256(plan).hexdigest(), len(plan), 12.5, "2", 1_020_000_000)


def changed(key: PlanKey, **changes: object) -> PlanKey:
    return msgspec.structs.replace(key, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b" / "plans"


@pytest.fixture
def cache(path: Path) -> PlanCache:
    cache = PlanCache(path)
    assert not path.exists()  # nothing is made before it is needed
    return cache


@pytest.fixture
def stored(cache: PlanCache) -> PlanCache:
    cache.store(info_of(KEY), PLAN, TIMINGS)
    return cache


def plan_file(path: Path) -> Path:
    return path / f"{KEY.digest}.plan"


def sidecar(path: Path) -> Path:
    return path / f"{KEY.digest}.json"


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_what_was_stored_is_found_whole(
    cache: PlanCache, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert cache.find(KEY) is None
    assert not caplog.records  # nothing was there, so nothing is wrong
    kept = cache.store(info_of(KEY), PLAN, TIMINGS)
    found = PlanCache(path).find(KEY)
    assert found == kept
    assert (found.plan, found.info, found.path) == (PLAN, info_of(KEY), plan_file(path))
    assert found.path.read_bytes() == PLAN
    assert names(path) == {f"{KEY.digest}.plan", f"{KEY.digest}.json", KEY.timings}


def test_empty_plan_is_a_plan(cache: PlanCache) -> None:
    cache.store(info_of(KEY, b""), b"", b"")
    assert cache.find(KEY).plan == b""


OTHERS = {
    name: "other" if isinstance(value, str) else (("other",) if isinstance(value, tuple) else 99)
    for name, value in msgspec.structs.asdict(KEY).items()
}
NEW_PURPOSE = {"bundle_sha256", "precision", "min_batch", "opt_batch", "max_batch"}


@pytest.mark.parametrize("field", OTHERS)
def test_plan_that_differs_in_a_field_is_not_used_and_the_field_is_named(
    stored: PlanCache, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    caplog.set_level("INFO")
    other = changed(KEY, **{field: OTHERS[field]})
    assert other.digest != KEY.digest
    assert stored.find(other) is None
    said = f"{field} was {getattr(KEY, field)}, is {OTHERS[field]}"
    assert (said in caplog.text) == (field not in NEW_PURPOSE)
    assert caplog.text.count(" was ") == (field not in NEW_PURPOSE)


@pytest.mark.parametrize("field", OTHERS)
def test_plan_under_the_name_of_another_is_not_used(
    stored: PlanCache, path: Path, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    """Whatever stands in its file counts, not its file's name."""
    other = changed(KEY, **{field: OTHERS[field]})
    for suffix in (".plan", ".json"):
        (path / (KEY.digest + suffix)).rename(path / (other.digest + suffix))
    assert stored.find(other) is None
    assert f"{field} was {getattr(KEY, field)}, is {OTHERS[field]}" in caplog.text


def truncated(path: Path) -> None:
    plan_file(path).write_bytes(PLAN[:-1])


def lengthened(path: Path) -> None:
    plan_file(path).write_bytes(PLAN + b"\0")


def one_bit(path: Path) -> None:
    data = bytearray(PLAN)
    data[1000] ^= 1
    plan_file(path).write_bytes(bytes(data))


def emptied(path: Path) -> None:
    plan_file(path).write_bytes(b"")


def absent(path: Path) -> None:
    plan_file(path).unlink()


def linked(path: Path) -> None:
    elsewhere = path.parent / "planted"
    plan_file(path).rename(elsewhere)
    plan_file(path).symlink_to(elsewhere)


def a_pipe(path: Path) -> None:
    plan_file(path).unlink()
    os.mkfifo(plan_file(path))


def a_folder(path: Path) -> None:
    plan_file(path).unlink()
    plan_file(path).mkdir()


def sidecar_truncated(path: Path) -> None:
    sidecar(path).write_bytes(sidecar(path).read_bytes()[:-1])


def sidecar_no_json(path: Path) -> None:
    sidecar(path).write_bytes(b"\xff\xfe")


def sidecar_other_form(path: Path) -> None:
    sidecar(path).write_bytes(b'{"key": {}}')


def sidecar_with_more(path: Path) -> None:
    sidecar(path).write_bytes(sidecar(path).read_bytes()[:-1] + b',"more":1}')


def key_with_more(path: Path) -> None:
    sidecar(path).write_bytes(sidecar(path).read_bytes().replace(b'"key":{', b'"key":{"more":1,'))


def sidecar_huge(path: Path) -> None:
    sidecar(path).write_bytes(sidecar(path).read_bytes() + b" " * (1 << 16))


def sidecar_linked(path: Path) -> None:
    elsewhere = path.parent / "planted.json"
    sidecar(path).rename(elsewhere)
    sidecar(path).symlink_to(elsewhere)


def sidecar_bent(path: Path) -> None:
    info = info_of(KEY)
    other = msgspec.structs.replace(info, plan_sha256="0" * 64)
    sidecar(path).write_bytes(msgspec.json.encode(other))


def sidecar_negative(path: Path) -> None:
    other = msgspec.structs.replace(info_of(KEY), n_bytes=-1)
    sidecar(path).write_bytes(msgspec.json.encode(other))


SPOILT: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (
        truncated, lengthened, one_bit, emptied, absent, linked, a_pipe, a_folder,
        sidecar_truncated, sidecar_no_json, sidecar_other_form, sidecar_with_more, key_with_more,
        sidecar_huge, sidecar_linked, sidecar_bent, sidecar_negative,
    )
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_spoilt_entry_is_never_used_and_is_built_again(
    stored: PlanCache, path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    spoil(path)
    assert stored.find(KEY) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "is built again: " in record.getMessage()
    assert len(record.getMessage()) > 60
    if spoil is a_folder:
        return  # nobody makes one, and what happens then is a sentence
    stored.store(info_of(KEY), PLAN, TIMINGS)
    assert stored.find(KEY).plan == PLAN


def test_entry_in_the_way_of_which_a_folder_stands_is_a_sentence(
    stored: PlanCache, path: Path
) -> None:
    a_folder(path)
    with pytest.raises(EngineUnavailableError, match=r"expected to write .* got Is a directory"):
        stored.store(info_of(KEY), PLAN, TIMINGS)


def test_links_are_replaced_and_never_written_through(stored: PlanCache, path: Path) -> None:
    victim = path.parent / "victim"
    victim.write_text("precious")
    for name in (plan_file(path), sidecar(path), path / KEY.timings):
        name.unlink()
        name.symlink_to(victim)
    stored.store(info_of(KEY), PLAN, TIMINGS)
    assert victim.read_text() == "precious"
    assert not plan_file(path).is_symlink()
    assert stored.find(KEY).plan == PLAN


def test_files_and_folder_are_for_the_owner_alone(stored: PlanCache, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_removed_plan_is_gone(stored: PlanCache, path: Path) -> None:
    stored.remove(KEY)
    assert stored.find(KEY) is None
    stored.remove(KEY)
    assert names(path) == {KEY.timings}


# The folder.


def test_folder_that_others_can_read_is_closed_to_them(cache: PlanCache, path: Path) -> None:
    path.mkdir(parents=True, mode=0o755)
    assert cache.find(KEY) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_folder_that_others_can_write_to_is_refused(
    stored: PlanCache, path: Path, mode: int
) -> None:
    path.chmod(mode)
    for act in (
        lambda: stored.find(KEY),
        lambda: stored.store(info_of(KEY), PLAN, TIMINGS),
        lambda: stored.timings(KEY),
        lambda: stored.remove(KEY),
        lambda: stored.lock().__enter__(),
    ):
        with pytest.raises(EngineUnavailableError, match=f"can write .* got mode {mode:o}; .*700"):
            act()
    assert plan_file(path).exists()


def test_folder_of_another_user_is_refused(
    stored: PlanCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(folder_module.os, "geteuid", lambda: other)
    with pytest.raises(
        EngineUnavailableError, match=rf"belong to user {other}, got {other - 1}; set EDGE_GRU"
    ):
        stored.find(KEY)


def test_file_of_another_user_is_not_used(
    stored: PlanCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PrivateFolder.open(path) as folder:
        monkeypatch.setattr(folder_module.os, "geteuid", lambda: 12345)
        with pytest.raises(OSError, match="not a regular file of this user"):
            folder.read(plan_file(path).name, 1 << 20)


def test_link_to_a_folder_is_refused(stored: PlanCache, path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(EngineUnavailableError, match=r"expected a folder .*link for T"):
        PlanCache(link).find(KEY)


@pytest.mark.parametrize("where", ["itself", "above"])
def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, where: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    folder = blocked if where == "itself" else blocked / "plans"
    with pytest.raises(
        EngineUnavailableError, match=r"expected a folder .* set EDGE_GRU_TENSORRT_CACHE"
    ):
        PlanCache(folder).find(KEY)


def test_nothing_stays_open(stored: PlanCache, path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        stored.find(KEY)
        stored.store(info_of(KEY), PLAN, TIMINGS)
        stored.timings(KEY)
        with stored.lock():
            pass
    path.chmod(0o777)
    with pytest.raises(EngineUnavailableError):
        stored.find(KEY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Writing.


class Disk:
    """Notes what is synced and renamed, and fails at one of these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.fail_at = -1
        self._fsync, self._rename = os.fsync, os.rename
        monkeypatch.setattr(folder_module.os, "fsync", self.fsync)
        monkeypatch.setattr(folder_module.os, "rename", self.rename)

    def _note(self, what: str) -> None:
        if len(self.done) == self.fail_at:
            self.done.append("failed")
            raise OSError(28, "No space left on device")
        self.done.append(what)

    def fsync(self, handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        size = os.fstat(handle).st_size
        self._note("sync folder" if is_folder else f"sync {size}")
        self._fsync(handle)

    def rename(self, source: str, target: str, **folders: int) -> None:
        self._note(f"rename {target.rpartition('.')[2]}")
        self._rename(source, target, **folders)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_plan_is_on_the_disk_before_its_sidecar_and_every_file_before_its_name(
    cache: PlanCache, disk: Disk
) -> None:
    cache.store(info_of(KEY), PLAN, TIMINGS)
    n_sidecar = len(msgspec.json.encode(info_of(KEY)))
    assert disk.done == [
        f"sync {len(PLAN)}", "rename plan", "sync folder",
        f"sync {n_sidecar}", "rename json", "sync folder",
        f"sync {32 + len(TIMINGS)}", "rename timings", "sync folder",
    ]  # fmt: skip


@pytest.mark.parametrize("fail_at", range(9))
def test_full_disk_is_a_sentence_and_leaves_no_half_entry(
    stored: PlanCache, path: Path, disk: Disk, fail_at: int
) -> None:
    disk.fail_at = fail_at
    other = PLAN[::-1]
    with pytest.raises(
        EngineUnavailableError, match=r"got No space left on device; free space, or set EDGE_GRU"
    ):
        stored.store(info_of(KEY, other), other, TIMINGS)
    found = stored.find(KEY)
    assert found is None or found.plan in (PLAN, other)
    assert not any(name.endswith(".part") for name in names(path))
    disk.fail_at = -1
    stored.store(info_of(KEY, other), other, TIMINGS)
    assert stored.find(KEY).plan == other


# What is removed.


def test_plan_for_the_same_purpose_replaces_the_old_one(stored: PlanCache, path: Path) -> None:
    new = changed(KEY, tensorrt="10.16.2")
    stored.store(info_of(new), PLAN, TIMINGS)
    assert stored.find(KEY) is None
    assert stored.find(new) is not None
    assert not plan_file(path).exists()


@pytest.mark.parametrize("field", sorted(NEW_PURPOSE))
def test_plans_for_other_purposes_stay(stored: PlanCache, field: str) -> None:
    stored.store(info_of(changed(KEY, **{field: OTHERS[field]})), PLAN, TIMINGS)
    assert stored.find(KEY) is not None


def test_no_more_than_32_plans_are_kept_the_newest(cache: PlanCache, path: Path) -> None:
    keys = [changed(KEY, max_batch=n) for n in range(1, 36)]
    for age, key in enumerate(keys):
        cache.store(info_of(key), PLAN, TIMINGS)
        os.utime(path / f"{key.digest}.json", (age, age))
    cache.store(info_of(changed(KEY, max_batch=99)), PLAN, TIMINGS)
    kept = [key.max_batch for key in keys if cache.find(key) is not None]
    assert kept == list(range(5, 36))
    assert cache.find(changed(KEY, max_batch=99)) is not None
    assert len(list(path.glob("*.plan"))) == len(list(path.glob("*.json"))) == 32


def test_remains_of_killed_writers_are_removed(stored: PlanCache, path: Path) -> None:
    for name in ("x.plan.0123.part", f"{'1' * 64}.plan", f"{'2' * 64}.json"):
        (path / name).write_bytes(b"half")
    stored.store(info_of(KEY), PLAN, TIMINGS)
    assert names(path) == {f"{KEY.digest}.plan", f"{KEY.digest}.json", KEY.timings}


def test_sidecar_without_its_plan_is_removed(stored: PlanCache, path: Path) -> None:
    other = changed(KEY, max_batch=7)
    stored.store(info_of(other), PLAN, TIMINGS)
    plan_file(path).unlink()
    stored.store(info_of(other), PLAN, TIMINGS)
    assert not sidecar(path).exists()


# Timings.


def test_timings_are_those_of_the_last_build_on_such_a_board(stored: PlanCache) -> None:
    assert stored.timings(changed(KEY, bundle_sha256="d" * 64, precision="fp16")) == TIMINGS
    for field in (
        "tensorrt",
        "cuda_runtime",
        "compute_capability",
        "n_multiprocessors",
        "board",
    ):
        assert stored.timings(changed(KEY, **{field: OTHERS[field]})) == b""


@pytest.mark.parametrize("spoil", ["cut", "bent", "empty", "linked"])
def test_spoilt_timings_are_as_good_as_none(stored: PlanCache, path: Path, spoil: str) -> None:
    file = path / KEY.timings
    data = file.read_bytes()
    if spoil == "linked":
        file.rename(path.parent / "planted")
        file.symlink_to(path.parent / "planted")
    else:
        changed_data = {"cut": data[:-1], "bent": b"\0" + data[1:], "empty": b""}
        file.write_bytes(changed_data[spoil])
    assert stored.timings(KEY) == b""


# The lock.


def test_lock_keeps_others_out_until_it_ends(
    cache: PlanCache, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    order = []
    waiting = threading.Event()
    monkeypatch.setattr(folder_module, "_POLL_S", 0.001)

    class Cancel(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.set()
            return super().wait(timeout)

    def second() -> None:
        with PlanCache(path).lock(Cancel()):
            order.append("second")

    with cache.lock():
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert caplog.text.count("another process builds a TensorRT plan") == 1


def test_waiting_for_the_lock_can_be_stopped(cache: PlanCache, path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with (
        cache.lock(),
        pytest.raises(EngineUnavailableError, match=r"another process .* was stopped"),
        PlanCache(path).lock(cancel),
    ):
        pass
    with cache.lock(cancel):  # free: nothing to wait for
        pass


@pytest.mark.parametrize("call", ["open", "flock"])
def test_folder_without_locks_is_a_sentence(
    cache: PlanCache, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    cache.find(KEY)
    if call == "open":
        (path / "lock").symlink_to(path / "elsewhere")
    else:

        def flock(*_: object) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr(folder_module.fcntl, "flock", flock)
    with pytest.raises(EngineUnavailableError, match=r"expected to write to the folder"):
        cache.lock().__enter__()
    assert not (path / "elsewhere").exists()
