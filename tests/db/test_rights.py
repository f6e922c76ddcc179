"""Rights that processes share: who fills a study, and which of them makes the first one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from copl_core import __main__ as terminal
from copl_core.__main__ import prepare
from copl_core.config import Settings
from copl_core.records import Right, Role
from copl_core.study import contents
from copl_core.study.session import Session
from db import rights
from db.store import SqlStore, open_store


def another_machine(store: SqlStore) -> SqlStore:
    return open_store(store.engine.url.render_as_string(hide_password=False))


def test_a_right_is_shared_by_all_or_held_by_one_alone_until_its_block_ends(store):
    other = another_machine(store)
    with store.hold(Right.FILL) as one, other.hold(Right.FILL) as two, other.hold(Right.FILL, alone=True) as alone:
        assert one and two and not alone
        with other.hold(Right.FIRST, alone=True) as first:
            assert first
    with other.hold(Right.FILL, alone=True) as alone, store.hold(Right.FILL) as shared:
        assert alone and not shared
    with store.hold(Right.FILL) as shared:
        assert shared
    other.close()


def test_whoever_waits_for_a_right_gets_it_when_the_other_has_ended(store):
    other = another_machine(store)
    with ThreadPoolExecutor(1) as pool:
        with store.hold(Right.FIRST, alone=True):
            waiting = pool.submit(lambda: other.hold(Right.FIRST, alone=True, seconds=60).__enter__())
        assert waiting.result()
    other.close()


def test_the_start_of_one_machine_takes_no_study_from_another_that_fills_it(store, tmp_path):
    other, settings = another_machine(store), Settings(home=tmp_path / "other")
    with contents.new_study(store, Settings(home=tmp_path / "home"), "Second"):
        assert contents.drop_unfinished(other, settings) == 0
    assert [study.name for study in store.studies()] == ["Second"]
    other.close()


def test_of_two_apps_that_open_an_empty_database_at_once_one_makes_the_first_study(store, tmp_path, monkeypatch):
    url, made, others, waits = store.engine.url.render_as_string(hide_password=False), [], [], Event()

    def start(home: str) -> str:
        return prepare(Settings(home=tmp_path / home, database_url=url))

    def seed(own: SqlStore, settings: Settings) -> Session:
        made.append(settings.home.name)
        if len(made) == 1:
            others.append(pool.submit(start, "two"))
            while not waits.wait(0.01):
                assert made == ["one"] and not others[0].done()
        return Session(own, settings, own.create_study("First").id)

    monkeypatch.setattr(rights, "sleep", lambda seconds: waits.set() or time.sleep(seconds))
    monkeypatch.setattr(terminal, "seed_demo", seed)
    with ThreadPoolExecutor(1) as pool:
        links = {start("one"), *(other.result() for other in others)}
    (study,) = store.studies()
    assert made == ["one"] and len(links) == 2
    assert [user.role for user in store.users(study.id)] == [Role.OWNER]
