"""Counts that everybody of a study sees: released once for each day, with noise, and never counted again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection, case, insert, select

from copl_core.records import Choice, Kind
from copl_core.study_settings import DayOfAnswers, SharedDay
from db.base import AnyRow
from db.models import LabelRow, UserRow
from db.overlap import assignment_of
from db.study_models import SharedCountRow
from db.transactions import Transactions, clock, study_row

MOST_DAYS = 100  # counted at once
_PREFERRED = case((LabelRow.choice == Choice.LEFT.value, LabelRow.left_id), else_=LabelRow.right_id)
_OTHER = case((LabelRow.choice == Choice.LEFT.value, LabelRow.right_id), else_=LabelRow.left_id)
_DECIDED = (Choice.LEFT.value, Choice.RIGHT.value)


class SharedCounts(Transactions):
    def shared_days(self, study_id: int) -> list[SharedDay]:
        with self._read() as connection:
            study_row(connection, study_id)
            return [_day_of(row) for row in _released(connection, study_id)]

    def days_to_share(self, study_id: int) -> list[DayOfAnswers]:
        with self._read() as connection:
            settings = assignment_of(study_row(connection, study_id))
            if not settings.shared_epsilon or not settings.shared_since:
                return []
            released = {row.day: row.epsilon for row in _released(connection, study_id)}
            first, today = date.fromisoformat(settings.shared_since), clock(connection).date()
            days = [first + timedelta(n) for n in range((today - first).days)]
            wanted = [day for day in days if day.isoformat() not in released][:MOST_DAYS]
            if not wanted:
                return []
            spent = _spent(connection, study_id, released)
            return [DayOfAnswers(day, _answers(connection, study_id, day), spent) for day in wanted]

    def keep_shared(self, study_id: int, days: Sequence[SharedDay]) -> None:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            known = {row.day for row in _released(connection, study_id)}
            rows = [
                {
                    "study_id": study_id,
                    "day": one.day.isoformat(),
                    "epsilon": one.epsilon,
                    "answers": one.answers,
                    "by_source": {source: list(counts) for source, counts in one.by_source.items()},
                }
                for one in days
                if one.day.isoformat() not in known
            ]
            if rows:
                connection.execute(insert(SharedCountRow), rows)


def _released(connection: Connection, study_id: int) -> list[AnyRow]:
    query = select(SharedCountRow.__table__).where(SharedCountRow.study_id == study_id)
    return [row for row in connection.execute(query.order_by(SharedCountRow.day)) if _is_day(row.day)]


def _is_day(text: str) -> bool:
    """Whether a stored day is one; a bundle may hold anything."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _day_of(row: AnyRow) -> SharedDay:
    stored = row.by_source if isinstance(row.by_source, dict) else {}
    by_source = {
        source: (counts[0], counts[1])
        for source, counts in stored.items()
        if isinstance(counts, list) and [type(one) for one in counts] == [int, int]
    }
    return SharedDay(date.fromisoformat(row.day), row.epsilon, row.answers, by_source)


def _span(day: date) -> tuple[datetime, datetime]:
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(1)


def _answers(connection: Connection, study_id: int, day: date) -> list[tuple[int, int, int]]:
    """(user, preferred response, other one), both 0 for a tie, of each preference of people on a day, in their order.

    Who waits for an owner's decision counts: that decision rests on the figures of others too.
    """
    start, end = _span(day)
    decided = LabelRow.choice.in_(_DECIDED)
    query = (
        select(LabelRow.user_id, case((decided, _PREFERRED), else_=0), case((decided, _OTHER), else_=0))
        .join(UserRow, UserRow.id == LabelRow.user_id)
        .where(
            LabelRow.study_id == study_id,
            LabelRow.task_id.is_not(None),
            LabelRow.counts,
            LabelRow.attention.is_(False),
            LabelRow.created_at >= start,
            LabelRow.created_at < end,
            UserRow.kind == Kind.HUMAN.value,
            UserRow.excluded.is_(False),
        )
        .order_by(LabelRow.user_id, LabelRow.id)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def _spent(connection: Connection, study_id: int, released: dict[str, float]) -> dict[int, float]:
    """User → ε of the released days on which they gave an answer, whatever has become of it since."""
    if not released:
        return {}
    start = _span(date.fromisoformat(min(released)))[0]
    rows = connection.execute(
        select(LabelRow.user_id, LabelRow.created_at).where(
            LabelRow.study_id == study_id, LabelRow.task_id.is_not(None), LabelRow.created_at >= start
        )
    )
    days = {(user, at.date().isoformat()) for user, at in rows}
    spent: dict[int, float] = {}
    for user, day in days:
        if day in released:
            spent[user] = spent.get(user, 0.0) + released[day]
    return spent
