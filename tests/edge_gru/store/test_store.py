from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from edge_gru.errors import BundleError, StoreError
from edge_gru.store import Store, TrialPlan
from edge_gru.store.store import whole

ASKED = TrialPlan(duration_s=60, n_starts=3)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "bundles", patience_s=0)


def names(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.iterdir())


def test_first_bundle_serves_at_once_since_there_is_none_to_go_back_to(store, signed):
    candidate, is_new = store.install(signed(1), ASKED)
    assert is_new
    assert candidate.trial is None
    assert candidate.entry.status == "committed"
    assert whole(store.begin()).hash == signed(1).bundle.hash


def test_second_bundle_is_on_trial_and_the_first_stays(store, signed):
    first, _ = store.install(signed(1), ASKED)
    second, _ = store.install(signed(2), ASKED)
    assert (second.trial.starts_left, second.trial.duration_s) == (3, 60)
    assert whole(store.current()).hash == signed(2).bundle.hash
    assert names(store) == sorted(
        [first.folder, second.folder, "current", "previous", "lock", "state.json", ".reserve"]
    )
    assert (store.root / "current").readlink().name == second.folder
    assert (store.root / "previous").readlink().name == first.folder


def test_links_lead_to_files_that_anybody_can_check(store, signed):
    store.install(signed(1))
    folder = store.root / "current"
    assert (folder / "model.egb").read_bytes() == signed(1).data
    assert (folder / "model.egb.minisig").read_text() == signed(1).signature_text


def test_same_bundle_again_changes_nothing(store, signed):
    store.install(signed(1))
    before = store.stamp()
    candidate, is_new = store.install(signed(1))
    assert not is_new
    assert candidate.entry.version == 1
    assert store.stamp() == before


def test_without_a_trial_a_bundle_is_committed_and_can_be_rolled_back(store, signed):
    store.install(signed(1))
    second, _ = store.install(signed(2), TrialPlan(duration_s=0))
    assert second.trial is None
    assert store.rollback("by hand").entry.version == 1


def test_starts_are_counted_before_they_happen_and_the_last_one_rolls_back(store, signed):
    store.install(signed(1))
    store.install(signed(2), ASKED)
    assert [store.begin().entry.version for _ in range(5)] == [2, 2, 2, 1, 1]
    failed = next(entry for entry in store.read().entries.values() if entry.version == 2)
    assert (failed.status, failed.reason) == ("failed", "it did not stay up in 3 starts")


def test_a_stop_gives_the_start_back(store, signed):
    store.install(signed(1))
    folder = store.install(signed(2), ASKED)[0].folder
    for _ in range(10):
        assert store.begin().entry.version == 2
        store.note_stopped(folder)
    assert store.current().trial.starts_left == 3


def test_good_service_adds_up_over_starts_and_commits(store, signed):
    store.install(signed(1))
    folder = store.install(signed(2), ASKED)[0].folder
    store.begin()
    assert store.note_served(folder, 40).trial.served_s == 40
    store.begin()
    assert store.note_served(folder, 20).trial is None
    assert store.current().entry.status == "committed"
    assert [store.begin().entry.version for _ in range(5)] == [2] * 5


def test_service_of_the_one_before_does_not_count_for_the_new_one(store, signed):
    first = store.install(signed(1))[0].folder
    store.install(signed(2), ASKED)
    assert store.note_served(first, 1000).trial.served_s == 0
    assert store.note_stopped(first).trial.starts_left == 3
    assert store.retreat(first, "too late").entry.version == 2


def test_rolled_back_bundle_is_gone_and_not_taken_again(store, signed):
    store.install(signed(1))
    second = store.install(signed(2), ASKED)[0]
    assert store.rollback("golden vectors").entry.version == 1
    assert not (store.root / second.folder).exists()
    assert not (store.root / "previous").is_symlink()
    with pytest.raises(StoreError, match=r"failed here before \(golden vectors\)"):
        store.install(signed(2))
    assert store.begin().entry.version == 1
    assert store.install(signed(2), ASKED, is_forced=True)[0].entry.version == 2


def test_nothing_to_go_back_to_is_said(store, signed):
    store.install(signed(1))
    with pytest.raises(StoreError, match="expected an earlier bundle to go back to"):
        store.rollback("by hand")
    assert store.begin().entry.version == 1


def test_bundle_that_takes_the_place_of_one_on_trial_goes_back_to_the_proven_one(store, signed):
    store.install(signed(1))
    store.install(signed(2), ASKED)
    store.install(signed(3), ASKED)
    assert store.rollback("no good").entry.version == 1


