"""The app reads a champion before anybody visits, and the next one before somebody waits for it."""

from __future__ import annotations

import asyncio
from threading import Event

import pytest

from copl_core.records import CoplError
from copl_core.study import controversy, drawn, small_map, user_profile
from tests.worlds import fit_graph_now, three_people, trained
from web import open_ahead
from web.following import follow
from web.open_ahead import OpenAhead, keep_open, open_champion


@pytest.fixture
def session(tmp_path, tmp_path_factory):
    return trained(three_people, tmp_path_factory, tmp_path / "home")


def read(session) -> set[str]:
    """The parts of the champion that are in memory."""
    return {"graph", "prior", "layout", "user_groups"} & set(vars(session.snapshot()))


def test_the_champion_is_read_once_and_so_is_the_next_one(session, monkeypatch):
    assert read(session) == set()
    known = open_champion(session, None)
    assert len(read(session)) == 4
    points = small_map.points(session, session.snapshot())
    monkeypatch.setattr(small_map, "_points", lambda *_: pytest.fail("drawn twice"))
    monkeypatch.setattr(controversy, "_decompose", lambda *_: pytest.fail("decomposed twice"))
    monkeypatch.setattr(user_profile, "measure", lambda *_: pytest.fail("measured twice"))
    assert controversy.table(session) is not None
    user_profile.measure_pairs(session)
    assert open_champion(session, known) == known and small_map.points(session, session.snapshot()) is points
    monkeypatch.undo()
    fit_graph_now(session)
    assert open_champion(session, known) != known and len(read(session)) == 4


def test_of_a_large_study_the_people_of_the_map_are_drawn_too(session, monkeypatch):
    monkeypatch.setattr(drawn, "MOST_DRAWN", 2)
    open_champion(session, None)
    monkeypatch.setattr(drawn, "_draw", lambda *_: pytest.fail("drawn twice"))
    users, everybody = drawn.people_of_map(session, session.snapshot(), None, ())
    assert len(users) == everybody.n_users == 3


def test_without_a_champion_nothing_is_read(tmp_path):
    session = three_people(tmp_path / "home")
    open_champion(session, None)
    assert session.snapshot() is None


def test_a_study_that_cannot_be_read_is_tried_again(session, monkeypatch, caplog):
    stop, looks = Event(), []

    def served():
        looks.append(1)
        if len(looks) == 1:
            raise CoplError("The database is away.")
        if len(looks) == 2:
            raise ZeroDivisionError
        stop.set()
        return [session]

    monkeypatch.setattr(open_ahead, "served", served)
    monkeypatch.setattr(open_ahead, "LOOK_SECONDS", 0.0)
    keep_open(stop)
    assert len(looks) == 3 and len(read(session)) == 4
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == [
        "a snapshot could not be opened ahead"
    ]


@pytest.mark.parametrize(("kinds", "n"), [(("lifespan",), 0), (("lifespan", "http", "websocket", "http"), 1)])
def test_the_first_request_starts_each_thread_once(monkeypatch, kinds, n):
    started = []

    class Thread:
        def __init__(self, **given):
            assert given["daemon"]
            self.target = given["target"]

        def start(self):
            started.append(self.target)

    async def app(scope, receive, send):
        answered.append(scope["type"])

    monkeypatch.setattr(open_ahead, "Thread", Thread)
    answered, ahead = [], OpenAhead(app)
    for kind in kinds:
        asyncio.run(ahead({"type": kind}, None, None))
    assert started == [keep_open, follow] * n and answered == list(kinds)
