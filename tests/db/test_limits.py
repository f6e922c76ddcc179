"""On PostgreSQL nobody who labels waits long for somebody else, and a server that restarts costs a sentence."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from sqlalchemy import text

from copl_core.records import Choice, ImportRow, StoreUnavailable
from db.engine import reading, writing
from db.store import SqlStore, open_store
from tests.databases import NoPostgres, private_cluster

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
    try:
        with private_cluster() as cluster:
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
    except NoPostgres as missing:
        pytest.skip(str(missing))


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