def test_previous_is_kept_until_the_next_one_comes(store, signed):
    store.install(signed(1))
    store.install(signed(2), ASKED)
    store.confirm()
    assert store.current().trial is None
    assert store.rollback("by hand").entry.version == 1


@pytest.mark.parametrize("is_committed", [True, False])
def test_older_version_is_refused_also_after_it_was_pruned(store, signed, is_committed):
    for version in (3, 4, 5):
        store.install(signed(version), ASKED)
        if is_committed:
            store.confirm()
    with pytest.raises(StoreError, match="version 2 is older than version 5"):
        store.install(signed(2))
    with pytest.raises(StoreError, match="version 4"):
        store.install(signed(4))
    assert store.begin().entry.version == 5
    assert store.install(signed(2), is_forced=True)[0].entry.version == 2
    with pytest.raises(StoreError, match="version 3"):
        store.install(signed(3))


def test_version_once_used_is_not_taken_for_other_content(store, signed, pack, schema):
    store.install(signed(1))
    other = signed(7)
    replayed = type(other)(other.bundle, other.data, "x", signed(1).release, "k")
    with pytest.raises(StoreError, match="is another bundle than the version 1 that was here"):
        store.install(replayed)


def test_other_model_is_refused(store, signed, pack, schema):
    store.install(signed(1))
    other = pack(schema, name="pump")
    stranger = type(signed(1))(
        other, other.to_bytes(), "x", type(signed(1).release)("pump", 9), "k"
    )
    with pytest.raises(StoreError, match="another model than tiny"):
        store.install(stranger)


def test_back_to_the_version_before_by_force_ends_the_trial(store, signed):
    store.install(signed(1))
    store.install(signed(2), ASKED)
    candidate, _ = store.install(signed(1), ASKED, is_forced=True)
    assert (candidate.entry.version, candidate.trial) == (1, None)
    assert store.read().previous is None


def test_state_that_is_lost_is_read_from_the_bundles(store, signed, caplog):
    store.install(signed(1))
    store.install(signed(2), TrialPlan(duration_s=0))
    (store.root / "state.json").write_bytes(b"\0" * 100)
    candidate = store.begin()
    assert (candidate.entry.version, candidate.trial) == (2, None)
    assert "is lost" in caplog.text
    caplog.clear()
    assert store.rollback("by hand").entry.version == 1
    assert "is lost" not in caplog.text


def test_replay_is_refused_also_after_the_state_was_lost(store, signed):
    for version in (1, 2, 3):
        store.install(signed(version), TrialPlan(duration_s=0))
    (store.root / "state.json").unlink()
    with pytest.raises(StoreError, match="version 1 is older than version 3"):
        store.install(signed(1))


def test_state_and_links_lost_leave_the_newest(store, signed):
    store.install(signed(1))
    store.install(signed(2), TrialPlan(duration_s=0))
    for name in ("state.json", "current", "previous"):
        (store.root / name).unlink()
    assert store.begin().entry.version == 2


def test_bundle_that_the_disk_lost_is_left_for_the_one_before(store, signed):
    store.install(signed(1))
    candidate, _ = store.install(signed(2), TrialPlan(duration_s=0))
    candidate.path.write_bytes(b"\0" * 500)
    with pytest.raises(BundleError):
        whole(store.begin())
    assert whole(store.retreat(candidate.folder, "damaged")).hash == signed(1).bundle.hash
    assert store.begin().entry.version == 1


def test_other_bundle_in_the_folder_is_not_taken_for_the_one_installed(store, signed):
    candidate, _ = store.install(signed(1))
    candidate.path.write_bytes(signed(2).data)
    with pytest.raises(BundleError, match="is not the bundle that was installed there"):
        whole(store.begin())


@pytest.mark.parametrize("version", [1, 2])
def test_installing_again_mends_what_the_disk_lost(store, signed, version):
    store.install(signed(1))
    store.install(signed(2), TrialPlan(duration_s=0))
    (folder,) = [f for f in store.read().entries if f"-{version}-" in f]
    (store.root / folder / "model.egb").write_bytes(b"")
    store.install(signed(version), is_forced=True)
    assert (store.root / folder / "model.egb").read_bytes() == signed(version).data


