"""The trainer's look at new answers: grounds leave an account out, and repeats let a new one in."""

from __future__ import annotations

import pytest

from copl_core.records import Choice
from copl_core.study import access, contents, labelling, quarantine
from copl_core.study_settings import AssignmentSettings
from copl_core.trainer.quarantine import BigStudy, LookOut, look_at
from tests.worlds import open_study, pairs_to_label


@pytest.fixture
def session(tmp_path):
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(30))
    labelling.set_assignment(session, AssignmentSettings(order="imported", repeats=0, gold=0))
    return session


def labels(session, name: str, count: int, milliseconds: int = 60_000):
    user = access.join(session, name)
    for _ in range(count):
        task = labelling.next_task(session, user.id)
        labelling.submit(session, task.id, user.id, Choice.LEFT, milliseconds=milliseconds)
    return user


def test_somebody_faster_than_anybody_reads_waits_for_an_owner_and_others_do_not(session):
    hasty, calm = labels(session, "Hasty", 20, 150), labels(session, "Calm", 20)
    assert look_at(session.store, session.record) == [hasty.id] and look_at(session.store, session.record) == []
    assert [one.user.name for one in quarantine.waiting(session)] == ["Hasty"]
    assert session.store.label_count(session.id) == 20 and session.store.user(calm.id).trained
    quarantine.decide(session, hasty.id, True)
    assert look_at(session.store, session.record) == [] and session.store.label_count(session.id) == 40


def test_a_study_that_is_set_so_leaves_nobody_out(session):
    labelling.set_assignment(session, AssignmentSettings(order="imported", repeats=0, gold=0, quarantine="off"))
    labels(session, "Hasty", 20, 150)
    assert look_at(session.store, session.record) == [] == quarantine.waiting(session)


def test_a_new_account_counts_from_the_time_when_its_repeats_have_shown_it(session):
    labelling.set_assignment(session, AssignmentSettings(order="imported", repeats=0.5, gold=0, quarantine="new"))
    user, _ = access.enter(session, "Newcomer")
    looks = 0
    while not session.store.user(user.id).trained:
        task = labelling.next_task(session, user.id)
        first = min(task.left.id, task.right.id)
        choice = Choice.LEFT if task.left.id == first else Choice.RIGHT
        labelling.submit(session, task.id, user.id, choice, milliseconds=60_000)
        look_at(session.store, session.record)
        looks += 1
        assert looks < 40
    assert session.store.label_count(session.id) == looks >= 10
    assert [one.decided for one in quarantine.decided(session)] == ["shown"]


def test_a_look_comes_with_new_answers_only_and_rests_in_between(session, monkeypatch):
    looks = []
    read = session.store.answers
    monkeypatch.setattr(session.store, "answers", lambda study: looks.append(study) or read(study))
    look_out = LookOut(session.store, seconds=0.0)
    monkeypatch.setattr("copl_core.trainer.quarantine.SHARE", 1e9)
    look_out.attempt()
    look_out.attempt()
    assert len(looks) == 1, "nothing has changed"
    hasty = labels(session, "Hasty", 20, 150)
    look_out.attempt()
    assert len(looks) == 2 and session.store.user(hasty.id).quarantined
    resting = LookOut(session.store, seconds=3600.0)
    resting.attempt()
    labels(session, "Calm", 1)
    resting.attempt()
    assert len(looks) == 3, "the next look is an hour away"


# ---- a study of very many answers


def test_of_a_big_study_everybody_is_read_once_and_then_those_who_answer(session, monkeypatch):
    people = [labels(session, f"Calm {n}", 3) for n in range(4)]
    hasty = labels(session, "Hasty", 20, 150)
    read, answers = [], session.store.answers
    monkeypatch.setattr(
        session.store, "answers", lambda study, users: read.append(users) or answers(study, users=users)
    )
    big = BigStudy(session.store, session.id, block=3)
    assert [big.look(), session.store.user(hasty.id).quarantined] == [False, False], "others wait to be read"
    assert [big.look(), session.store.user(hasty.id).quarantined] == [True, True]
    everybody = [*(one.id for one in people), hasty.id]
    assert sorted(read[0] + read[1])[-5:] == everybody and read[2] == [hasty.id]
    del read[:]
    quick = labels(session, "Quick", 20, 150)
    assert big.look() and session.store.user(quick.id).quarantined
    assert read[0] == [quick.id], "nobody else has answered"


def test_a_big_study_finds_whom_a_look_at_all_answers_finds(session, monkeypatch):
    for n in range(5):
        labels(session, f"Calm {n}", 20)
    hasty, rests = labels(session, "Hasty", 20, 150), labels(session, "Rests", 19, 150)
    labelling.undo(session, hasty.id)
    LookOut(session.store, seconds=0.0, at_once=0).attempt()
    assert not session.store.user(hasty.id).quarantined, "19 answers count"
    big = BigStudy(session.store, session.id)
    assert big.look()
    for user in (hasty, rests):
        task = labelling.next_task(session, user.id)
        labelling.submit(session, task.id, user.id, Choice.LEFT, milliseconds=150)
    labelling.undo(session, rests.id)
    assert big.look()
    assert session.store.user(hasty.id).quarantined and not session.store.user(rests.id).quarantined
    assert look_at(session.store, session.record) == []


def test_a_big_study_is_read_again_after_hours_and_lets_new_accounts_in(session, monkeypatch):
    labelling.set_assignment(session, AssignmentSettings(order="imported", repeats=0.5, gold=0, quarantine="new"))
    user, _ = access.enter(session, "Newcomer")
    big = BigStudy(session.store, session.id)
    for _ in range(40):
        task = labelling.next_task(session, user.id)
        first = min(task.left.id, task.right.id)
        choice = Choice.LEFT if task.left.id == first else Choice.RIGHT
        labelling.submit(session, task.id, user.id, choice, milliseconds=60_000)
        big.look()
        if session.store.user(user.id).trained:
            break
    assert session.store.user(user.id).trained
    monkeypatch.setattr("copl_core.trainer.quarantine.AGAIN_SECONDS", 0.0)
    read, answers = [], session.store.answers
    monkeypatch.setattr(
        session.store, "answers", lambda study, users: read.append(users) or answers(study, users=users)
    )
    assert big.look() and user.id in read[0]
