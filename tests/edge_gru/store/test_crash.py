"""Whatever instant a change of the store is cut at, the next start finds a whole bundle."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_gru.errors import StoreError
from edge_gru.store import Store, TrialPlan
from edge_gru.store.store import whole

ASKED = TrialPlan(duration_s=60, n_starts=2)
AT_ONCE = TrialPlan(duration_s=0)
KEPT_SHARES = (-1.0, 0.0, 0.5, 1.0)  # of the names that were not made durable


@dataclass(frozen=True)
class Change:
    """A store, what is done to it, and the versions that may serve if that is cut short."""

    prepare: Callable[[Store, Callable], None]
    change: Callable[[Store, Callable], object]
    versions: tuple[int | None, ...]


def _two(store: Store, signed: Callable) -> None:
    store.install(signed(1))
    store.install(signed(2), ASKED)


def _out_of_starts(store: Store, signed: Callable) -> None:
    _two(store, signed)
    store.begin()
    store.begin()


def _three(store: Store, signed: Callable) -> None:
    _two(store, signed)
    store.confirm()


def _damaged(store: Store, signed: Callable) -> None:
    store.install(signed(1), AT_ONCE)
    store.install(signed(2), AT_ONCE)
    store.current().path.write_bytes(b"")


def _lost(store: Store, signed: Callable) -> None:
    store.install(signed(1), AT_ONCE)
    store.install(signed(2), AT_ONCE)
    (store.root / "state.json").write_bytes(b"")


def _install(version: int, plan: TrialPlan = ASKED) -> Callable[[Store, Callable], object]:
    return lambda store, signed: store.install(signed(version), plan)


def _call(name: str, *arguments: object) -> Callable[[Store, Callable], object]:
    return lambda store, _: getattr(store, name)(*arguments)


def _serve_well(store: Store, signed: Callable) -> None:
    store.note_served(store.current().folder, 99)


def _stop(store: Store, signed: Callable) -> None:
    store.begin()
    store.note_stopped(store.current().folder)


def _give_up(store: Store, signed: Callable) -> None:
    store.retreat(store.current().folder, "its output is not finite")


def _by_force(version: int) -> Callable[[Store, Callable], object]:
    return lambda store, signed: store.install(signed(version), ASKED, is_forced=True)


def _full_shelf(store: Store, signed: Callable) -> None:
    """Two bundles that are needed, and the remains of others that are to be pruned."""
    _three(store, signed)
    for name in ("tiny-7-0123abcd", ".incoming"):
        (store.root / name).mkdir()
        (store.root / name / "model.egb").write_bytes(b"PK")


def _empty(store: Store, signed: Callable) -> None:
    store.root.mkdir()


CHANGES = {
    "first": Change(_empty, _install(1), (None, 1)),
    "second": Change(_install(1), _install(2), (1, 2)),
    "third": Change(_three, _install(3), (2, 3)),
    "over a trial": Change(_two, _install(3), (2, 3)),
    "mend": Change(_damaged, _install(2), (2, 1)),
    "lost state": Change(_lost, _call("begin"), (2,)),
    "rollback": Change(_two, _call("rollback", "by hand"), (1, 2)),
    "confirm": Change(_two, _call("confirm"), (2,)),
    "start": Change(_two, _call("begin"), (2,)),
    "last start": Change(_out_of_starts, _call("begin"), (1,)),
    "served": Change(_two, _serve_well, (2,)),
    "stop": Change(_two, _stop, (2,)),
    "fault": Change(_two, _give_up, (1, 2)),
    "back by force": Change(_three, _by_force(1), (1, 2)),
    "prune": Change(_full_shelf, _call("rollback", "by hand"), (1, 2)),
}


@pytest.fixture(params=CHANGES)
def case(request, tmp_path, signed) -> tuple[Change, Path]:
    change = CHANGES[request.param]
    root = tmp_path / "prepared"
    change.prepare(Store(root), signed)
    return change, root


def copies(root: Path):
    """Give fresh copies of a prepared store, and take each away again."""
    n = 0
    while True:
        copy = root.with_name(f"copy-{n}")
        shutil.copytree(root, copy, symlinks=True)
        yield copy
        shutil.rmtree(copy)
        n += 1


def serving(root: Path, **options) -> int | None:
    """Start as the service does; the version that serves, whole, or None."""
    store = Store(root, patience_s=0, **options)
    try:
        candidate = store.begin()
        return candidate.entry.version if whole(candidate) else None
    except StoreError:
        return None
    except ValueError:  # damaged: the service goes back
        earlier = store.retreat(candidate.folder, "damaged")
        return earlier.entry.version if earlier and whole(earlier) else None


def check(root: Path, change: Change, signed: Callable, faulty_disk, cut_at: str) -> None:
    """The old or the new one serves; the next update works; from a read-only disk one serves too.

    There a trial that cannot be counted goes back to the bundle before.
    """
    fallback = {*change.versions, *((1, 2) if change is not CHANGES["first"] else ())}

    def refuse() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    assert serving(root, disk=faulty_disk(root, 0, refuse)) in fallback, cut_at
    found = serving(root)
    assert found in change.versions, cut_at
    store = Store(root)
    store.install(signed(9), AT_ONCE)
    assert serving(root) == 9, cut_at
    kept = {"lock", ".reserve", "state.json", "current", *store.read().kept}
    kept |= {"previous"} if store.read().previous else set()
    assert {path.name for path in root.iterdir()} == kept, cut_at


def n_changes_of(change: Change, root: Path, signed: Callable, faulty_disk) -> int:
    disk = faulty_disk(root, -1, lambda: None)
    change.change(Store(root, disk=disk), signed)
    return disk.n_changes


def test_power_cut_before_every_change(case, signed, faulty_disk, power_cut, tears):
    change, prepared = case
    fresh = copies(prepared)
    n_changes = n_changes_of(change, next(fresh), signed, faulty_disk)
    assert n_changes >= 4

    def cut() -> None:
        raise power_cut

    for at in range(n_changes):
        for kept, tear in [(kept, tears[0]) for kept in KEPT_SHARES] + [
            (1.0, t) for t in tears[1:]
        ]:
            root = next(fresh)
            disk = faulty_disk(root, at, cut)
            with pytest.raises(power_cut):
                change.change(Store(root, disk=disk), signed)
            if tear is not tears[0] and not disk.is_dirty:
                break  # there is nothing to tear
            disk.lose(kept, tear)
            what = f"cut at {at}, {kept} kept, {tear.__name__}, after {disk.log}"
            check(root, change, signed, faulty_disk, what)


def test_power_cut_after_the_last_change_takes_nothing_back(case, signed, faulty_disk):
    change, prepared = case
    root = next(copies(prepared))
    disk = faulty_disk(root, -1, lambda: None)
    change.change(Store(root, disk=disk), signed)
    before = Store(root).read()
    disk.lose(0.0)
    assert Store(root).read() == before
    assert whole(Store(root).current())
    assert (root / "current").readlink() == Path(before.current)
    assert before.entries[before.current].version in change.versions


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_change_that_fails_leaves_the_old_or_the_new_one(case, signed, faulty_disk, number):
    change, prepared = case
    fresh = copies(prepared)
    n_changes = n_changes_of(change, next(fresh), signed, faulty_disk)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for at in range(n_changes):
        root = next(fresh)
        disk = faulty_disk(root, at, fail)
        said = ""
        try:
            change.change(Store(root, disk=disk), signed)
        except StoreError as error:
            said = str(error)
        assert not said or os.strerror(number) in said
        check(root, change, signed, faulty_disk, f"failed at {at} after {disk.log}")


# The child makes one change of the store and is killed: no lock of another thread is in its way.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_kill_before_every_change(case, signed, faulty_disk):
    change, prepared = case
    fresh = copies(prepared)
    n_changes = n_changes_of(change, next(fresh), signed, faulty_disk)
    signed(9), signed(3)

    for at in range(n_changes):
        root = next(fresh)
        child = os.fork()
        if not child:
            disk = faulty_disk(root, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            change.change(Store(root, disk=disk), signed)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        check(root, change, signed, faulty_disk, f"killed at {at}")
