"""Stores for the tests: SQLite in a fresh file, and PostgreSQL too if COPL_TEST_POSTGRES names a scratch database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text

from copl_core.records import ImportRow, StudyRecord, Task, User
from db.base import Base
from db.engine import migrate
from db.store import SqlStore, make_engine

POSTGRES = os.environ.get("COPL_TEST_POSTGRES", "")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'copl.db'}"


@pytest.fixture(params=["sqlite", *(["postgres"] if POSTGRES else [])])
def store(request: pytest.FixtureRequest, url: str) -> Iterator[SqlStore]:
    engine = make_engine(url if request.param == "sqlite" else POSTGRES)
    if request.param == "postgres":
        with engine.begin() as connection:
            Base.metadata.drop_all(connection)
            connection.execute(text("drop table if exists alembic_version"))
    migrate(engine)
    yield SqlStore(engine)
    engine.dispose()


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
def four_pairs(store: SqlStore, study: StudyRecord) -> list[tuple[int, int, int]]:
    """Two prompts with two pairs each, unlabelled."""
    store.import_rows(study.id, [ImportRow(n, f"prompt {n % 2}", f"answer {n}", f"other answer {n}") for n in range(4)])
    return store.pairs(study.id)


@pytest.fixture
def hand_out(store: SqlStore) -> Callable[..., Task]:
    """Hand a pair to a user, for a quarter of an hour unless told otherwise."""

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
