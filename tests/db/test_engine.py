from __future__ import annotations

import gc
import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from copl_core.records import Choice, CoplError, ImportRow, StoreUnavailable
from db.backups import back_up
from db.base import Base
from db.engine import HEAD, _write_ahead, alembic_config, explained, make_engine, migrate, reading, version, writing
from db.store import SqlStore, open_store

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_migrations_from_nothing_make_the_tables_of_the_models(store):
    with reading(store.engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_head_named_in_the_code_is_the_head_of_the_migrations():
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


def test_constraints_are_named_by_rule(url):
    migrate(make_engine(url))
    with reading(make_engine(url)) as connection:
        pair = connection.execute(text("select sql from sqlite_master where name = 'pair'")).scalar_one()
    assert "CONSTRAINT ck_pair_order CHECK" in pair


def test_a_second_start_does_not_load_alembic_and_no_start_loads_torch(url):
    migrate(make_engine(url))
    code = (
        "import sys; from db.store import open_store; open_store(sys.argv[1]);"
        "print(sorted({'alembic', 'torch', 'streamlit'} & set(sys.modules)))"
    )
    output, _ = python("-c", code, url).communicate()
    assert output.strip() == "[]"


def test_several_processes_may_start_on_an_empty_folder_at_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'not yet' / 'made' / 'copl.db'}"
    code = "import sys; from db.store import open_store; print(open_store(sys.argv[1]).create_study('One').id)"
    starts = [python("-c", code, url) for _ in range(3)]
    assert [start.communicate()[0].strip() for start in starts] == ["1"] * 3
    assert version(make_engine(url)) == HEAD


def test_a_process_waits_for_another_one_that_switches_to_write_ahead_logging(monkeypatch):
    class Cursor:
        refusals = 2

        def execute(self, statement):
            if statement.endswith("=WAL") and self.refusals:
                self.refusals -= 1
                raise sqlite3.OperationalError("database is locked")
            return self

        def fetchone(self):
            return ("delete",)

    cursor = Cursor()
    _write_ahead(cursor)
    assert cursor.refusals == 0
    cursor.refusals = 10**9
    monkeypatch.setattr("db.engine.BUSY_SECONDS", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        _write_ahead(cursor)


def test_a_database_of_a_newer_program_is_refused_and_left_alone(url):
    engine = make_engine(url)
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(CoplError, match="version 9999.*newer program"):
        migrate(engine)
    assert version(engine) == "9999"


def test_a_file_that_is_no_database_is_said_to_be_none_and_kept(tmp_path):
    file = tmp_path / "copl.db"
    file.write_text("a shopping list, long enough to be looked at " * 50)
    with pytest.raises(CoplError, match="The file of the database is none"):
        open_store(f"sqlite:///{file}")
    assert file.read_text().startswith("a shopping list")


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("postgresql+psycopg://copl:secret@127.0.0.1:1/study", "postgresql+psycopg://copl:***@127.0.0.1:1/study"),
        ("sqlite:///{folder}", "{folder}"),
    ],
)
def test_a_sentence_about_the_database_says_where_it_is_to_terminals_alone(tmp_path, address, where):
    with pytest.raises(CoplError) as raised:
        open_store(address.format(folder=tmp_path))
    assert not [word for word in (str(tmp_path), "127.0.0.1", "copl:") if word in str(raised.value)]
    assert raised.value.in_full == f"{raised.value} (The database: {where.format(folder=tmp_path)})"


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CoplError, match="cannot be created"):
        make_engine(f"sqlite:///{tmp_path / 'file' / 'copl.db'}")


def test_a_folder_in_the_place_of_the_database_is_reported(tmp_path):
    with pytest.raises(CoplError, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}")


def test_an_empty_database_that_may_not_be_written_is_reported(tmp_path):
    (tmp_path / "copl.db").touch()
    with pytest.raises(CoplError, match="cannot be written"):
        open_store(f"sqlite:///file:{tmp_path / 'copl.db'}?mode=ro&uri=true")


def test_a_study_that_may_not_be_written_can_be_read(tmp_path):
    whole = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    whole.create_study("Birds")
    store = open_store(f"sqlite:///file:{tmp_path / 'copl.db'}?mode=ro&uri=true")
    assert store.current_study().name == "Birds"
    with pytest.raises(CoplError, match="cannot be written"):
        store.create_study("Trees")


