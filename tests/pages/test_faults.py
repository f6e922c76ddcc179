"""Every page on a database that is busy, whose disk is full, or that may only be read: a sentence, and nothing changed.

The faults are real: another connection writes, the file of SQLite's log may not get longer, connections may not write.
"""

from __future__ import annotations

import re
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

import db.engine
from copl_core.study import labelling
from copl_core.study.session import Session
from tests.pages.acts import ACTS, PAGES, a_study, open_act, ready, rows, sign_in_as, somebody, tab

A_FAULT = re.compile(
    r"database was busy for too long|disk of the database (is full|reports an error)|database cannot be written"
)
ROOM = 1 << 20  # bytes, so that the limit of the test is not one for the output of the test runner


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Session:
    return a_study(tmp_path_factory)


@contextmanager
def each_connection(engine, statement: str) -> Iterator[None]:
    """Every connection begins with a statement."""

    def listen(connection, _record) -> None:
        connection.execute(statement)

    event.listen(engine, "connect", listen, insert=True)
    engine.dispose()
    try:
        yield
    finally:
        event.remove(engine, "connect", listen)
        engine.dispose()


@contextmanager
def busy(session: Session) -> Iterator[None]:
    """Another connection writes, for longer than anybody waits."""
    other = sqlite3.connect(session.store.engine.url.database, isolation_level=None)
    with pytest.MonkeyPatch.context() as patch:
        for wait in ("BUSY_SECONDS", "LOCK_SECONDS"):
            patch.setattr(db.engine, wait, 0.02)
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()


@contextmanager
def full(session: Session) -> Iterator[None]:
    """The log of the database may not get longer, and a reader keeps it from being used again."""
    session.store.engine.dispose()
    path = session.store.engine.url.database
    other = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "CREATE TABLE filler (x)", "BEGIN"):
        other.execute(statement)
    other.execute("INSERT INTO filler VALUES (zeroblob(?))", [ROOM])
    for statement in ("COMMIT", "BEGIN", "SELECT count(*) FROM filler"):
        other.execute(statement).fetchall()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open(f"{path}-wal", "rb") as log:
        length = log.seek(0, 2)
    assert length > ROOM
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        other.execute("ROLLBACK")
        other.execute("DROP TABLE filler")
        other.close()


@contextmanager
def read_only(session: Session) -> Iterator[None]:
    """No connection may write."""
    with each_connection(session.store.engine, "PRAGMA query_only=ON"):
        yield


@contextmanager
def no_more_pages(session: Session) -> Iterator[None]:
    """The file of the database may not get longer."""
    engine = session.store.engine
    with sqlite3.connect(engine.url.database) as other:
        other.execute("VACUUM")
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    other.close()
    with each_connection(engine, f"PRAGMA max_page_count={pages}"):
        yield


FAULTS: tuple[Callable, ...] = (busy, full, read_only)


def named(fault: Callable) -> str:
    return fault.__name__


def whole(page) -> bool:
    """Whether a page has begun with what it is about: its title, or the buttons that answer a pair."""
    return bool(page.title or [one for one in page.button if (one.key or "").startswith("a-is-better-")])


@pytest.mark.parametrize("fault", FAULTS, ids=named)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_drawn_or_says_what_is_wrong(study, open_page, as_served, words, name, fault):
    owner = somebody(study)
    state = tab(study, sign_in_as(study, owner)) if name != "join" else {}
    before = rows(study)
    with fault(study):
        page = open_page(name, study, owner, **state)
    shown = words(page)
    assert "This page failed" not in shown and (whole(page) or A_FAULT.search(shown)), shown
    assert rows(study) == before
    page.run()
    shown = words(page)
    assert whole(page) and not page.exception and not A_FAULT.search(shown), shown


@pytest.mark.parametrize("act", ACTS, ids=str)
def test_an_act_changes_nothing_and_says_why(study, open_page, as_served, words, act):
    """In one tab, which acts again once the database is well."""
    ready(study)
    owner = somebody(study)
    page = open_act(open_page, act, study, owner, sign_in_as(study, owner))
    for fault in FAULTS:
        before = rows(study)
        with fault(study):
            act.do(page)
        after, shown = rows(study), "\n".join([words(page), *(one.value for one in page.toast)])
        assert "This page failed" not in shown and not page.exception and A_FAULT.search(shown), (named(fault), shown)
        assert after == before, named(fault)
        page.run()
        assert whole(page) and not page.exception, (named(fault), words(page))
    before = rows(study)
    act.do(page)
    assert rows(study) != before and not page.exception and not A_FAULT.search(words(page)), words(page)


@pytest.mark.parametrize("fault", [busy, full, no_more_pages], ids=named)
def test_an_answer_is_kept_until_the_database_takes_it(session, owner, open_page, as_served, words, fault):
    page, act = open_page("label", session, owner), next(act for act in ACTS if act.name == "answer")
    with fault(session):
        next(one for one in page.text_area if one.key.startswith("reason-")).set_value("🙂" * 2000)
        act.do(page)
        for _ in range(2):
            assert "Not saved yet, trying again" in words(page) and labelling.history(session, owner.id) == []
            page.run()
    page.run()
    assert "Your answer is saved now." in words(page)
    (label,) = labelling.labels_of(session, owner.id)
    assert label.reason == "🙂" * 2000


def test_a_page_on_a_full_disk_opens_again_by_itself(session, owner, open_page, as_served, words):
    with full(session):
        page = open_page("label", session, owner)
        assert "This page tries again by itself" in words(page)
    page.run()
    assert whole(page) and not A_FAULT.search(words(page))