def test_unknown_files_are_left_alone(store, signed):
    store.install(signed(1))
    (store.root / "notes.txt").write_text("mine")
    (store.root / "lost+found").mkdir()
    store.install(signed(2), TrialPlan(duration_s=0))
    assert (store.root / "notes.txt").read_text() == "mine"
    assert (store.root / "lost+found").is_dir()


def test_empty_and_absent_stores_are_told_apart(store, tmp_path):
    with pytest.raises(StoreError, match=r"expected a store of bundles in .*No such file"):
        store.begin()
    store.root.mkdir()
    with pytest.raises(StoreError, match=r"expected a bundle in .*found none"):
        store.begin()


def test_second_process_waits_or_says_so(store, signed):
    store.install(signed(1))
    handle = os.open(store.root / "lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="another edge-gru changes the store"):
        store.install(signed(2))
    assert store.begin().entry.version == 1
    freed = threading.Timer(0.1, os.close, [handle])
    freed.start()
    assert Store(store.root, patience_s=20).install(signed(2))[0].entry.version == 2
    freed.join()


def test_trial_that_cannot_be_counted_is_not_begun(store, signed):
    store.install(signed(1))
    store.install(signed(2), ASKED)
    (store.root / "lock").unlink()
    (store.root / "lock").mkdir()
    assert store.begin().entry.version == 1
    assert store.retreat(store.current().folder, "no good").entry.version == 1


def test_links_in_place_of_files_are_not_followed(store, signed, tmp_path):
    store.install(signed(1))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".state.json.new", ".current.new", ".incoming", ".restored"):
        (store.root / name).symlink_to(victim)
    store.install(signed(2), ASKED)
    assert victim.read_text() == "precious"
    candidate = store.current()
    candidate.path.unlink()
    candidate.path.symlink_to(victim)
    store.install(signed(2))
    assert victim.read_text() == "precious"
    assert whole(candidate).hash == signed(2).bundle.hash
    (store.root / "lock").unlink()
    (store.root / "lock").symlink_to(victim)
    with pytest.raises(StoreError, match="cannot change the store"):
        store.rollback("by hand")
    assert victim.read_text() == "precious"


def test_state_that_lies_elsewhere_is_not_read(store, signed, tmp_path):
    store.install(signed(1))
    forged = (store.root / "state.json").rename(tmp_path / "forged.json")
    forged.write_text(forged.read_text().replace('"version": 1', '"version": 7'))
    (store.root / "state.json").symlink_to(forged)
    assert store.begin().entry.version == 1
    assert not (store.root / "state.json").is_symlink()


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "..", "x" * 300, "é ü", "-n"])
def test_name_of_a_model_stays_within_the_store(store, signed, pack, schema, name):
    odd = pack(schema, name=name)
    made = signed(1)
    release = type(made.release)(name, 1)
    text = made.signature_text.replace("name:tiny", f"name:{name}")
    candidate, _ = store.install(type(made)(odd, odd.to_bytes(), text, release, "k"))
    assert candidate.path.parent.parent == store.root
    assert whole(store.begin()).manifest.name == name
    store.install(signed(2), is_forced=True)
    assert store.begin().entry.version == 2


def test_failures_are_remembered_in_bounded_space(store, signed):
    store.install(signed(1))
    for version in range(2, 80):
        made = signed(2)
        release = type(made.release)("tiny", version)
        data = made.data + bytes([version])
        store.install(type(made)(made.bundle, data, made.signature_text, release, "k"), ASKED)
        store.rollback("no good")
    assert len(store.read().entries) <= 66
    assert store.begin().entry.version == 1


def test_full_disk_keeps_nobody_from_going_back(store, signed, tmp_path, faulty_disk):
    """The reserve is what there is room for, once."""
    store.install(signed(1))
    store.install(signed(2), ASKED)

    class FullDisk(faulty_disk):
        def write(self, handle, data):
            if (self.root / ".reserve").exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(handle, data)

    full = Store(store.root, disk=FullDisk(store.root, -1, lambda: None))
    assert full.rollback("by hand").entry.version == 1
    assert store.begin().entry.version == 1
    assert (store.root / ".reserve").stat().st_size > 1 << 15


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_store_that_is_not_for_this_user_to_read_is_not_taken_for_lost(signed, caplog):
    folder = Path(tempfile.mkdtemp())  # that other users reach, as those of pytest are not
    folder.chmod(0o755)
    store = Store(folder / "bundles")
    store.install(signed(1))
    (store.root / "state.json").chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=r"cannot read the store .* run it as root"):
            store.read()
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)
    assert "lost" not in caplog.text
