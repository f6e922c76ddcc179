"""The copies of a SQLite database that the studio makes by itself."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from alembic import command

from copl_core.backups import backups_of, is_due, path_of
from copl_core.config import Settings
from copl_core.records import Choice, CoplError, ImportRow
from copl_core.trainer.backups import BackUp
from copl_core.trainer.departures import clean_up
from db import backups as copies
from db.engine import HEAD, alembic_config, make_engine, migrate, version, writing
from db.store import SqlStore
from tests.databases import empty_database

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "copl.db"


@pytest.fixture
def earlier(file):
    """A database of the first version."""
    engine = make_engine(f"sqlite:///{file}")
    with writing(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    return engine


@pytest.fixture
def birds(file) -> SqlStore:
    empty_database(file.parent)
    store = SqlStore(make_engine(f"sqlite:///{file}"))
    store.import_rows(store.create_study("Birds").id, [ImportRow(1, "p", "a", "b", Choice.LEFT, "Ann", key="k")])
    return store


def test_a_database_is_copied_before_it_is_migrated_and_three_such_copies_stay(file, earlier, caplog):
    for days in (3, 2, 1):
        path = path_of(file, datetime.now(UTC) - timedelta(days=days), "0007")
        path.parent.mkdir(exist_ok=True)
        path.touch()
    migrate(earlier)
    newest, *others = backups_of(file)
    assert (newest.before, version(make_engine(f"sqlite:///{newest.path}")), version(earlier)) == (HEAD, "0001", HEAD)
    assert len(others) == 2 and str(newest.path) in caplog.text
    migrate(earlier)
    assert backups_of(file) == [newest, *others]


def test_without_room_for_the_copy_the_migration_does_not_begin(file, earlier, monkeypatch):
    monkeypatch.setattr(copies, "SPARE_BYTES", 1 << 60)
    with pytest.raises(CoplError, match=f"has not been migrated to version {HEAD}.*MB free, and a backup needs"):
        migrate(earlier)
    assert version(earlier) == "0001" and backups_of(file) == []


def test_a_new_database_is_not_copied(file):
    migrate(make_engine(f"sqlite:///{file}"))
    assert backups_of(file) == []


def test_a_copy_is_made_when_the_last_one_is_old_enough_and_the_oldest_goes(file, birds):
    half = file.parent / "backups" / ".copl-20260101T000000Z.db.part"  # of a process that was killed
    half.parent.mkdir()
    half.touch()
    made = birds.back_up_by_clock(24, 2)
    assert birds.back_up_by_clock(24, 2) is None and not half.exists()
    copy = SqlStore(make_engine(f"sqlite:///{made}"))
    (study,) = copy.studies()
    assert copy.label_count(study.id) == 1
    now = datetime.now(UTC)
    made.rename(path_of(file, now - timedelta(hours=25)))
    old = path_of(file, now - timedelta(hours=49))
    old.touch()
    second = birds.back_up_by_clock(24, 2)
    assert [one.path for one in backups_of(file)] == [second, path_of(file, now - timedelta(hours=25))]
    assert not is_due(file, 0, now + timedelta(days=9)) and is_due(file, 24, now - timedelta(hours=1))  # a wrong clock


def test_the_copy_made_now_stays_and_is_the_last_one_whatever_a_wrong_clock_has_left(file, earlier):
    """One of the future goes before older ones."""
    ahead = datetime.now(UTC) + timedelta(days=365)
    for n in range(3):
        for before in ("", "0007"):
            path = path_of(file, ahead + timedelta(days=n), before)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    migrate(earlier)
    assert version(make_engine(f"sqlite:///{backups_of(file)[-1].path}")) == "0001"
    store = SqlStore(earlier)
    made = store.back_up_by_clock(24, 1)
    assert store.back_up_by_clock(24, 1) is None
    assert [one.path for one in backups_of(file) if not one.before] == [made] and made.exists()


def test_of_two_programs_that_start_at_once_one_copies_and_migrates_and_the_other_waits(file, earlier, monkeypatch):
    program = (
        "import sys; from db.engine import *; migrate(make_engine(sys.argv[1]), lambda line: print(line, flush=True))"
    )
    others, sync = [], copies.os.fsync

    def copied(handle: int) -> None:
        """The other program starts while the copy is made, and has come to the same point before it goes on."""
        monkeypatch.setattr(copies.os, "fsync", sync)
        started = subprocess.Popen(
            [sys.executable, "-c", program, str(earlier.url)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        others.append((started, started.stdout.readline()))
        assert not SqlStore(make_engine(str(earlier.url))).back_up_by_clock(24, 2)  # nor does a trainer copy now
        sync(handle)

    monkeypatch.setattr(copies.os, "fsync", copied)
    migrate(earlier)
    ((other, first),) = others
    assert (first.split()[-1], other.communicate()[0], other.returncode) == ("it.", "", 0), "it waited, and had no work"
    (copy,) = (file.parent / "backups").iterdir()
    assert (version(make_engine(f"sqlite:///{copy}")), version(earlier)) == ("0001", HEAD)


def test_a_server_is_left_to_its_own_programs(postgres):
    assert SqlStore(postgres).back_up_by_clock(24, 2) is None


def test_copies_go_when_somebody_leaves(file, birds):
    birds.back_up_by_clock(24, 2)
    (ann,) = birds.users(birds.studies()[0].id)
    birds.forget_user(ann.id, fewest={"graph": 10, "full": 10})
    assert clean_up(birds, Settings(home=file.parent)) == [] and backups_of(file) == []


@pytest.mark.parametrize("waits", [True, False])
def test_a_copy_that_is_not_whole_yet_goes_too_when_somebody_leaves(file, birds, monkeypatch, waits):
    """It has read the rows before they went, and gets its name after."""
    sync, waiting = copies.os.fsync, []
    (ann,) = birds.users(birds.studies()[0].id)

    def leaves() -> None:
        other = SqlStore(make_engine(str(birds.engine.url)))
        other.forget_user(ann.id, fewest={"graph": 10, "full": 10})
        waiting.append(clean_up(other, Settings(home=file.parent)))

    def copied(handle: int) -> None:
        monkeypatch.setattr(copies.os, "fsync", sync)
        leaving.start()
        leaving.join(None if not waits else 2)
        sync(handle)

    if not waits:
        monkeypatch.setattr(copies, "_DROP_SECONDS", 0.0)
    leaving = Thread(target=leaves)
    monkeypatch.setattr(copies.os, "fsync", copied)
    birds.back_up_by_clock(24, 2)
    leaving.join()
    if not waits:
        assert waiting == [[waiting[0][0]]] and "while another process makes one" in waiting[0][0]
        assert len(backups_of(file)) == 1 and birds.unclean_studies()
        (file.parent / "backups" / ".copl-20260101T000000Z.db.part").touch()  # of a process that was killed
        assert clean_up(birds, Settings(home=file.parent)) == []
    assert list((file.parent / "backups").iterdir()) == [] and not birds.unclean_studies()


def test_the_trainer_says_where_a_copy_is_and_makes_no_other_however_the_clock_jumps(file, birds, caplog):
    duty = BackUp(birds, Settings(home=file.parent))
    with caplog.at_level(logging.INFO):
        duty()
    (made,) = backups_of(file)
    assert str(made.path) in caplog.text
    made.path.rename(path_of(file, datetime.now(UTC) + timedelta(days=365)))
    duty()
    assert len(backups_of(file)) == 1
