"""The places of a pair: how many people may label it, who holds one, and whether there is room for another.

A place is held by a real person's counting preference, or by a task of theirs that is open and has not expired.
Repeats, gold pairs and practice take none.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from copl_core.records import Kind
from copl_core.study_settings import AssignmentSettings, SelectionReason
from db.models import LabelRow, PairRow, TaskRow, UserRow
from db.transactions import OPEN, now

WITHOUT_SLOT = (
    SelectionReason.REPEAT.value,
    SelectionReason.GOLD.value,
    SelectionReason.PRACTICE.value,
)  # reasons of a task

_USER, _PAIR, _AT = bindparam("user"), bindparam("pair"), bindparam("at")
_RESERVED = (
    TaskRow.state == OPEN,
    TaskRow.expires_at > _AT,
    TaskRow.user_id != _USER,
    TaskRow.reason.not_in(WITHOUT_SLOT),
)
_COUNTING = (
    LabelRow.counts,
    LabelRow.attention.is_(False),
    UserRow.kind == Kind.HUMAN.value,
    UserRow.excluded.is_(False),
)
_PEOPLE = select(LabelRow.user_id).join(UserRow, UserRow.id == LabelRow.user_id).where(*_COUNTING)
_ON_PAIR = _PEOPLE.where(LabelRow.pair_id == _PAIR, LabelRow.user_id != _USER)
_HOLDING = select(TaskRow.user_id).where(*_RESERVED, TaskRow.pair_id == _PAIR)
_FILLED = (
    select(TaskRow.pair_id)
    .join(PairRow, PairRow.id == TaskRow.pair_id)
    .where(*_RESERVED)
    .group_by(TaskRow.pair_id, PairRow.n_annotators)
    .having(PairRow.n_annotators + func.count() >= bindparam("overlap"))
)
_COUNTED = (
    select(func.count(LabelRow.user_id.distinct()))
    .join(UserRow, UserRow.id == LabelRow.user_id)
    .where(*_COUNTING, LabelRow.pair_id == PairRow.id)
    .correlate(PairRow)
    .scalar_subquery()
)
_LOCK = select(PairRow.id).where(PairRow.id == _PAIR)
_LOCKS = {wait: _LOCK.with_for_update(key_share=True, skip_locked=not wait) for wait in (False, True)}
_RECOUNT = update(PairRow).where(PairRow.id == _PAIR).values(n_annotators=_COUNTED)


def assignment_of(study: Row[Any]) -> AssignmentSettings:
    return AssignmentSettings.of(study.assignment)


def has_free_slot(connection: Connection, pair_id: int, user_id: int, room: AssignmentSettings, *, wait: bool) -> bool:
    """Whether one more person may label the pair; true only while the pair is locked until this transaction ends.

    With ``wait`` another transaction's lock is waited for, without it such a pair counts as full.
    """
    if room.overlap is None:
        return True
    if connection.execute(_LOCKS[wait], {"pair": pair_id}).first() is None:
        return False
    labelled = connection.execute(_ON_PAIR, {"pair": pair_id, "user": user_id}).scalars()
    holding = connection.execute(_HOLDING, {"pair": pair_id, "user": user_id, "at": now()}).scalars()
    return len({*labelled, *holding}) < room.overlap


def full_pairs(connection: Connection, user_id: int, room: AssignmentSettings) -> list[int]:
    """Pairs whose last places are held by open tasks of people other than the user."""
    if room.overlap is None:
        return []
    held = {"user": user_id, "at": now(), "overlap": room.overlap}
    return list(connection.execute(_FILLED, held).scalars())


def recount(connection: Connection, room: AssignmentSettings, pair_id: int) -> None:
    """Count the people on a pair anew; nothing where a study has no overlap."""
    if room.overlap is not None:
        connection.execute(_RECOUNT, {"pair": pair_id})


def recount_all(connection: Connection, room: AssignmentSettings, pairs: Any) -> None:
    """The same for every pair of a query of ids."""
    if room.overlap is not None:
        connection.execute(update(PairRow).where(PairRow.id.in_(pairs)).values(n_annotators=_COUNTED))


def pairs_of(study_id: int) -> Any:
    """A query of the study's pairs' ids."""
    return select(PairRow.id).where(PairRow.study_id == study_id)
