"""Answers that a trainer writes for a page: those that the app would write, and a page that goes stops them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from shutil import copytree
from threading import Event, Thread

import pytest

from copl_core.records import CoplError, Role, RunState
from copl_core.study import access, rewards, writing
from copl_core.study.session import Session
from copl_core.study.writing import WriteRequest
from copl_core.trainer.service import execute_runs
from copl_core.trainer.worker import Trainer
from tests.ranks import wait_until
from tests.worlds import open_study

pytest_plugins = "tests.reward.tiny"
STYLES = tuple(rewards.styles[:2])


@pytest.fixture
def session(tmp_path, tiny_writer) -> Session:
    """A researcher of a studio with a small model."""
    session = open_study(tmp_path / "home")
    copytree(tiny_writer, session.settings.model_root / "tiny")
    return session.acting(access.join(session, "Rita", Role.RESEARCHER).id)


@pytest.fixture
def trainer(session) -> Iterator[Trainer]:
    """One that offers to write, and does so in a thread, as in its own process."""
    trainer = Trainer(session.store, session.settings)
    session.store.heartbeat(trainer.worker, "gpu", ("write",), "waiting", "cuda")
    lane = Thread(target=execute_runs, args=(trainer, "write"))
    lane.start()
    yield trainer
    trainer.stop.set()
    lane.join()


def request(**changes: object) -> WriteRequest:
    return WriteRequest(**{"prompt": "Why?", "styles": STYLES, "model": "tiny", "max_tokens": 12, "seed": 3} | changes)


def joined(pieces: Iterator[tuple[int, str]]) -> list[str]:
    texts = ["" for _ in STYLES]
    for row, piece in pieces:
        texts[row] += piece
    return texts


def test_a_trainer_writes_what_the_app_would_write_and_nothing_of_it_stays(session, trainer):
    assert [one.host for one in writing.writers(session)] == ["gpu"]
    here = rewards.writer(session, "tiny").write("Why?", STYLES, max_tokens=12, seed=3)
    found = joined(writing.written_elsewhere(session, request(), by=session.actor))
    assert found == joined(here) and all(found)
    assert session.store.stored_of(session.actor)["answers_being_written"] == []


def test_a_model_that_cannot_write_is_a_sentence_of_the_trainer_and_does_not_end_it(session, trainer):
    with pytest.raises(CoplError, match="is no folder below the studio's folder of models"):
        joined(writing.written_elsewhere(session, request(model="../secret"), by=session.actor))
    with pytest.raises(CoplError, match="The question is empty"):
        joined(writing.written_elsewhere(session, request(prompt=" "), by=session.actor))
    assert all(joined(writing.written_elsewhere(session, request(), by=session.actor)))


def test_an_error_of_the_program_is_in_the_log_and_in_the_sentence(session, trainer, monkeypatch, caplog):
    monkeypatch.setattr(trainer.writer, "_stream", lambda request: 1 / 0)
    with caplog.at_level(logging.ERROR), pytest.raises(CoplError, match="could not write .ZeroDivisionError"):
        joined(writing.written_elsewhere(session, request(), by=session.actor))
    assert "ZeroDivisionError" in caplog.text


def test_a_page_that_goes_stops_the_trainer(session, trainer, monkeypatch):
    going, closed = Event(), Event()

    def endless(request: WriteRequest) -> Iterator[tuple[int, str]]:
        try:
            while True:
                going.wait(0.01)
                yield 0, "on "
        finally:
            closed.set()

    monkeypatch.setattr(trainer.writer, "_stream", endless)
    pieces = writing.written_elsewhere(session, request(), by=session.actor)
    while next(pieces)[1] != "on ":
        pass
    pieces.close()
    assert closed.wait(60.0)


def test_a_trainer_that_stops_gives_the_run_back(session, trainer, monkeypatch):
    def stopping(request: WriteRequest) -> Iterator[tuple[int, str]]:
        trainer.stop.set()
        yield 0, "half"

    monkeypatch.setattr(trainer.writer, "_stream", stopping)
    run_id = session.store.add_write_run(session.id, session.actor, request().stored(), 600.0)
    assert trainer.stop.wait(60.0)
    wait_until(lambda: session.store.write_run(run_id, 600.0).state == RunState.QUEUED)
    assert session.store.claim_write_run("another", 60.0).id == run_id


def test_where_the_trainer_is_lost_the_page_says_so_and_offers_the_app(session):
    session.store.heartbeat("gone", "gpu", ("write",), "waiting")
    pieces = writing.written_elsewhere(session, request(), by=session.actor)
    assert next(pieces) == (0, "")
    session.store.heartbeat("gone", "gpu", ("write",), "stopped")
    with pytest.raises(CoplError, match="has ended, and no other one offers that. Start again: the app writes then"):
        joined(pieces)
    assert session.store.stored_of(session.actor)["answers_being_written"] == []


def test_a_trainer_that_takes_the_run_over_goes_on_where_it_writes_the_same_words(session):
    session.store.heartbeat("there", "gpu", ("write",), "waiting")
    for second, follows in ((["It", " is", " so"], True), (["No", " way", "."], False)):
        pieces = writing.written_elsewhere(session, request(), by=session.actor)
        next(pieces)
        first = session.store.claim_write_run("one", 600.0)
        session.store.keep_write_run(first.id, first.token, [["It", " is"], []], 600.0)
        assert "".join(next(pieces)[1] for _ in range(2)) == "It is"
        session.store.end_write_run(first.id, first.token, RunState.QUEUED)
        again = session.store.claim_write_run("two", 600.0)
        session.store.end_write_run(again.id, again.token, RunState.DONE, [second, []])
        if follows:
            assert joined(pieces)[0] == " so"
        else:
            with pytest.raises(CoplError, match="writes other words"):
                joined(pieces)


def test_what_annotators_may_not_do_they_cannot_have_a_trainer_do(session, trainer):
    ann = session.acting(access.join(session.acting(None), "Ann").id)
    with pytest.raises(CoplError, match="researcher"):
        writing.written_elsewhere(ann, request(), by=ann.actor)
