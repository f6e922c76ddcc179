"""Counts that everybody sees: drawn once a day, bounded for each person, and never counted again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from sqlalchemy import text

from copl_core.noise import deviation
from copl_core.records import Choice, CoplError, ImportRow, Role, StoreUnavailable
from copl_core.study import access, contents, labelling, shared
from copl_core.study.session import Session
from copl_core.study.shared import ANSWERS_A_DAY, released
from copl_core.study_settings import AssignmentSettings, DayOfAnswers
from tests.worlds import open_study

TODAY = datetime.now(UTC).date()
DAY = date(2026, 11, 30)
SOURCES = {1: "left", 2: "right", 3: "left", 4: "middle"}


@pytest.fixture
def session(tmp_path) -> Session:
    session = open_study(tmp_path)
    rows = [
        ImportRow(n + 1, f"Question {n}?", f"Yes {n}.", f"No {n}.", source_a="yes", source_b="no") for n in range(40)
    ]
    contents.import_rows(session, rows)
    return session


@pytest.fixture
def olga(session) -> int:
    return access.join(session, "Olga", Role.OWNER).id


def answer(session: Session, user_id: int, n: int, days_ago: int, choice: Choice = Choice.LEFT) -> None:
    """``n`` answers, given so many days ago."""
    for _ in range(n):
        task = labelling.next_task(session, user_id)
        labelling.submit(session, task.id, user_id, choice)
    at = datetime.now(UTC) - timedelta(days_ago)
    with session.store.engine.begin() as connection:
        late = "update label set created_at = :at where user_id = :user and created_at > :midnight"
        midnight = datetime.combine(TODAY, datetime.min.time())
        connection.execute(text(late), {"at": at.replace(tzinfo=None), "user": user_id, "midnight": midnight})


def started(session: Session, days_ago: int, epsilon: float = 1.0, total: float = 10.0) -> None:
    """Sharing began so many days ago."""
    shared.share(session, epsilon, total)
    settings = session.store.assignment_settings(session.id)
    since = (TODAY - timedelta(days_ago)).isoformat()
    session.store.set_assignment(session.id, replace(settings, shared_since=since))


# ---- what is counted


def day_of(answers: list[tuple[int, int, int]], spent: dict[int, float] | None = None, n: int = 0) -> DayOfAnswers:
    return DayOfAnswers(DAY + timedelta(n), answers, spent or {})


def same_noise(*days: DayOfAnswers, epsilon: float = 1.0, total: float = 10.0) -> list:
    return released(days, SOURCES, epsilon, total, Random(7))


def difference(one, other) -> int:
    """By how much the counts of two days differ together, where their noise is the same."""
    pairs = [(one.by_source[name], other.by_source[name]) for name in one.by_source]
    return sum(abs(a - b) for first, second in pairs for a, b in zip(first, second, strict=True))


def test_counts_are_the_answers_and_the_noise():
    base = same_noise(day_of([]))[0]
    found = same_noise(day_of([(1, 1, 2), (1, 4, 1), (2, 0, 0), (3, 1, 3)]))[0]
    assert found.answers - base.answers == 4
    change = {name: tuple(a - b for a, b in zip(found.by_source[name], base.by_source[name], strict=True))
              for name in base.by_source}  # fmt: skip
    assert change == {"left": (1, 1), "right": (0, 1), "middle": (1, 0)}, "a tie and one source against itself: none"


@pytest.mark.parametrize("n", [1, ANSWERS_A_DAY, 500])
def test_one_person_changes_the_counts_of_a_day_by_no_more_than_the_noise_hides(n):
    others = [(user, 1, 2) for user in range(2, 9)]
    without, with_them = same_noise(day_of(others))[0], same_noise(day_of([*others, *[(1, 2, 1)] * n]))[0]
    assert with_them.answers - without.answers == min(n, ANSWERS_A_DAY)
    assert difference(without, with_them) == 2 * min(n, ANSWERS_A_DAY), "the sensitivity of the noise"


def test_the_days_of_a_person_add_up_to_the_total_and_no_further():
    """The composition bound: a person is counted on days whose ε adds up to the total at most."""
    days = [day_of([(1, 1, 2), (2, 2, 1)], {1: 1.5}, n) for n in range(6)]
    empty = [day_of([], {}, n) for n in range(6)]
    found = same_noise(*days, epsilon=0.5, total=3.0)
    changes = [one.answers - none.answers for one, none in zip(found, same_noise(*empty, epsilon=0.5), strict=True)]
    assert changes == [2, 2, 2, 1, 1, 1], "the first person has spent 1.5 before, and counts on three days more"


def test_a_study_without_sources_spends_all_on_the_number_of_answers():
    found = released([day_of([(1, 1, 2)])], {1: "a", 2: "a"}, 1.0, 10.0, Random(1))[0]
    assert dict(found.by_source) == {}
    assert deviation(*shared._parts(1.0, False)[:1], ANSWERS_A_DAY) < deviation(
        *shared._parts(1.0, True)[:1], ANSWERS_A_DAY
    )


# ---- what is released


def test_nothing_is_shared_before_an_owner_says_so(session, olga):
    assert shared.counts(session) is None and session.store.days_to_share(session.id) == []
    ann = access.join(session, "Ann")
    with pytest.raises(CoplError, match="only an owner"):
        shared.share(session.acting(ann.id), 1.0, 10.0)
    shared.share(session, 1.0, 10.0, by=olga)
    assert shared.counts(session.acting(ann.id)).until is None
    assert [entry.event for entry in access.audit(session, limit=1)] == ["room"]


def test_the_same_read_twice_gives_the_same_numbers_also_in_another_process(session):
    ann = access.join(session, "Ann")
    answer(session, ann.id, 5, 2)
    started(session, 3)
    first = shared.counts(session)
    assert first.until == TODAY - timedelta(1) and len(session.store.shared_days(session.id)) == 3
    again = Session(session.store, session.settings, session.id)
    assert shared.counts(session) == first == shared.counts(again)


def test_what_happens_after_a_day_is_released_changes_nothing_of_it(session, olga):
    ann, bob = (access.join(session, name) for name in ("Ann", "Bob"))
    for person in (ann, bob):
        answer(session, person.id, 6, 1)
    started(session, 1)
    before = shared.counts(session)
    labelling.undo(session, ann.id)
    access.exclude(session, bob.id, True, by=olga)
    session.store.forget_user(ann.id, fewest={"graph": 10, "full": 10})
    assert shared.counts(session) == before


def test_a_day_that_two_processes_release_at_once_is_drawn_once(session):
    started(session, 2)
    waiting = session.store.days_to_share(session.id)
    first, second = (released(waiting, {}, 1.0, 10.0) for _ in range(2))
    session.store.keep_shared(session.id, first)
    session.store.keep_shared(session.id, second)
    assert session.store.shared_days(session.id) == first


def test_today_is_counted_when_it_is_over_and_checks_and_imports_are_not(session):
    ann = access.join(session, "Ann")
    answer(session, ann.id, 3, 1)
    answer(session, ann.id, 4, 0)
    contents.import_rows(session, [ImportRow(1, "Question 0?", "Yes 0.", "No 0.", Choice.LEFT, "Imp", key="k",
                                             created_at=datetime.now(UTC) - timedelta(1))])  # fmt: skip
    started(session, 1)
    (day,) = session.store.days_to_share(session.id)
    assert day.day == TODAY - timedelta(1) and [user for user, _, _ in day.answers] == [ann.id] * 3


def test_what_is_released_is_spent_whatever_becomes_of_the_answers(session):
    ann = access.join(session, "Ann")
    answer(session, ann.id, 2, 3)
    answer(session, ann.id, 2, 2)
    started(session, 3, epsilon=1.0, total=1.5)
    shared.counts(session)
    answer(session, ann.id, 1, 0)
    with session.store.engine.begin() as connection:
        connection.execute(text("update label set counts = 0 where user_id = :user"), {"user": ann.id})
        connection.execute(
            text("delete from shared_count where day = :day"), {"day": (TODAY - timedelta(1)).isoformat()}
        )
    (day,) = session.store.days_to_share(session.id)
    assert day.spent == {ann.id: 2.0}


def test_a_database_that_takes_no_change_shows_what_is_released(session, monkeypatch):
    started(session, 2)

    def busy(*_: object) -> None:
        raise StoreUnavailable("The database is busy.")

    monkeypatch.setattr(session.store, "keep_shared", busy)
    assert shared.counts(session).until is None
    monkeypatch.undo()
    assert shared.counts(session).until == TODAY - timedelta(1)


def test_shares_come_with_the_interval_of_their_noise_or_not_at_all(session):
    crowd = [access.join(session, f"Person {n}") for n in range(60)]
    for person in crowd:
        answer(session, person.id, 10, 1, Choice.LEFT)
    started(session, 1, epsilon=10.0, total=10.0)
    yes, no = sorted(shared.counts(session).sources, key=lambda one: -(one.share or 0))
    assert {yes.source, no.source} == {"yes", "no"}
    assert abs(yes.share + no.share - 1) < 0.05 and 0 < yes.half_width < 0.1
    shared.share(session, 0.0, 10.0)
    assert shared.counts(session) is None
    low = AssignmentSettings(shared_epsilon=0.01, shared_since=TODAY.isoformat())
    session.store.set_assignment(session.id, low)
    assert shared.counts(session).sources == ()


@pytest.mark.parametrize(
    "wrong",
    [{"shared_epsilon": 0.001}, {"shared_epsilon": 11.0}, {"shared_epsilon": -1.0}, {"shared_epsilon": float("nan")},
     {"shared_epsilon": 2.0, "shared_total": 1.0}, {"shared_total": 1000.0}, {"shared_since": "soon"}],
)  # fmt: skip
def test_numbers_that_promise_nothing_are_refused(wrong):
    with pytest.raises(CoplError, match="ε|since"):
        AssignmentSettings(**wrong)


def test_days_follow_each_other_without_a_gap_also_those_without_answers(session):
    started(session, 5)
    shared.counts(session)
    days = [one.day for one in session.store.shared_days(session.id)]
    assert len(days) == 5 and all(later - earlier == timedelta(1) for earlier, later in pairwise(days))
