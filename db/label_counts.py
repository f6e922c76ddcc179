"""How many labels of each user count: kept in the user's row, in the transaction of every change of labels.

Labelling locks the row of its user and no row that others change, so labellers do not wait for each other here.  What
is shown of a study is a sum over its users, which takes a tenth of a second where there are a million.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, case, func, select, update

from db.base import AnyRow, Param
from db.many import add_many
from db.models import LabelRow, UserRow
from db.transactions import only_trained

_USER: Param = bindparam("user")
_MORE: Param = bindparam("more")
_CHANGES = {
    attention: update(UserRow).where(UserRow.id == _USER).values({column: column + _MORE})
    for attention, column in ((False, UserRow.n_preferences), (True, UserRow.n_checks))
}


def change_count(connection: Connection, user_id: int, more: int, *, attention: bool) -> None:
    """Count that a user has ``more`` labels, preferences or checks; the caller has locked the user's row."""
    connection.execute(_CHANGES[attention], {"user": user_id, "more": more})


def add_preferences(connection: Connection, more: Mapping[int, int]) -> None:
    """Count imported preferences: user → how many."""
    add_many(connection, UserRow.n_preferences, more)


def recount_labels(connection: Connection, study_id: int) -> None:
    """Count the labels of every user of a study from the table of labels."""
    checks = func.sum(case((LabelRow.attention, 1), else_=0))
    counted = (
        select(LabelRow.user_id, checks.label("checks"), func.count().label("labels"))
        .where(LabelRow.study_id == study_id, LabelRow.counts)
        .group_by(LabelRow.user_id)
        .subquery()
    )
    nothing = {UserRow.n_preferences: 0, UserRow.n_checks: 0}
    connection.execute(update(UserRow).where(UserRow.study_id == study_id).values(nothing))
    found = {UserRow.n_preferences: counted.c.labels - counted.c.checks, UserRow.n_checks: counted.c.checks}
    connection.execute(update(UserRow).where(UserRow.id == counted.c.user_id).values(found))


def trained_labels(connection: Connection, study: AnyRow, most: int | None = None) -> int:
    """How many labels of a study a run would learn from; counted up to ``most``, which reads as many users at most."""
    counts = select(UserRow.n_preferences).where(UserRow.study_id == study.id, UserRow.n_preferences > 0)
    counts = only_trained(counts, study, UserRow.id)
    each = (counts if most is None else counts.limit(most)).subquery()
    n = int(connection.execute(select(func.coalesce(func.sum(each.c.n_preferences), 0))).scalar_one())
    return n if most is None else min(n, most)
