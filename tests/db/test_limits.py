"""On PostgreSQL nobody who labels waits long for somebody else, and a server that restarts costs a sentence."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from copl_core.records import Choice, CoplError, ImportRow, StoreUnavailable
from db.engine import make_engine, reading, writing
from db.store import SqlStore, open_store
from tests.databases import postgres_or_skip, private_cluster

SOON = timedelta(minutes=5)


@pytest.fixture
def on_postgres(postgres) -> SqlStore:
    return SqlStore(postgres)


def thirty_pairs(store: SqlStore, name: str) -> int:
    study = store.create_study(name)
    store.import_rows(study.id, [ImportRow(n, "prompt", f"answer {n}", f"other {n}") for n in range(30)])
    return study.id


def hand_out(store: SqlStore, user_id: int, pair_id: int):
    return store.hand_out(user_id, pair_id, swap=False, reason="uniform", expires_at=datetime.now(UTC) + SOON)


def test_a_row_that_is_locked_elsewhere_costs_a_submit_a_sentence(on_postgres, monkeypatch):
    store = on_postgres
    study = thirty_pairs(store, "Locked")
    ann = store.create_user(study, "Ann")
    task = hand_out(store, ann.id, store.pairs(study)[0][0])
    with reading(store.engine) as connection:
        assert connection.execute(text("show lock_timeout")).scalar() == "3s"
        assert connection.execute(text("show statement_timeout")).scalar() == "1min"
    with writing(store.engine) as elsewhere:
        elsewhere.execute(text("select * from study where id = :id for update"), {"id": study})
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="same rows for too long; try again. Nothing was saved"):
            store.submit(task.id, ann.id, Choice.LEFT)
        assert time.monotonic() - began < 30  # it would wait for ever
    assert store.labels(study) == [] and store.submit(task.id, ann.id, Choice.LEFT) is not None


@pytest.mark.parametrize(
    ("driver", "options", "waits"),
    [
        ("postgresql", None, "3s"),
        ("postgresql+psycopg", None, "3s"),
        ("postgresql", "-c lock_timeout=7s", "7s"),
    ],
)
def test_every_form_of_an_address_has_limits_unless_it_gives_its_own(postgres_url, driver, options, waits):
    address = make_url(postgres_url).set(drivername=driver)
    given = address.update_query_dict({"options": options}) if options else address
    engine = make_engine(given.render_as_string(hide_password=False))
    with reading(engine) as connection:
        assert connection.execute(text("show lock_timeout")).scalar() == waits
        assert connection.execute(text("show statement_timeout")).scalar() == ("0" if options else "1min")
    engine.dispose()


def test_a_connection_that_the_server_ends_costs_a_sentence(on_postgres):
    """An administrator ends it; then the network, where the server says nothing any more."""
    cuts = {"AdminShutdown": _end_by_the_server, "OperationalError": _end_by_the_network}
    for name, cut in cuts.items():
        with pytest.raises(StoreUnavailable, match="does not answer") as raised:
            with writing(on_postgres.engine) as connection:
                cut(on_postgres, connection)
                connection.execute(text("select 1"))
        assert type(raised.value.__cause__.orig).__name__ == name
        with reading(on_postgres.engine) as connection:
            assert connection.execute(text("select 1")).scalar() == 1


def _end_by_the_server(store: SqlStore, connection) -> None:
    pid = connection.execute(text("select pg_backend_pid()")).scalar()
    with writing(store.engine) as elsewhere:
        assert elsewhere.execute(text("select pg_terminate_backend(:pid, 10000)"), {"pid": pid}).scalar()


def _end_by_the_network(_store: SqlStore, connection) -> None:
    with socket.socket(fileno=os.dup(connection.connection.dbapi_connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)


def test_a_server_that_takes_no_changes_and_a_table_of_somebody_else_are_no_outage(on_postgres):
    with pytest.raises(CoplError, match="takes no changes") as raised, writing(on_postgres.engine) as connection:
        connection.execute(text("set transaction read only"))
        connection.execute(text("update study set name = 'x'"))
    assert type(raised.value) is CoplError
    with pytest.raises(CoplError, match="may not do this.*let it own") as raised:
        with writing(on_postgres.engine) as connection:
            connection.execute(text("create role nobody_of_copl"))
            connection.execute(text("set local role nobody_of_copl"))
            connection.execute(text("select * from study"))
    assert type(raised.value) is CoplError


@pytest.mark.parametrize("wrong", [{"database": "no_such_database"}, {"username": "no_such_user"}])
def test_a_database_that_lets_nobody_in_says_to_check_the_address(postgres_url, wrong):
    engine = make_engine(make_url(postgres_url).set(**wrong).render_as_string(hide_password=False))
    with pytest.raises(CoplError, match="COPL_DATABASE_URL is right"), reading(engine):
        pass


@pytest.mark.parametrize("statement", ["select 'deadlock, locked, malformed'::int", "too many values"])
def test_a_fault_of_ours_is_no_outage_whatever_its_words(on_postgres, statement):
    values = tuple(range(65_536)) if statement == "too many values" else None
    written = f"select {', '.join(['%s::int'] * len(values))}" if values else statement
    with pytest.raises(DBAPIError), reading(on_postgres.engine) as connection:
        connection.exec_driver_sql(written, values)


def test_who_has_no_screen_waits_longer(on_postgres):
    with writing(on_postgres.engine, patient=True) as connection:
        assert connection.execute(text("show lock_timeout")).scalar() == "30s"
    with writing(on_postgres.engine) as connection:
        assert connection.execute(text("show lock_timeout")).scalar() == "3s"  # the other transaction kept its own


def test_an_endless_statement_ends_in_a_sentence(on_postgres):
    with pytest.raises(StoreUnavailable, match="took too long"), writing(on_postgres.engine) as connection:
        connection.execute(text("set local statement_timeout = 50"))
        connection.execute(text("select pg_sleep(60)"))


def test_a_server_that_restarts_under_load_costs_sentences_and_no_acknowledged_label():
    with postgres_or_skip(), private_cluster() as cluster:
        store = open_store(cluster.url)
        study = thirty_pairs(store, "Restarts")
        pairs, enough = [pair_id for pair_id, _, _ in store.pairs(study)], Event()
        users = [store.create_user(study, name).id for name in ("Ann", "Ben", "Cem")]
        with ThreadPoolExecutor(3) as pool:
            labelled = [pool.submit(_label_on, store, user, pairs, enough) for user in users]
            for _ in range(2):
                before = store.revision(study)
                while store.revision(study) < before + 3 and not all(one.done() for one in labelled):
                    time.sleep(0.01)
                cluster.restart()
            enough.set()
            results = [one.result(timeout=60) for one in labelled]
        acknowledged = {label for labels, _ in results for label in labels}
        kept = {label.id for label in store.labels(study)}
        assert acknowledged <= kept and len(kept) == store.revision(study)
        assert len(kept) <= len(acknowledged) + 2 * len(users)  # stored, and the answer was lost with the server
        assert all(type(problem) is StoreUnavailable for _, problems in results for problem in problems)
        assert any(problems for _, problems in results)
        store.close()


def _label_on(store: SqlStore, user_id: int, pairs: list[int], enough: Event) -> tuple[list[int], list[Exception]]:
    """Label all pairs, slowly until there is ``enough``; (acknowledged labels, what was raised)."""
    labels, problems = [], []
    for pair_id in pairs:
        while True:
            try:
                task = store.open_task(user_id) or hand_out(store, user_id, pair_id)
                label = store.submit(task.id, user_id, Choice.LEFT)
                labels += [label.id] if label is not None else []
                break
            except Exception as problem:  # any other error is a finding
                problems.append(problem)
                time.sleep(0.05)
        enough.wait(0.1)
    return labels, problems
