"""The slots of a pair: how many users may label it, who takes a slot, and whether one is free.

A human user's counting preference takes a slot; so does a task of theirs that is open and not expired.  Repeats, gold
pairs and practice take none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select, update

from copl_core.records import Kind
from copl_core.study_settings import AssignmentSettings, SelectionReason
from db.base import AnyRow, Param
from db.many import set_many
from db.models import LabelRow, PairRow, TaskRow, UserRow
from db.transactions import OPEN, now
from db.unfinished import shown

# Tasks handed out for these reasons take no slot.
WITHOUT_SLOT = (SelectionReason.REPEAT.value, SelectionReason.GOLD.value, SelectionReason.PRACTICE.value)

_IDS = 500  # in one statement
_USER: Param = bindparam("user")
_PAIR: Param = bindparam("pair")
_AT: Param = bindparam("at")
_RESERVED = (
    TaskRow.state == OPEN,
    TaskRow.expires_at > _AT,
    TaskRow.user_id != _USER,
    TaskRow.reason.not_in(WITHOUT_SLOT),
)
# An import that is not whole fills no pair: the transactions that count are those that write, which see its labels.
_PREFERENCE = (LabelRow.counts, LabelRow.attention.is_(False), shown(LabelRow))
_VOTING = (UserRow.kind == Kind.HUMAN.value, UserRow.excluded.is_(False), UserRow.quarantined.is_(False))
# A scalar query in place of a join: the labels of a pair are found by its index, and then their users.  On a table that
# has just been filled PostgreSQL has no statistics, and would join all people with all of their labels.
_BY_VOTER = select(and_(*_VOTING)).where(UserRow.id == LabelRow.user_id).correlate(LabelRow).scalar_subquery()
_COUNTING = (*_PREFERENCE, _BY_VOTER)
_ANNOTATORS = select(LabelRow.user_id).where(*_COUNTING)
_ON_PAIR = _ANNOTATORS.where(LabelRow.pair_id == _PAIR, LabelRow.user_id != _USER)
_HOLDING = select(TaskRow.user_id).where(*_RESERVED, TaskRow.pair_id == _PAIR)
_FULL = (
    select(TaskRow.pair_id)
    .join(PairRow, PairRow.id == TaskRow.pair_id)
    .where(*_RESERVED)
    .group_by(TaskRow.pair_id, PairRow.n_annotators)
    .having(PairRow.n_annotators + func.count() >= bindparam("overlap"))
)
_COUNTED = (
    select(func.count(LabelRow.user_id.distinct()))
    .where(*_COUNTING, LabelRow.pair_id == PairRow.id)
    .correlate(PairRow)
    .scalar_subquery()
)
_LOCK = select(PairRow.id).where(PairRow.id == _PAIR)
_LOCKS = {wait: _LOCK.with_for_update(key_share=True, skip_locked=not wait) for wait in (False, True)}
_RECOUNT = update(PairRow).where(PairRow.id == _PAIR).values(n_annotators=_COUNTED)


def assignment_of(study: AnyRow) -> AssignmentSettings:
    return AssignmentSettings.of(study.assignment)


def has_free_slot(
    connection: Connection, pair_id: int, user_id: int, settings: AssignmentSettings, *, wait: bool
) -> bool:
    """Whether one more user may label the pair; the pair stays locked until this transaction ends.

    ``wait`` for the lock of another transaction, or count a pair that is locked by one as full.
    """
    if settings.overlap is None:
        return True
    if connection.execute(_LOCKS[wait], {"pair": pair_id}).first() is None:
        return False
    labelled = connection.execute(_ON_PAIR, {"pair": pair_id, "user": user_id}).scalars()
    holding = connection.execute(_HOLDING, {"pair": pair_id, "user": user_id, "at": now()}).scalars()
    return len({*labelled, *holding}) < settings.overlap


def full_pairs(connection: Connection, user_id: int, settings: AssignmentSettings) -> list[int]:
    """Pairs whose last slots are taken by open tasks of other users."""
    if settings.overlap is None:
        return []
    values = {"user": user_id, "at": now(), "overlap": settings.overlap}
    return list(connection.execute(_FULL, values).scalars())


def recount(connection: Connection, settings: AssignmentSettings, pair_id: int) -> None:
    """Recount the annotators of a pair; nothing to do in a study without overlap."""
    if settings.overlap is not None:
        connection.execute(_RECOUNT, {"pair": pair_id})


def recount_some(connection: Connection, settings: AssignmentSettings, pairs: Iterable[int]) -> None:
    """Recount the annotators of some pairs, in queries that are fast on tables which have just been filled: without
    statistics, PostgreSQL joins them by reading them whole.
    """
    left = iter(pairs)
    while settings.overlap is not None and (some := list(islice(left, _IDS))):
        votes = select(LabelRow.pair_id, LabelRow.user_id).distinct().where(LabelRow.pair_id.in_(some), *_PREFERENCE)
        users = connection.execute(votes).all()
        voting = _voting(connection, {user for _, user in users})
        counted = Counter(pair for pair, user in users if user in voting)
        rows = connection.execute(select(PairRow.id, PairRow.n_annotators).where(PairRow.id.in_(some)))
        changed = {row.id: counted[row.id] for row in rows if row[1] != counted[row.id]}
        set_many(connection, PairRow.n_annotators, changed)


def _voting(connection: Connection, users: Iterable[int]) -> set[int]:
    found, left = set[int](), iter(users)
    while some := list(islice(left, _IDS)):
        found.update(connection.execute(select(UserRow.id).where(UserRow.id.in_(some), *_VOTING)).scalars())
    return found


def pairs_of(study_id: int) -> Any:
    """A query of the ids of the study's pairs."""
    return select(PairRow.id).where(PairRow.study_id == study_id)
