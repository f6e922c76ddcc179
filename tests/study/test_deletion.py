"""An owner deletes a study: by its name, with every file of it, and by the next process if it is broken off."""

from __future__ import annotations

import pytest

from copl_core.records import CoplError, Deletion, Role
from copl_core.snapshots.snapshot import on_disk
from copl_core.snapshots.stored import StoredSnapshots
from copl_core.storage import Storage
from copl_core.study import access, bundle, contents, deletion
from copl_core.study.session import Session
from copl_core.trainer import deletions
from tests.trainer.conftest import quick_three_people
from tests.worlds import fit_graph_now, open_study, pairs_to_label


@pytest.fixture
def session(tmp_path) -> Session:
    """A study with a snapshot here and in a storage, beside another one."""
    session = quick_three_people(tmp_path / "home", storage=str(tmp_path / "storage"))
    fit_graph_now(session)
    session.store.create_study("Elsewhere")
    return session


def test_every_file_of_it_goes_and_those_that_name_it_are_listed(session, tmp_path):
    stored = StoredSnapshots(Storage(session.settings.storage), session.record)
    assert stored.versions() and on_disk(session.snapshot_root)
    name, copy = session.record.name, session.settings.home / "copy.zip"
    bundle.backup(session, copy)
    happens = deletion.before_deletion(session)
    assert "bundle" in happens and "go for good" in happens
    done = deletion.delete_study(session, f" {name} ", seconds=None)
    assert done.study.name == name and done.named_in == (copy,) and done.waits == ()
    assert str(copy) in " ".join(done.sentences())
    assert not session.snapshot_root.exists() and stored.versions() == {}
    assert [one.state for one in session.store.deleted_studies()] == [Deletion.DONE]
    text = b"What about number"
    files = [path for path in session.settings.home.rglob("*") if path.is_file() and path != copy]
    assert files and not [path for path in files if text in path.read_bytes()]
    there = open_study(session.settings.home, storage=session.settings.storage)
    assert (
        deletion.deleted_studies(there)[0].startswith(f"{name!r}, ")
        and "in a terminal." in deletion.deleted_studies(there)[0]
    )
    restored, _ = bundle.restore_study(session.store, session.settings, copy, "", lambda new: None)
    assert restored.name == name and restored.id != session.id


def test_another_name_or_somebody_else_deletes_nothing(session):
    olga, rae = (access.join(session, name, role) for name, role in (("Olga", Role.OWNER), ("Rae", Role.RESEARCHER)))
    with pytest.raises(CoplError, match="Nothing is deleted: the name to type is"):
        deletion.delete_study(session, "another name", by=olga.id)
    with pytest.raises(CoplError, match="only an owner"):
        deletion.delete_study(session, session.record.name, by=rae.id)
    assert session.store.deleted_studies() == [] and len(session.store.studies()) == 2


def test_what_takes_long_is_left_to_the_trainer_which_the_database_tells(session):
    contents.import_rows(session, pairs_to_label(300, start=100))
    done = deletion.delete_study(session, session.record.name, seconds=0.0)
    assert "the trainer goes on" in " ".join(done.sentences())
    assert [one.state for one in session.store.deleted_studies()] == [Deletion.ROWS]
    assert deletions.go_on(session.store, session.settings) == []
    assert [one.state for one in session.store.deleted_studies()] == [Deletion.DONE]


def test_a_storage_that_is_away_is_emptied_once_it_is_back(session, tmp_path):
    stored = StoredSnapshots(Storage(session.settings.storage), session.record)
    (tmp_path / "storage").rename(tmp_path / "away")
    done = deletion.delete_study(session, session.record.name, seconds=None)
    assert "still holds files of the deleted study" in " ".join(done.waits)
    assert [one.state for one in session.store.deleted_studies()] == [Deletion.FILES]
    (tmp_path / "away").rename(tmp_path / "storage")
    assert deletions.go_on(session.store, session.settings) == [] and stored.versions() == {}


def test_each_home_removes_what_it_holds(session, tmp_path):
    other = open_study(
        tmp_path / "other",
        database_url=f"sqlite:///{session.settings.home / 'copl.db'}",
        storage=session.settings.storage,
    )
    Session(other.store, other.settings, session.id).bring("v0001")
    there = other.settings.snapshots / str(session.id)
    assert on_disk(there)
    deletion.delete_study(session, session.record.name, seconds=None)
    assert on_disk(there) and deletions.go_on(other.store, other.settings) == [] and not there.exists()
