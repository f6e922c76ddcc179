"""Stores for the tests: SQLite in a fresh file, and PostgreSQL on a private server.

``COPL_TEST_POSTGRES`` names a scratch database of another server instead; everything in it is deleted.  Where neither
is available, the tests on PostgreSQL are skipped and say why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from copl_core.records import ImportRow, StudyRecord, Task, User
from db.base import Base
from db.engine import migrate
from db.store import SqlStore, make_engine
from tests.databases import empty_database, postgres_or_skip, private_server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'copl.db'}"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a database whose tables a test may empty."""
    named = os.environ.get("COPL_TEST_POSTGRES", "")
    if named:
        yield named
        return
    with postgres_or_skip(), private_server() as address:
        yield address


@pytest.fixture(scope="session")
def postgres(postgres_url: str) -> Iterator[Engine]:
    """A migrated PostgreSQL database, made once per session."""
    engine = make_engine(postgres_url)
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text("drop table if exists alembic_version"))
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_copy(postgres_url: str) -> Iterator[str]:
    """The address of an empty database beside the one that other tests share."""
    engine = make_engine(postgres_url)
    own = f"migrated_{os.getpid()}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"create database {own}"))
        yield make_url(postgres_url).set(database=own).render_as_string(hide_password=False)
        connection.execute(text(f"drop database {own} with (force)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store on each of the two databases."""
    if request.param == "sqlite":
        engine = make_engine(request.getfixturevalue("url"))
        empty_database(tmp_path)
    else:
        engine = request.getfixturevalue("postgres")
        _delete_everything(engine)
    yield SqlStore(engine)
    engine.dispose()


def _delete_everything(engine: Engine) -> None:
    """Empty every table and count ids from 1 again: an eighth of the time of a new migration."""
    quoted = engine.dialect.identifier_preparer.format_table
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.exec_driver_sql(f"delete from {quoted(table)}")
        connection.execute(
            text("select setval(quote_ident(sequencename)::regclass, 1, false) from pg_sequences "
                 "where schemaname = current_schema()")
        )  # fmt: skip


@pytest.fixture
def study(store: SqlStore) -> StudyRecord:
    return store.create_study("Birds")


@pytest.fixture
def ann(store: SqlStore, study: StudyRecord) -> User:
    return store.create_user(study.id, "Ann")


@pytest.fixture
def ben(store: SqlStore, study: StudyRecord) -> User:
    return store.create_user(study.id, "Ben")


@pytest.fixture
def cem(store: SqlStore, study: StudyRecord) -> User:
    return store.create_user(study.id, "Cem")


@pytest.fixture
def four_pairs(store: SqlStore, study: StudyRecord) -> list[tuple[int, int, int]]:
    """Two prompts with two pairs each, unlabelled."""
    store.import_rows(study.id, [ImportRow(n, f"prompt {n % 2}", f"answer {n}", f"other answer {n}") for n in range(4)])
    return store.pairs(study.id)


@pytest.fixture
def gold(store: SqlStore, study: StudyRecord, four_pairs: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The first pair is a gold pair: its first response is known to be better."""
    pair_id, better, _ = four_pairs[0]
    store.set_gold(study.id, pair_id, better)
    return four_pairs[0]


@pytest.fixture
def hand_out(store: SqlStore) -> Callable[..., Task]:
    """Hand a pair to a user, for a quarter of an hour by default."""

    def hand_out(user_id: int, pair_id: int, *, minutes: float = 15, swap=False, reason: str = "uniform") -> Task:
        expires_at = datetime.now(UTC) + timedelta(minutes=minutes)
        return store.hand_out(user_id, pair_id, swap=swap, reason=reason, expires_at=expires_at)

    return hand_out


@pytest.fixture
def answer(store: SqlStore, hand_out: Callable[..., Task]) -> Callable:
    """Hand a pair to a user and store the answer."""

    def answer(user_id: int, pair_id: int, choice, **options):
        return store.submit(hand_out(user_id, pair_id, **options).id, user_id, choice)

    return answer


@pytest.fixture
def fresh_study(store: SqlStore) -> Callable[[], StudyRecord]:
    """Makes empty studies, for tests that need one an example."""
    numbers = count()
    return lambda: store.create_study(f"Study {next(numbers)}")
