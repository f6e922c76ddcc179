"""Pairs that a researcher has put at the front of the queue: everybody who has not answered one is handed it next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, select, update

from copl_core.records import CoplError
from copl_core.study_settings import PinnedPair
from db.models import LabelRow
from db.study_models import PinRow
from db.transactions import Transactions, audit, now, only_trained, pair_row, study_row

_OPEN = PinRow.ended_at.is_(None)
_FRONT = (
    select(PinRow.pair_id, PinRow.at).where(PinRow.study_id == bindparam("study"), _OPEN).order_by(PinRow.id.desc())
)


class PinnedPairs(Transactions):
    def pin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> PinnedPair:
        with self._write() as connection:
            study = study_row(connection, study_id, lock=True)
            pair = pair_row(connection, study_id, pair_id)
            if pair.gold_id is not None:
                raise CoplError(
                    f"Pair {pair_id} has a known answer and is asked for attention only; take the known "
                    "answer away on the study's page first."
                )
            _end(connection, study_id, pair_id, by)
            connection.execute(insert(PinRow).values(study_id=study_id, pair_id=pair_id, user_id=by, at=now()))
            audit(connection, study_id, "ask", by, pair=pair_id)
            return _asks(connection, study)[0]

    def unpin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> bool:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            ended = _end(connection, study_id, pair_id, by)
            if ended:
                audit(connection, study_id, "ask ended", by, pair=pair_id)
            return ended

    def pinned_pairs(self, study_id: int) -> list[PinnedPair]:
        with self._read() as connection:
            return _asks(connection, study_row(connection, study_id))


def front(
    connection: Connection,
    study_id: int,
    fresh: Sequence[Any],
    put_off: Sequence[Any],
    put_off_at: Mapping[int, datetime],
) -> list[Any]:
    """Of the pairs open to a user, those at the front of the queue, the last asked for first.

    One that the user has put off since it was asked for waits with the others that they have put off.
    """
    asked = connection.execute(_FRONT, {"study": study_id}).all()
    if not asked:
        return []
    known = {pair[0]: pair for pair in (*fresh, *put_off)}
    return [
        known[pair_id]
        for pair_id, at in asked
        if pair_id in known and (pair_id not in put_off_at or put_off_at[pair_id] < at)
    ]


def _end(connection: Connection, study_id: int, pair_id: int, by: int | None) -> bool:
    return bool(
        connection.execute(
            update(PinRow)
            .where(PinRow.study_id == study_id, PinRow.pair_id == pair_id, _OPEN)
            .values(ended_at=now(), ended_by=by)
        ).rowcount
    )


def _asks(connection: Connection, study: Row[Any]) -> list[PinnedPair]:
    """Open ones, the last asked for first, with the people who have answered since."""
    since = and_(
        LabelRow.pair_id == PinRow.pair_id,
        LabelRow.counts,
        LabelRow.attention.is_(False),
        LabelRow.created_at >= PinRow.at,
    )
    answered = only_trained(select(func.count(LabelRow.user_id.distinct())).where(since), study, LabelRow.user_id)
    query = (
        select(PinRow.pair_id, PinRow.user_id, PinRow.at, answered.correlate(PinRow).scalar_subquery())
        .where(PinRow.study_id == study.id, _OPEN)
        .order_by(PinRow.id.desc())
    )
    return [PinnedPair(*row) for row in connection.execute(query)]
