"""Pairs that a researcher pinned: every user who has not answered a pinned pair is handed it next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from copl_core.records import CoplError
from copl_core.study_settings import PinnedPair
from db.base import AnyRow
from db.models import LabelRow
from db.study_models import PinRow
from db.transactions import Transactions, audit, now, only_trained, pair_row, study_row

_CURRENT = PinRow.ended_at.is_(None)
_PINNED = (
    select(PinRow.pair_id, PinRow.at).where(PinRow.study_id == bindparam("study"), _CURRENT).order_by(PinRow.id.desc())
)


class PinnedPairs(Transactions):
    def pin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> PinnedPair:
        with self._write() as connection:
            study = study_row(connection, study_id, lock=True)
            pair = pair_row(connection, study_id, pair_id)
            if pair.gold_id is not None:
                raise CoplError(
                    f"Pair {pair_id} has a known answer and serves for attention checks only; remove the known "
                    "answer on the Study page first."
                )
            if pair.withdrawn_at is not None:
                raise CoplError(f"Pair {pair_id} is withdrawn, so nobody gets it; an owner can hand it out again.")
            unpin(connection, study_id, pair_id, by)
            connection.execute(insert(PinRow).values(study_id=study_id, pair_id=pair_id, user_id=by, at=now()))
            audit(connection, study_id, "ask", by, pair=pair_id)  # the stored name of this event
            return _pinned_pairs(connection, study)[0]

    def unpin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> bool:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            ended = unpin(connection, study_id, pair_id, by)
            if ended:
                audit(connection, study_id, "ask ended", by, pair=pair_id)
            return ended

    def pinned_pairs(self, study_id: int) -> list[PinnedPair]:
        with self._read() as connection:
            return _pinned_pairs(connection, study_row(connection, study_id))


def pinned_among(
    connection: Connection,
    study_id: int,
    fresh: Sequence[Any],
    skipped: Sequence[Any],
    skipped_at: Mapping[int, datetime],
) -> list[Any]:
    """The pinned pairs among those open to a user, the last pinned first.

    A pair that the user has skipped since it was pinned waits with the other skipped pairs.
    """
    pinned = connection.execute(_PINNED, {"study": study_id}).all()
    if not pinned:
        return []
    known, at_present = {pair[0]: pair for pair in (*fresh, *skipped)}, now()
    return [
        known[pair_id]
        for pair_id, at in pinned
        if pair_id in known and not (pair_id in skipped_at and _is_later(skipped_at[pair_id], at, at_present))
    ]


def _is_later(skipped: datetime, pinned: datetime, at_present: datetime) -> bool:
    """Whether a pair was skipped after it was pinned.  A time in the future was written while a clock was wrong.

    Every skip counts as later than a pin from the future, or the pair would come back after each; a skip from the
    future counts as earlier than other pins, or the pair would be put off until then.
    """
    return pinned > at_present or pinned <= skipped <= at_present


def unpin(connection: Connection, study_id: int, pair_id: int, by: int | None) -> bool:
    """Unpin a pair; False where it is not pinned."""
    return bool(
        connection.execute(
            update(PinRow)
            .where(PinRow.study_id == study_id, PinRow.pair_id == pair_id, _CURRENT)
            .values(ended_at=now(), ended_by=by)
        ).rowcount
    )


def _pinned_pairs(connection: Connection, study: AnyRow) -> list[PinnedPair]:
    """Pairs pinned now, the last pinned first, with the number of users who have answered since."""
    since = and_(
        LabelRow.pair_id == PinRow.pair_id,
        LabelRow.counts,
        LabelRow.attention.is_(False),
        LabelRow.created_at >= PinRow.at,
    )
    answered = only_trained(select(func.count(LabelRow.user_id.distinct())).where(since), study, LabelRow.user_id)
    query = (
        select(PinRow.pair_id, PinRow.user_id, PinRow.at, answered.correlate(PinRow).scalar_subquery())
        .where(PinRow.study_id == study.id, _CURRENT)
        .order_by(PinRow.id.desc())
    )
    return [PinnedPair(*row) for row in connection.execute(query)]
