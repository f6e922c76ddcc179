"""Machines that share a storage: what one publishes the others show, and a storage that fails costs no champion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from threading import Event, Thread

import pytest
from sqlalchemy import text

from copl_core.config import Settings
from copl_core.records import Choice, CoplError, RunState, SnapshotAway
from copl_core.snapshots import fetching, stored
from copl_core.snapshots.snapshot import on_disk, verify
from copl_core.snapshots.stored import StoredSnapshots
from copl_core.storage import Storage
from copl_core.study import access, bundle, experts, forget, labelling, runs, user_map
from copl_core.study.session import Session
from copl_core.trainer import service
from copl_core.trainer.departures import CleanUp, clean_up
from copl_core.trainer.schedule import FEWEST
from copl_core.trainer.shared_snapshots import SharedSnapshots
from copl_core.trainer.start import start_of
from copl_core.trainer.worker import Trainer
from tests.storages import s3
from tests.trainer.conftest import quick_three_people
from tests.worlds import fit_graph_now, open_study, trainer


@pytest.fixture
def storage(tmp_path) -> str:
    return str(tmp_path / "storage")


@pytest.fixture
def session(tmp_path, storage) -> Session:
    """A study whose trainer has a home of its own and publishes into the storage."""
    return quick_three_people(tmp_path / "trainer", storage=storage)


def elsewhere(session: Session, home: Path, **settings) -> Session:
    """The same study in the app of another machine, whose pages do not wait."""
    url = f"sqlite:///{session.settings.home / 'copl.db'}"
    opened = open_study(home, database_url=url, storage=session.settings.storage, **settings)
    return Session(opened.store, opened.settings, session.id, patience=0.0)


def in_storage(session: Session) -> StoredSnapshots:
    return StoredSnapshots(Storage(session.settings.storage), session.record, pauses=(0.0, 0.0))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_here(session: Session, version: str) -> bool:
    away = runs.champion_away(session)
    assert away is None or not away.failed, away
    return away is None and session.snapshot().version == version


def test_the_app_of_another_machine_follows_the_champion_and_labelling_never_waits(session, tmp_path):
    assert fit_graph_now(session) == "v0001" and in_storage(session).versions() == {"v0001": True}
    app = elsewhere(session, tmp_path / "app")
    ann = access.join(app, "Ann")
    with pytest.raises(SnapshotAway, match="v0001 is being fetched"):
        app.snapshot()
    task = labelling.next_task(app, ann.id)
    assert labelling.submit(app, task.id, ann.id, Choice.LEFT).label
    until(lambda: is_here(app, "v0001"))
    assert verify(app.snapshot()) == [] and user_map.map_of_users(app).snapshot == "v0001"
    assert fit_graph_now(session) == "v0002"
    until(lambda: is_here(app, "v0002"))
    runs.promote(app, "v0001")
    assert is_here(session, "v0001") and is_here(app, "v0001")


def test_a_trainer_of_another_machine_starts_from_the_champion_and_gives_the_next_version(session, tmp_path):
    fit_graph_now(session)
    other = elsewhere(session, tmp_path / "other")
    assert fit_graph_now(other) == "v0002"
    assert on_disk(other.snapshot_root) == {"v0001", "v0002"} and set(in_storage(session).versions()) == {
        "v0001",
        "v0002",
    }


def test_a_storage_that_is_full_fails_the_run_with_a_sentence_and_the_champion_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(StoredSnapshots.__init__, "__defaults__", ((0.0,),))
    with s3(monkeypatch) as (address, connection):
        session = quick_three_people(tmp_path / "home", storage=address)
        assert fit_graph_now(session) == "v0001"
        connection.full = True
        run = runs.request_fit(session, "graph")
        trainer(session).execute(run.id)
        failed = session.store.run(run.id)
        assert failed.state == RunState.FAILED and "v0002 cannot be put into s3://" in failed.message
        assert "free some space" in failed.message and session.record.champion == "v0001"
        assert on_disk(session.snapshot_root) == {"v0001"} and session.snapshot().version == "v0001"
        connection.full = False
        version = fit_graph_now(session)
        assert in_storage(session).versions() == {"v0001": True, version: True}


def test_a_trainer_without_the_champion_and_without_a_storage_fails_and_the_champion_stays(tmp_path):
    session = quick_three_people(tmp_path / "trainer")
    fit_graph_now(session)
    other = elsewhere(session, tmp_path / "other")
    run = runs.request_fit(other, "graph")
    trainer(other).execute(run.id)
    failed = session.store.run(run.id)
    assert failed.state == RunState.FAILED and f"v0001 is not in {other.snapshot_root}" in failed.message
    assert "share one COPL_HOME, or set the same COPL_STORAGE" in failed.message and "full fit" in failed.message
    assert session.record.champion == "v0001" and on_disk(other.snapshot_root) == set()
    start = start_of(other.store, trainer(other).shared, other.id, "full")
    assert start.snapshot is None and start.note.startswith("Trained from nothing. The champion v0001 is not in")
    assert fit_graph_now(session) == "v0003", "where the files are, the study goes on; v0002 was the failed run's"


def test_a_storage_that_cannot_give_the_champion_fails_the_graph_run(session, tmp_path, monkeypatch):
    monkeypatch.setattr(StoredSnapshots.__init__, "__defaults__", ((0.0,),))
    fit_graph_now(session)
    rmtree(Path(session.settings.storage) / "snapshots")
    other = elsewhere(session, tmp_path / "other")
    run = runs.request_fit(other, "graph")
    trainer(other).execute(run.id)
    failed = session.store.run(run.id)
    assert failed.state == RunState.FAILED and session.record.champion == "v0001"
    assert f"v0001 cannot be fetched from {session.settings.storage}" in failed.message


def test_a_graph_run_that_loses_a_damaged_reward_model_says_so(tmp_path):
    session = quick_three_people(tmp_path / "home")
    fit_graph_now(session)
    with session.store.engine.begin() as connection:  # as if a full fit had published it
        old = connection.execute(text("select metrics from snapshot")).scalar_one()
        facts = json.dumps(json.loads(old) | {"reward_watermark": 1})
        connection.execute(text("update snapshot set metrics = :facts"), {"facts": facts})
    (session.snapshot_root / "v0001" / "manifest.json").write_text("{")
    assert fit_graph_now(session) == "v0002"
    message = runs.list_runs(session)[0].message
    assert message.startswith("Trained from nothing, since the champion v0001 is damaged: Snapshot v0001 cannot")
    assert message.endswith("The new snapshot has no reward model; start a full fit, which trains one.")


def test_a_version_that_another_trainer_recorded_meanwhile_is_left_alone(session):
    fit_graph_now(session)
    before = in_storage(session).manifests(["v0001"])
    shared, snapshot = trainer(session).shared, session.snapshot()
    with pytest.raises(CoplError, match="v0001 exists already"):
        shared.put(session.id, snapshot)
    shared.take_back(session.id, "v0001")
    assert in_storage(session).manifests(["v0001"]) == before


def test_what_was_made_before_there_was_a_storage_goes_there_and_only_then_leaves_the_disk(tmp_path, monkeypatch):
    alone = quick_three_people(tmp_path / "home")
    for version in ("v0001", "v0002"):
        assert fit_graph_now(alone) == version
    monkeypatch.setattr(fetching, "KEPT_HERE", 1)
    session = open_study(tmp_path / "home", storage=str(tmp_path / "storage"))
    assert fit_graph_now(session) == "v0003"
    assert in_storage(session).versions() == {"v0001": True, "v0002": True, "v0003": True}
    assert on_disk(session.snapshot_root) == {"v0003"}
    assert runs.on_disk(session) == {"v0001", "v0002", "v0003"}, "all of them can be opened"
    assert session.open_snapshot("v0001").version == "v0001" and experts.loads(session) == ((), ())


def test_a_storage_keeps_the_versions_that_stay_and_a_start_sweeps_unrecorded_ones(session, monkeypatch):
    fit_graph_now(session)
    runs.write_note(session, "v0001", "keep")
    monkeypatch.setattr("copl_core.snapshots.snapshot.KEPT_NEWEST", 1)
    for version in ("v0002", "v0003"):
        assert fit_graph_now(session) == version
    assert set(in_storage(session).versions()) == {"v0001", "v0003"}
    left = session.open_snapshot("v0003")
    rmtree(session.snapshot_root / "v0002", ignore_errors=True)
    (session.snapshot_root / "v0003").rename(session.snapshot_root / "v0009")
    in_storage(session).put(type(left)(session.snapshot_root / "v0009", left.manifest))
    trainer(session).sweep()
    assert set(in_storage(session).versions()) == {"v0001", "v0003", "v0009"}, "its trainer may be at it"
    monkeypatch.setattr(StoredSnapshots.sweep, "__kwdefaults__", {"left_seconds": 0.0})
    trainer(session).sweep()
    assert set(in_storage(session).versions()) == {"v0001", "v0003"}
    assert stored.LEFT_SECONDS > 600 and "v0009" not in on_disk(session.snapshot_root)


def test_a_bundle_holds_the_champion_of_the_storage_and_is_restored_into_it(session, tmp_path):
    fit_graph_now(session)
    app = elsewhere(session, tmp_path / "app")
    app.patience = 60.0
    bundle.backup(app, tmp_path / "study.zip")
    made, report = bundle.restore_study(app.store, app.settings, tmp_path / "study.zip", "Again")
    assert report.snapshot == "v0001"
    third = Session(session.store, Settings(home=tmp_path / "third", storage=app.settings.storage), made.id)
    assert third.snapshot().manifest["study"] == made.id


def test_without_a_storage_nothing_is_fetched_and_no_package_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("copl_core.storage._open", lambda *_: pytest.fail("a storage is opened"))
    session = quick_three_people(tmp_path / "home")
    fit_graph_now(session)
    trainer(session).sweep()
    assert runs.champion_away(session) is None and session.snapshot().version == "v0001"


def test_every_trainer_cleans_its_own_home_of_what_learned_from_somebody_who_has_left(tmp_path):
    session = quick_three_people(tmp_path / "trainer")
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT)
    for version in ("v0001", "v0002"):
        assert fit_graph_now(session) == version
    other = elsewhere(session, tmp_path / "other")
    copytree(session.snapshot_root, other.snapshot_root)
    state = other.settings.cache / "training" / f"{session.id}-graph" / "graph.safetensors"
    write(state)
    forget.forget(session, ann.id)
    assert session.store.unclean_studies() == {}, "the database is clean for all"
    assert clean_up(other.store, other.settings) == []
    assert on_disk(other.snapshot_root) == {"v0002"} and not state.exists()
    trainer(session).execute_next("graph")
    write(state)  # of a run that knows nobody who has left
    assert "v0002" not in {one.version for one in runs.snapshots(session)} and session.record.champion == "v0003"
    assert clean_up(other.store, other.settings) == []
    assert on_disk(other.snapshot_root) == set() and state.exists()


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"state")


def test_a_trainer_looks_through_its_home_when_it_starts(tmp_path):
    session = quick_three_people(tmp_path / "home")
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT)
    for version in ("v0001", "v0002"):
        assert fit_graph_now(session) == version
    session.store.forget_user(ann.id, fewest=FEWEST)
    for study_id, n_left in session.store.unclean_studies().items():
        session.store.mark_clean(study_id, n_left)  # another trainer was first
    stop = Event()
    cleaning = Thread(target=service.clean, args=(Trainer(session.store, session.settings, stop),))
    cleaning.start()
    until(lambda: on_disk(session.snapshot_root) == {"v0002"})
    stop.set()
    cleaning.join()


def test_a_storage_that_is_away_delays_the_mark_and_not_the_overwriting_of_what_was_deleted(tmp_path):
    away = tmp_path / "away"
    away.write_text("a file where the folder should be")
    session = quick_three_people(tmp_path / "home", storage=str(away))
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT, reason="zyxwvut")
    session.store.forget_user(ann.id, fewest=FEWEST)
    cleaner = CleanUp(session.store, session.settings)
    (problem,) = cleaner.attempt()
    assert str(away) in problem and "make it reachable and writable" in problem
    database = Path(session.store.engine.url.database)
    before = database.read_bytes()
    assert b"zyxwvut" not in before and session.store.unclean_studies() == {session.id: 1}
    assert cleaner.attempt() == [problem] and database.read_bytes() == before, "it is not rewritten again"
    away.unlink()
    assert cleaner.attempt() == [] and session.store.unclean_studies() == {}


def test_a_storage_that_holds_people_who_have_left_is_named_without_its_password(tmp_path):
    session = quick_three_people(tmp_path / "home")
    settings = replace(session.settings, storage="nowhere://name:zyxwvut@host/folder")
    with pytest.raises(CoplError, match="nowhere://host/folder still holds") as problem:
        SharedSnapshots(session.store, settings).forget(session.id, set())
    assert "zyxwvut" not in str(problem.value)


def test_old_snapshots_that_know_somebody_who_has_left_do_not_go_to_the_storage(session):
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT)
    for version in ("v0001", "v0002"):
        assert fit_graph_now(session) == version
        in_storage(session).remove(version)  # as if made before there was a storage
    both = {"v0001", "v0002"}
    session.store.forget_user(ann.id, fewest=FEWEST)
    trainer(session).shared.prune(session.id, both, both, "v0002")
    assert in_storage(session).versions() == {"v0002": True} and on_disk(session.snapshot_root) == {"v0002"}


def test_what_learned_from_somebody_who_has_left_goes_from_storage_and_all_machines(session, tmp_path):
    app = elsewhere(session, tmp_path / "app")
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT)
    for version in ("v0001", "v0002"):
        assert fit_graph_now(session) == version
        until(lambda version=version: is_here(app, version))
    forget.forget(session, ann.id)
    assert set(in_storage(session).versions()) == {"v0002"}, "the champion stays until it is replaced"
    trainer(session).execute_next("graph")
    assert in_storage(session).versions() == {"v0003": True} and on_disk(session.snapshot_root) == {"v0003"}
    until(lambda: is_here(app, "v0003"))
    until(lambda: on_disk(app.snapshot_root) == {"v0003"})