def test_on_a_full_disk_an_import_says_so_and_leaves_nothing_behind(url):
    store = open_store(url)
    study = store.create_study("Birds")
    with store.engine.connect() as connection:  # the pool gives the same connection to the import
        connection.exec_driver_sql("pragma max_page_count = 60")
    rows = [
        ImportRow(n, "prompt", f"{n} is a short answer", "x" * 5000 + str(n), Choice.LEFT, "Ann", key=str(n))
        for n in range(100)
    ]
    with pytest.raises(CoplError, match="is full"):
        store.import_rows(study.id, rows)
    assert (store.prompts(study.id), store.users(study.id), store.revision(study.id)) == ([], [], 0)


def test_a_migration_that_fails_half_way_leaves_an_empty_database_and_can_be_repeated(url):
    engine = make_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("pragma max_page_count = 9")
    with pytest.raises(CoplError, match="is full"):
        migrate(engine)
    engine.dispose()
    with reading(engine) as connection:
        assert connection.execute(text("select count(*) from sqlite_master")).scalar() == 0
    migrate(engine)
    assert version(engine) == HEAD


def test_a_backup_is_a_whole_study_taken_while_somebody_writes(url, tmp_path):
    store = open_store(url)
    study = store.create_study("Birds")
    store.import_rows(study.id, [ImportRow(1, "Name a bird", "Robin", "Wren", Choice.LEFT, "Ann", key="k")])
    with writing(store.engine) as connection:
        connection.execute(text("update study set name = 'half written'"))
        back_up(store.engine, tmp_path / "backup.db")
    copy = open_store(f"sqlite:///{tmp_path / 'backup.db'}")
    assert copy.studies() == [replace(study, revision=1)]
    assert copy.labels(study.id) == store.labels(study.id)


