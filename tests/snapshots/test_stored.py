"""Snapshots in a storage: whole or not there, checked byte by byte, and no fault of the storage is used or hidden."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from fsspec.registry import _registry

from copl_core.config import Settings
from copl_core.records import CoplError, SnapshotAway, StudyRecord
from copl_core.snapshots import fetching
from copl_core.snapshots.fetching import KEPT_HERE, Fetching
from copl_core.snapshots.snapshot import damage, digest_of, load_snapshot, on_disk, sweep, verify
from copl_core.snapshots.stored import StoredSnapshots
from copl_core.storage import MARK, DamagedFile, Presence, Storage, StorageError, attempt
from db.store import SqlStore, open_store
from tests.snapshots.test_snapshot import reward, write

STUDY = StudyRecord(3, "Study", True, None, 0, False, created_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
GRAPH = "graph/graph.safetensors"


def stored_at(address: str, study: StudyRecord = STUDY) -> StoredSnapshots:
    return StoredSnapshots(Storage(address), study, pauses=(0.0, 0.0))


def names_in(stored: StoredSnapshots) -> set[str]:
    return set(stored.storage.sizes(stored.folder))


def change(stored: StoredSnapshots, version: str, name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "changed").write_bytes(content)
    stored.storage.put({f"{stored.folder}/{version}/{name}": tmp_path / "changed"})


def test_what_is_put_into_any_storage_is_fetched_byte_by_byte_and_removed_whole(address, tmp_path):
    here, there, stored = tmp_path / "here", tmp_path / "there", stored_at(address)
    assert stored.versions() == {} and stored.manifests(["v0001"]) == {}
    written = write(here, "v0001", reward)
    stored.put(written)
    assert stored.versions() == {"v0001": True}
    assert stored.manifests(["v0001", "v0002"]) == {"v0001": written.manifest}
    stored_at(address).fetch("v0001", there)
    found = load_snapshot(there, "v0001")
    assert verify(found) == [] and found.manifest == written.manifest
    assert [path.name for path in there.iterdir()] == ["v0001"], "nothing is left beside it"
    stored.put(write(here, "v0002", seed=1))
    stored.remove("v0001")
    assert stored.versions() == {"v0002": True} and all("/v0002/" in name for name in names_in(stored))


def test_two_installations_at_one_address_do_not_meet(tmp_path):
    address, other = str(tmp_path / "s"), replace(STUDY, created_at=datetime(2026, 1, 2, tzinfo=UTC))
    stored_at(address).put(write(tmp_path, "v0001"))
    assert stored_at(address, other).versions() == {}
    assert stored_at(address, other).sweep(set(), left_seconds=0) == []
    assert stored_at(address).versions() == {"v0001": True}


def test_an_upload_that_was_killed_is_never_visible_and_is_swept_once_nobody_can_be_at_it(address, tmp_path):
    stored = stored_at(address)
    stored.put(write(tmp_path, "v0001"))
    stored.put(write(tmp_path, "v0002", seed=1))
    stored.storage.remove(f"{stored.folder}/v0002/manifest.json")  # as before the last file of an upload
    stored.put(write(tmp_path, "v0003", seed=2))  # whole, but its trainer died before it was recorded
    assert stored.versions() == {"v0001": True, "v0002": False, "v0003": True}
    with pytest.raises(StorageError, match="Snapshot v0002 cannot be fetched .*it is not there"):
        stored.fetch("v0002", tmp_path / "there")
    assert stored.sweep({"v0001"}) == [], "another trainer may be uploading them"
    assert stored.sweep({"v0001"}, left_seconds=0) == ["v0002", "v0003"]
    assert stored.versions() == {"v0001": True}


def test_an_upload_replaces_what_a_killed_one_left(address, tmp_path):
    stored = stored_at(address)
    stored.put(write(tmp_path / "one", "v0001", reward))
    stored.put(write(tmp_path / "two", "v0001", seed=4))
    stored.fetch("v0001", tmp_path / "there")
    assert verify(load_snapshot(tmp_path / "there", "v0001")) == []
    assert not any("reward" in name for name in names_in(stored))


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_is_cut_or_changed_in_the_storage_is_one_sentence_and_never_used(bucket, tmp_path, cut):
    stored = stored_at(bucket[0])
    written = write(tmp_path, "v0001")
    stored.put(written)
    content = (written.folder / GRAPH).read_bytes()
    other = content[:100] if cut else bytes([content[0] ^ 1]) + content[1:]
    change(stored, "v0001", GRAPH, other, tmp_path)
    with pytest.raises(DamagedFile, match=f"v0001 in s3://.* is damaged: {GRAPH} differs .*choose another"):
        stored.fetch("v0001", tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_a_damaged_file_that_is_right_at_the_second_try_is_fetched(bucket, tmp_path):
    stored = stored_at(bucket[0])
    written, right = write(tmp_path, "v0001"), Storage.get
    stored.put(written)

    class Once(Storage):
        tries = 0

        def get(self, files):
            right(self, files)
            Once.tries += 1
            if Once.tries == 1:
                next(iter(files.values())).write_bytes(b"half of it")

    stored.storage = Once(bucket[0])
    stored.fetch("v0001", tmp_path / "there")
    assert verify(load_snapshot(tmp_path / "there", "v0001")) == [] and Once.tries == 2


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "manifest.json", "a/../../b"])
def test_a_manifest_that_names_files_outside_its_folder_is_damaged(tmp_path, name):
    stored = stored_at(str(tmp_path / "storage"))
    stored.put(write(tmp_path, "v0001"))
    manifest = f'{{"files": {{"{name}": {{"bytes": 1, "sha256": "{"0" * 64}"}}}}}}'.encode()
    change(stored, "v0001", "manifest.json", manifest, tmp_path)
    with pytest.raises(DamagedFile, match="manifest.json differs"):
        stored.fetch("v0001", tmp_path / "there")


# ---- the connection


def test_a_connection_that_is_cut_in_the_middle_gives_a_sentence_and_later_the_snapshot(bucket, tmp_path, impatient):
    address, connection = bucket
    stored = stored_at(address)
    stored.put(write(tmp_path, "v0001"))
    connection.cut_after = 900  # of each connection
    with pytest.raises(StorageError, match=r"Snapshot v0001 cannot be fetched from s3://\S+ \(.+\); make it reachable"):
        stored.fetch("v0001", tmp_path / "there")
    assert list((tmp_path / "there").glob("*")) == []
    connection.cut_after = 0
    stored.fetch("v0001", tmp_path / "there")
    assert verify(load_snapshot(tmp_path / "there", "v0001")) == []


def test_a_full_storage_gives_a_sentence_and_holds_nothing_that_looks_whole(bucket, tmp_path, impatient):
    address, connection = bucket
    stored, written = stored_at(address), write(tmp_path, "v0001")
    connection.full = True
    with pytest.raises(StorageError, match=r"v0001 cannot be put into s3://\S+ \(.*full.*\); free some space"):
        stored.put(written)
    connection.full = False
    assert stored.versions() == {}


def test_a_storage_that_is_down_gives_a_sentence(bucket, tmp_path, impatient):
    address, connection = bucket
    stored = stored_at(address)
    connection.down = True
    for act in (lambda: stored.put(write(tmp_path, "v0001")), stored.versions, lambda: stored.fetch("v1", tmp_path)):
        with pytest.raises(StorageError, match="make it reachable"):
            act()


def test_a_slow_storage_holds_nobody_up_and_is_fetched_from_once(bucket, tmp_path):
    address, connection = bucket
    stored_at(address).put(write(tmp_path, "v0001"))
    here = Fetching(Settings(home=tmp_path / "home", storage=address), STUDY.id, lambda: STUDY)
    connection.open.clear()
    for _ in range(3):
        with pytest.raises(SnapshotAway, match="v0001 is being fetched from s3://") as away:
            here.bring("v0001", 0.0)
        assert not away.value.failed
    connection.open.set()
    waiting = [Thread(target=here.bring, args=("v0001", 60.0)) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert verify(load_snapshot(here.root, "v0001")) == []
    fetched = [one for one in connection.requests if one.startswith(b"GET") and GRAPH.encode() in one]
    assert len(fetched) == 1, "one of all callers fetched it"


def test_a_fetch_that_failed_says_why_and_is_tried_again_after_a_while(tmp_path, monkeypatch):
    address = str(tmp_path / "storage")
    here = Fetching(Settings(home=tmp_path / "home", storage=address), STUDY.id, lambda: STUDY)
    with pytest.raises(SnapshotAway, match="v0001 cannot be fetched .*is not there.* tried again every") as away:
        here.bring("v0001", 60.0)
    assert away.value.failed
    stored_at(address).put(write(tmp_path, "v0001"))
    with pytest.raises(SnapshotAway, match="is not there"):
        here.bring("v0001", 60.0)
    monkeypatch.setattr(fetching, "AGAIN_SECONDS", 0.0)
    here.bring("v0001", 60.0)
    assert on_disk(here.root) == {"v0001"}


def test_a_home_keeps_the_champion_and_the_versions_used_last_and_what_the_storage_lacks(tmp_path):
    address = str(tmp_path / "storage")
    here = Fetching(Settings(home=tmp_path / "home", storage=address), STUDY.id, lambda: STUDY)
    versions = [f"v{number:04d}" for number in range(1, KEPT_HERE + 5)]
    for number, version in enumerate(versions):
        written = write(here.root, version, seed=number)
        os.utime(written.folder, (number, number))
        if version != "v0002":
            stored_at(address).put(written)
    whole = set(stored_at(address).versions())
    assert here.trim(whole, {"v0001"}) == ["v0003", "v0004"]
    assert on_disk(here.root) == {"v0001", "v0002", *versions[-KEPT_HERE:]}


def test_a_sweep_leaves_the_fetches_of_others_and_removes_old_ones(tmp_path):
    (tmp_path / ".fetching-v0001-1-a").mkdir()
    (tmp_path / ".fetching-v0001-2-b").mkdir()
    os.utime(tmp_path / ".fetching-v0001-2-b", (0, 0))
    assert sweep(tmp_path, set()) == [".fetching-v0001-2-b"]


# ---- addresses


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nosuch://bucket", "which no package opens .*nosuch.*; give a folder"),
        ("gs://bucket", "gs:// is not installed .*; install gcsfs"),
        ("az://container", "az:// is not installed .*; install adlfs"),
        ("relative/folder", "give a folder from the root"),
    ],
)
def test_an_address_that_cannot_be_opened_is_refused_in_a_sentence(address, words):
    with pytest.raises(CoplError, match=f"COPL_STORAGE is '{address}'.*{words}"):
        Storage(Settings(storage=address).storage)


def test_a_missing_package_for_s3_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(CoplError, match=r'install "copl-studio\[s3\]"'):
        Storage("s3://bucket")


def test_a_password_in_an_address_is_never_shown():
    assert Storage("memory://name:secret@host/x").address == "memory://host/x"


@pytest.mark.parametrize("secret", ["name:hidden@", "name%3Ahidden%40", "name:hid?den@"])
def test_no_secret_of_an_address_is_in_any_sentence(secret):
    assert Storage("memory://host/x?secret=hidden").address == "memory://host/x"
    for words in (f"Invalid bucket name '{secret}bucket': no", f"no http://{secret}host/x?key=hid&secret=hidden here"):
        with pytest.raises(StorageError) as refused:
            attempt("It fails", partial(_fail, words), "mend it", ())
        found = str(refused.value)
        assert "hid" not in found and ("bucket'" in found or "http://host/x here" in found)


def _fail(words: str) -> None:
    raise ValueError(words)


def test_a_bucket_that_is_not_there_and_a_folder_without_rights_are_a_sentence(bucket, tmp_path, impatient):
    with pytest.raises(StorageError, match=r"cannot be put into s3://nosuch/x \(.*bucket"):
        stored_at("s3://nosuch/x").put(write(tmp_path, "v0001"))
    if os.getuid() == 0:
        folder = "/proc/copl"  # nobody makes a folder there
    else:
        folder = str(tmp_path / "closed" / "x")
        (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StorageError, match=r"cannot be put into .* \(.+\); free some space there or make it reachable"):
        stored_at(folder).put(write(tmp_path, "v0002"))


def test_a_storage_that_is_not_mounted_is_written_and_read_no_more(tmp_path):
    mount, settings = tmp_path / "mount", Settings(home=tmp_path / "home", storage=str(tmp_path / "mount"))
    here, other = (Fetching(replace(settings, home=tmp_path / home), STUDY.id, lambda: STUDY) for home in ("a", "b"))
    written = write(tmp_path, "v0001")
    here.stored.put(written)
    other.bring("v0001", 60.0)
    mount.rename(tmp_path / "elsewhere")
    mount.mkdir()
    for act in (
        lambda: here.stored.put(written),
        lambda: here.stored.remove("v0001"),
        lambda: other.stored.fetch("v0001", tmp_path / "there"),
    ):
        with pytest.raises(StorageError, match="is not the storage .* mount it, or correct COPL_STORAGE"):
            act()
    assert list(mount.iterdir()) == []
    mount.rmdir()
    (tmp_path / "elsewhere").rename(mount)
    here.stored.put(write(tmp_path, "v0002", seed=1))
    assert here.stored.versions() == {"v0001": True, "v0002": True}


def test_a_copy_in_which_a_bit_has_flipped_or_a_manifest_was_replaced_is_fetched_again(tmp_path):
    address, written = str(tmp_path / "storage"), write(tmp_path / "trainer", "v0001", reward)
    stored_at(address).put(written)
    settings, digest = Settings(home=tmp_path / "home", storage=address), digest_of(written.folder / "manifest.json")

    def machine(known: str = digest) -> Fetching:
        """A process that has just started."""
        return Fetching(settings, STUDY.id, lambda: STUDY, manifest=lambda version: known)

    machine().bring("v0001", 60.0)
    for name in (GRAPH, "manifest.json"):
        file = machine().root / "v0001" / name
        content = bytearray(file.read_bytes())
        content[-2] ^= 4
        file.write_bytes(content)
        machine().bring("v0001", 60.0)
        assert damage(machine().root, "v0001", digest) == "" and on_disk(machine().root) == {"v0001"}
    file.write_bytes(content)
    (tmp_path / "storage").rename(tmp_path / "away")
    with pytest.raises(SnapshotAway, match="cannot be fetched"):
        machine().bring("v0001", 60.0)
    (tmp_path / "away").rename(tmp_path / "storage")
    with pytest.raises(SnapshotAway, match=r"v0001 in .* is damaged: manifest\.json differs from what was written"):
        machine("0" * 64).bring("v0001", 60.0)


def test_a_database_knows_its_storage_again_whoever_looks(tmp_path):
    store, other = (open_store(f"sqlite:///{tmp_path / name}.db") for name in ("one", "two"))
    one, two = Storage(str(tmp_path / "one")), Storage(str(tmp_path / "two"))

    def presence(storage: Storage, store: SqlStore, home: str) -> Presence:
        return Presence(storage, tmp_path / home / "used.txt", store.storage_mark)

    assert not presence(one, store, "a").check()
    presence(one, store, "a").use(to_write=True)
    assert presence(one, store, "b").check()
    for storage, database in ((two, store), (one, other)):  # another bucket; another database
        for act in (
            presence(storage, database, "c").check,
            partial(presence(storage, database, "c").use, to_write=True),
        ):
            with pytest.raises(StorageError, match="not the storage of this database"):
                act()
    assert two.read([MARK]) == {} and other.storage_mark() == ("", False)
    presence(two, store, "a").begin()
    assert presence(two, store, "c").check() and presence(one, store, "c").check()
    presence(one, other, "a").begin()
    assert presence(one, other, "c").check()
    with pytest.raises(StorageError, match="has another mark"):
        presence(one, store, "a").check()
    (tmp_path / "file").write_text('{"made_by": "copl-studio"}')  # of an earlier version
    two.put({MARK: tmp_path / "file"})
    presence(two, store, "a").use(to_write=True)
    assert store.storage_mark()[0].encode() in two.read([MARK])[MARK]


def test_a_storage_that_takes_no_mark_may_be_used_later(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    (tmp_path / "blocked").write_text("a file in the place of the folder")
    there = Presence(Storage(str(tmp_path / "blocked")), tmp_path / "used.txt", store.storage_mark)
    with pytest.raises(OSError, match="."):
        there.use(to_write=True)
    (tmp_path / "blocked").unlink()
    there.use(to_write=True)
    assert there.check()


def test_a_storage_of_an_earlier_version_gets_its_mark_with_the_next_snapshot(address, tmp_path):
    stored_at(address).put(write(tmp_path, "v0001"))
    here = Fetching(Settings(home=tmp_path / "home", storage=address), STUDY.id, lambda: STUDY)
    here.bring("v0001", 60.0)
    here.stored.put(write(tmp_path, "v0002", seed=1))
    assert here.stored.presence.check()
    Storage(address).remove(MARK)
    with pytest.raises(StorageError, match="mount it"):
        here.stored.presence.check()
