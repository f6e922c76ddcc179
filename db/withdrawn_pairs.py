"""Pairs that an owner has withdrawn: nobody is handed one, and its labels stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, or_, select, update

from copl_core.records import CoplError
from copl_core.study_settings import WithdrawnPair
from db.models import PairRow, TaskRow
from db.pinned_pairs import unpin
from db.study_models import DraftRow
from db.texts import IDS
from db.transactions import OPEN, Transactions, audit, now, study_row

# The ids of the withdrawn pairs of a study; few, and found by an index of their own
WITHDRAWN = select(PairRow.id).where(PairRow.study_id == bindparam("study"), PairRow.withdrawn_at.is_not(None))


class WithdrawnPairs(Transactions):
    def withdraw_pairs(self, study_id: int, pair_ids: Sequence[int], *, by: int | None = None) -> int:
        """The pairs are locked as nothing else locks them, so that nobody is being handed one meanwhile."""
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            chosen = [pair for pair in _pairs(connection, study_id, pair_ids) if pair.withdrawn_at is None]
            for pair in chosen:
                connection.execute(update(PairRow).where(PairRow.id == pair.id).values(withdrawn_at=now()))
                unpin(connection, study_id, pair.id, by)
                _end_tasks(connection, pair.id)
                audit(connection, study_id, "withdrawn", by, pair=pair.id)
            return len(chosen)

    def hand_out_again(self, study_id: int, pair_ids: Sequence[int], *, by: int | None = None) -> int:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            chosen = [pair for pair in _pairs(connection, study_id, pair_ids) if pair.withdrawn_at is not None]
            for pair in chosen:
                connection.execute(update(PairRow).where(PairRow.id == pair.id).values(withdrawn_at=None))
                audit(connection, study_id, "withdrawn ended", by, pair=pair.id)
            return len(chosen)

    def withdrawn_pairs(self, study_id: int) -> list[WithdrawnPair]:
        with self._read() as connection:
            query = select(PairRow.id, PairRow.withdrawn_at).where(
                PairRow.study_id == study_id, PairRow.withdrawn_at.is_not(None)
            )
            rows = connection.execute(query.order_by(PairRow.withdrawn_at.desc(), PairRow.id.desc()))
            return [WithdrawnPair(pair_id, at) for pair_id, at in rows if at is not None]

    def pairs_with(self, study_id: int, response_id: int) -> list[int]:
        with self._read() as connection:
            has = or_(PairRow.first_id == response_id, PairRow.second_id == response_id)
            query = select(PairRow.id).where(PairRow.study_id == study_id, has).order_by(PairRow.id)
            return list(connection.execute(query).scalars())


def _pairs(connection: Connection, study_id: int, pair_ids: Sequence[int]) -> list[Any]:
    """The rows of these pairs, by id and locked.

    Raises:
        CoplError: one is not in the study.
    """
    wanted, found = sorted(set(pair_ids)), list[Any]()
    for start in range(0, len(wanted), IDS):
        some = (PairRow.study_id == study_id, PairRow.id.in_(wanted[start : start + IDS]))
        query = select(PairRow.id, PairRow.withdrawn_at).where(*some).order_by(PairRow.id).with_for_update()
        found += connection.execute(query).all()
    if missing := sorted(set(wanted) - {pair.id for pair in found}):
        raise CoplError(f"There is no pair with id {missing[0]} in this study; take one of its pairs.")
    return found


def _end_tasks(connection: Connection, pair_id: int) -> None:
    """Withdraw the open tasks on a pair, expired ones too; who has it on the screen gets the next pair."""
    on_pair = (TaskRow.pair_id == pair_id, TaskRow.state == OPEN)
    closed = update(TaskRow).where(*on_pair).values(state="withdrawn", closed_at=now()).returning(TaskRow.id)
    tasks = list(connection.execute(closed).scalars())
    connection.execute(delete(DraftRow).where(DraftRow.task_id.in_(tasks)))
