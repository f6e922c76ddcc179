"""Counts that everybody of a study sees: what is counted of a day, and that a released day stays."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import update

from copl_core.records import Choice
from copl_core.study_settings import AssignmentSettings, SharedDay
from db.models import LabelRow
from db.study_models import SharedCountRow

TODAY = datetime.now(UTC).date()
FIRST = SharedDay(date(2026, 1, 5), 1.0, 7, {"m": (4, -1), "n": (0, 2)})


def given(store, answer, user: int, pair: int, choice: Choice) -> None:
    """An answer of yesterday."""
    label = answer(user, pair, choice)
    at = datetime.now(UTC) - timedelta(1)
    with store.engine.begin() as connection:
        connection.execute(update(LabelRow).where(LabelRow.id == label.id).values(created_at=at))


def shares(store, study: int, days: int) -> None:
    since = (TODAY - timedelta(days)).isoformat()
    store.set_assignment(study, AssignmentSettings(shared_epsilon=0.5, shared_since=since))


def test_a_day_is_what_people_answered_on_it_in_their_order(store, study, four_pairs, answer, ann):
    (one, first, second), (two, _, _) = four_pairs[:2]
    given(store, answer, ann.id, one, Choice.RIGHT)
    given(store, answer, ann.id, two, Choice.TIE)
    shares(store, study.id, 2)
    empty, day = store.days_to_share(study.id)
    assert (empty.day, empty.answers, day.day) == (TODAY - timedelta(2), [], TODAY - timedelta(1))
    assert day.answers == [(ann.id, second, first), (ann.id, 0, 0)] and day.spent == {}


def test_a_released_day_stays_and_is_not_counted_again(store, study, four_pairs, answer, ann):
    given(store, answer, ann.id, four_pairs[0][0], Choice.LEFT)
    shares(store, study.id, 1)
    day = SharedDay(TODAY - timedelta(1), 0.5, 3, {"m": (1, 2)})
    store.keep_shared(study.id, [FIRST, day])
    store.keep_shared(study.id, [SharedDay(day.day, 9.0, 9, {})])
    assert store.shared_days(study.id) == [FIRST, day] and store.days_to_share(study.id) == []
    shares(store, study.id, 2)
    (earlier,) = store.days_to_share(study.id)
    assert earlier.day == TODAY - timedelta(2) and earlier.spent == {ann.id: 0.5}


def test_a_row_that_is_none_is_left_out(store, study):
    rows = [
        {"day": "yesterday", "by_source": {}},
        {"day": "2026-11-30", "by_source": ["m"]},
        {"day": "2026-11-29", "by_source": {"m": [1, 2], "n": "many", "o": [1], "p": [True, 2]}},
    ]
    with store.engine.begin() as connection:
        for row in rows:
            connection.execute(
                SharedCountRow.__table__.insert().values(study_id=study.id, epsilon=1.0, answers=2, **row)
            )
    assert store.shared_days(study.id) == [
        SharedDay(date(2026, 11, 29), 1.0, 2, {"m": (1, 2)}),
        SharedDay(date(2026, 11, 30), 1.0, 2, {}),
    ]