def test_a_backup_never_overwrites_and_tells_why_it_failed(url, tmp_path):
    engine = make_engine(url)
    migrate(engine)
    (tmp_path / "kept.db").write_text("an older backup")
    with pytest.raises(CoplError, match="exists already"):
        back_up(engine, tmp_path / "kept.db")
    assert (tmp_path / "kept.db").read_text() == "an older backup"
    with pytest.raises(CoplError, match="cannot be written"):
        back_up(engine, tmp_path / "no such folder" / "backup.db")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("copl.db", "not understood"),
        ("nosuchsql://host/name", "not understood"),
        ("mysql://host/name", "MySQLdb, which is not installed; install it, or use SQLite"),
    ],
)
def test_an_address_that_cannot_be_used_is_reported(address, message):
    with pytest.raises(CoplError, match=message):
        make_engine(address)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_the_extra_that_brings_a_missing_driver_is_named(driver, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    extra = re.escape('psycopg, which is not installed; install "copl-studio[postgres]", or "psycopg[binary]", or use')
    with pytest.raises(CoplError, match=extra):
        make_engine(f"{driver}://user@host/name")


def test_a_driver_without_its_library_is_reported(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv("PSYCOPG_IMPL", "no such library")  # of the new process, where the import then fails
    made = python("-c", "from db.engine import make_engine; make_engine('postgresql://user@host/name')")
    last = made.communicate()[0].splitlines()[-1]
    assert "CoplError" in last and "psycopg, which cannot be loaded (" in last
    assert '); install "copl-studio[postgres]", or' in last


GERMAN = "FEHLER:  storniere Anfrage, wegen der Zeitbegrenzung"  # a server speaks its own language


@pytest.mark.parametrize(
    ("state", "kind", "sentence"),
    [
        ("08006", StoreUnavailable, "does not answer"),
        ("25006", CoplError, "takes no changes"),
        ("28P01", CoplError, "COPL_DATABASE_URL is right"),
        ("3D000", CoplError, "COPL_DATABASE_URL is right"),
        ("40001", StoreUnavailable, "changing the same rows; try"),
        ("40P01", StoreUnavailable, "changing the same rows; try"),
        ("42501", CoplError, "may not do this .FEHLER.*let it own the tables"),
        ("53100", StoreUnavailable, "The disk of the database is full"),
        ("53300", StoreUnavailable, "does not answer"),
        ("55P03", StoreUnavailable, "changing the same rows for too long"),
        ("57014", StoreUnavailable, "took too long for one answer"),
        ("57P01", StoreUnavailable, "does not answer"),
        ("57P02", StoreUnavailable, "does not answer"),
        ("57P03", StoreUnavailable, "does not answer"),
    ],
)
def test_an_error_of_a_server_is_known_by_its_code_in_every_language(state, kind, sentence):
    psycopg = pytest.importorskip("psycopg")
    with pytest.raises(CoplError, match=sentence) as raised, explained(make_engine("postgresql://user@host/name")):
        raise OperationalError("select 1", None, psycopg.errors.lookup(state)(GERMAN))
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("statement", "cut", "words"),
    [
        ("select 1", True, "SSL SYSCALL error: EOF detected"),
        (None, False, "FATAL:  zu viele Clients"),  # no connection was made
    ],
)
def test_a_connection_that_is_gone_is_known_without_a_code(statement, cut, words):
    psycopg = pytest.importorskip("psycopg")
    with (
        pytest.raises(StoreUnavailable, match="does not answer"),
        explained(make_engine("postgresql://user@host/name")),
    ):
        raise OperationalError(statement, None, psycopg.OperationalError(words), connection_invalidated=cut)


def test_a_fault_of_ours_with_the_words_of_a_damaged_file_is_not_one(url):
    with pytest.raises(DBAPIError, match="malformed JSON"), reading(make_engine(url)) as connection:
        connection.execute(text("select json('{')"))


def test_a_reader_sees_one_moment_and_does_not_wait_for_a_writer(url):
    store = open_store(url)
    with writing(store.engine) as writer:
        values = "('a', 'here', 'graph', 'idle', '2999-01-01 00:00:00.000000')"
        writer.execute(text(f"insert into trainer (worker, host, kinds, state, seen_at) values {values}"))
        assert store.trainers() == []
    with reading(store.engine) as reader:
        before = reader.execute(text("select state from trainer")).scalar()
        store.heartbeat("a", "here", ["graph"], "fitting")
        assert reader.execute(text("select state from trainer")).scalar() == before == "idle"
    assert [(one.worker, one.state) for one in store.trainers()] == [("a", "fitting")]


def test_a_fault_in_a_statement_of_ours_is_not_blamed_on_the_disk(store):
    with pytest.raises(Exception, match="no_such_table") as caught, reading(store.engine) as connection:
        connection.execute(text("select * from no_such_table"))
    assert not isinstance(caught.value, CoplError)


def test_every_method_of_the_protocol_is_there_with_its_parameters():
    from inspect import signature

    from copl_core.store import Store

    for name, method in vars(Store).items():
        if not name.startswith("_"):
            assert list(signature(getattr(SqlStore, name)).parameters) == list(signature(method).parameters), name


@pytest.mark.parametrize("transaction", [reading, writing])
def test_an_exception_while_rows_are_read_leaves_no_old_state_in_the_pool(url, transaction):
    store = open_store(url)
    for name in ("One", "Two"):
        store.create_study(name)
    with pytest.raises(ZeroDivisionError), transaction(store.engine) as connection:
        rows = connection.execute(text("select id from study"))  # alive until the end of this test
        for _ in rows:
            raise ZeroDivisionError
    open_store(url).create_study("Three")
    assert len(store.studies()) == 3
    store.create_study("Four")
    assert len(open_store(url).studies()) == 4


def test_no_collection_begins_while_the_writer_is_held_and_they_go_on_afterwards(url):
    engine, other = open_store(url).engine, open_store("sqlite://").engine
    with reading(engine):
        assert gc.isenabled()
    with writing(engine):
        assert not gc.isenabled()
        with writing(other):
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), writing(engine):
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.disable()
    try:
        with writing(engine):
            pass
        assert not gc.isenabled()  # the program's own wish
    finally:
        gc.enable()


def test_a_part_of_a_long_work_waits_for_no_disk_and_the_next_transaction_does(url):
    engine = open_store(url).engine

    def pragmas(**kind: bool) -> tuple[int, int]:
        with writing(engine, **kind) as connection:
            return tuple(
                connection.exec_driver_sql(f"pragma {name}").scalar_one() for name in ("synchronous", "foreign_keys")
            )

    full, normal = 2, 1
    for _ in range(2):
        assert pragmas() == (full, True)
        assert pragmas(part=True) == (normal, True)
        assert pragmas() == (full, True)
        assert pragmas(part=True, unreferred=True) == (normal, False)
    with pytest.raises(ZeroDivisionError), writing(engine, part=True, unreferred=True):
        raise ZeroDivisionError
    assert pragmas() == (full, True)


def test_what_parts_have_written_is_brought_to_the_disk_before_the_next_one(url, monkeypatch):
    store, synced = open_store(url), []
    monkeypatch.setattr("db.engine.os.fsync", lambda file: synced.append(os.fstat(file).st_ino))
    store.import_rows(store.create_study("Birds").id, [ImportRow(n, f"p {n}", "a", "b") for n in range(300)])
    assert len(synced) > 1 and set(synced) == {os.stat(f"{store.engine.url.database}-wal").st_ino}
