"""Tasks: which pairs a user may be handed, reserving one, skipping one, and the draft of a reason.

The statements of every click are built once, at import: building one takes SQLAlchemy longer than running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from copl_core.records import LARGEST, Choice, CoplError, Task
from copl_core.study_settings import (
    CHECK_REASONS,
    AssignmentSettings,
    AvailablePairs,
    Draft,
    LabelSummary,
    Prediction,
    SelectionReason,
)
from db.base import AnyResult, AnyRow, Param
from db.listing import OLDEST_FIRST
from db.models import LabelRow, PairRow, TaskRow
from db.overlap import WITHOUT_SLOT, assignment_of, full_pairs, has_free_slot
from db.pinned_pairs import pinned_among
from db.study_models import DraftRow
from db.texts import read_pair
from db.transactions import OPEN, Transactions, now, plain_rows, study_of, user_row
from db.unfinished import shown
from db.withdrawn_pairs import WITHDRAWN

_USER: Param = bindparam("user")
_STUDY: Param = bindparam("study")
_PAIR: Param = bindparam("pair")
_TASK: Param = bindparam("task")
_AT: Param = bindparam("at")
_MINE = (LabelRow.study_id == _STUDY, LabelRow.user_id == _USER, LabelRow.counts)
_CURRENT_TASK = select(TaskRow.__table__).where(TaskRow.user_id == _USER, TaskRow.state == OPEN)
_OPEN = (
    select(TaskRow.__table__)
    .where(TaskRow.id == _TASK, TaskRow.user_id == _USER, TaskRow.state == OPEN)
    .with_for_update()
)
_UNLABELLED = (
    select(PairRow.id, PairRow.first_id, PairRow.second_id)
    .where(
        PairRow.study_id == _STUDY,
        PairRow.withdrawn_at.is_(None),
        PairRow.id.not_in(select(LabelRow.pair_id).where(*_MINE)),
    )
    .order_by(PairRow.id)
)
_WITH_FREE_SLOT = _UNLABELLED.where(PairRow.gold_id.is_(None), PairRow.n_annotators < bindparam("overlap"))
_GOLD = _UNLABELLED.where(PairRow.gold_id.is_not(None))
_SKIPPED = (
    select(TaskRow.pair_id, TaskRow.closed_at).where(TaskRow.user_id == _USER, TaskRow.skipped).order_by(TaskRow.id)
)
_LABELLED = select(LabelRow.id).where(*_MINE, LabelRow.pair_id == _PAIR, shown(LabelRow)).limit(1)
_SUMMARIES = (
    select(
        LabelRow.pair_id,
        LabelRow.left_id,
        LabelRow.right_id,
        LabelRow.choice,
        LabelRow.strength,
        LabelRow.position_known,
    )
    .where(*_MINE, LabelRow.attention.is_(False))
    .order_by(*OLDEST_FIRST)
)
_N_PRACTICE = (
    select(func.count())
    .select_from(LabelRow)
    .join(TaskRow, TaskRow.id == LabelRow.task_id)
    .where(*_MINE, LabelRow.attention, TaskRow.reason == SelectionReason.PRACTICE.value)
)
_N_GOLD = (
    select(func.count())
    .select_from(LabelRow)
    .join(TaskRow, TaskRow.id == LabelRow.task_id)
    .where(*_MINE, LabelRow.attention, TaskRow.reason == SelectionReason.GOLD.value)
)
_CLOSE = (
    update(TaskRow)
    .where(TaskRow.id == _TASK)
    .values(state=bindparam("to"), closed_at=_AT, skipped=bindparam("was_skipped"))
)
_END_DRAFT = delete(DraftRow).where(DraftRow.task_id == _TASK)
# Locked so that nobody withdraws the pair before the task is there; others are handed it meanwhile.
_ONE_PAIR = select(PairRow.__table__).where(PairRow.id == _PAIR).with_for_update(read=True, key_share=True)
_NEW = insert(TaskRow).returning(*TaskRow.__table__.c)
_CHOICES = {choice.value: choice for choice in Choice}


class Tasks(Transactions):
    def open_task(self, user_id: int) -> Task | None:
        with self._read() as connection:
            row = current_task(connection, user_id)
            return None if row is None or row.expires_at <= now() else task_of(connection, row)

    def available_pairs(self, user_id: int) -> AvailablePairs:
        with self._read() as connection:
            study = study_of(connection, user_id)
            settings = assignment_of(study)
            fresh, skipped, gold = open_pairs(connection, study, settings)
            mine = {"study": study.id, "user": user_id}
            rows = plain_rows(connection, _SUMMARIES, mine)
            summaries = [
                LabelSummary(pair, left, right, _CHOICES[choice], strength, bool(known))
                for pair, left, right, choice, strength, known in rows
            ]
            n_practice = connection.execute(_N_PRACTICE, mine).scalar_one() if settings.practice else 0
            newcomer = not summaries and not connection.execute(_N_GOLD, mine).scalar_one()
            skipped_at = _skipped_at(connection, user_id)
            withdrawn = connection.execute(WITHDRAWN, {"study": study.id}).scalars()
            return AvailablePairs(
                settings=settings,
                champion=study.champion,
                summaries=summaries,
                pairs=fresh or skipped[:1],
                gold=[pair for pair in gold if pair[0] not in skipped_at],
                skipped=frozenset((*skipped_at, *withdrawn)),
                n_practice=n_practice,
                newcomer=newcomer,
                pinned=pinned_among(connection, study.id, fresh, skipped, skipped_at),
            )

    def hand_out(
        self,
        user_id: int,
        pair_id: int,
        *,
        swap: bool,
        reason: str,
        expires_at: datetime,
        prediction: Prediction | None = None,
    ) -> Task | None:
        """The pair was chosen before this transaction, so everything is checked again under locks.

        On PostgreSQL a pair that another user is being handed at this moment is left to that user.
        """
        with self._write() as connection:
            user_row(connection, user_id, lock=True)
            current = current_task(connection, user_id)
            if current is not None and current.expires_at > now():
                return task_of(connection, current)
            study = study_of(connection, user_id)
            pair = connection.execute(_ONE_PAIR, {"pair": pair_id}).first()
            if pair is None or pair.study_id != study.id:
                raise CoplError(f"Pair {pair_id} is not in the study of user {user_id}; take one of its pairs.")
            if pair.withdrawn_at is not None:
                return None
            if (reason in CHECK_REASONS) != (pair.gold_id is not None):
                return None
            if reason != SelectionReason.REPEAT and has_labelled(connection, study, pair_id):
                return None
            if reason not in WITHOUT_SLOT and not has_free_slot(
                connection, pair_id, user_id, assignment_of(study), wait=False
            ):
                return None
            if current is not None:
                close(connection, current.id, "withdrawn")
            sides = (pair.second_id, pair.first_id) if swap else (pair.first_id, pair.second_id)
            return task_of(connection, new_task(connection, user_id, pair_id, sides, reason, expires_at, prediction))

    def skip(self, task_id: int, user_id: int) -> bool:
        with self._write() as connection:
            user_row(connection, user_id, lock=True)
            if task_to_answer(connection, task_id, user_id) is None:
                return False
            close(connection, task_id, "withdrawn", skipped=True)
            return True

    # ---- drafts
    def draft(self, task_id: int, user_id: int, draft: Draft) -> bool:
        with self._write() as connection:
            task = task_to_answer(connection, task_id, user_id)
            if task is not None:
                write_draft(connection, task_id, draft)
            return task is not None

    def draft_of(self, task_id: int, user_id: int) -> Draft:
        with self._read() as connection:
            row = connection.execute(
                select(DraftRow.text, DraftRow.tags)
                .join(TaskRow, TaskRow.id == DraftRow.task_id)
                .where(DraftRow.task_id == task_id, TaskRow.user_id == user_id)
            ).first()
            return Draft() if row is None else Draft(row.text, tuple(row.tags or ()))


def open_pairs(
    connection: Connection, study: AnyRow, settings: AssignmentSettings
) -> tuple[list[Any], list[Any], list[Any]]:
    """Pairs (id, first, second) that a user (``study_of``) may be handed.

    New pairs by id; skipped pairs, the one skipped longest ago first; gold pairs, skipped or not.
    """
    user_id = study.user_id
    current = current_task(connection, user_id)
    on_screen = current.pair_id if current is not None and current.expires_at > now() else None
    busy = {on_screen, *full_pairs(connection, user_id, settings)}
    order = {pair_id: position for position, pair_id in enumerate(_skipped_at(connection, user_id))}
    mine = {"study": study.id, "user": user_id}
    overlap = LARGEST if settings.overlap is None else settings.overlap
    pairs = [
        pair for pair in plain_rows(connection, _WITH_FREE_SLOT, mine | {"overlap": overlap}) if pair[0] not in busy
    ]
    fresh = [pair for pair in pairs if pair[0] not in order] if order else pairs
    skipped = [pair for pair in pairs if pair[0] in order] if order else []
    gold = [pair for pair in plain_rows(connection, _GOLD, mine) if pair[0] != on_screen]
    return fresh, sorted(skipped, key=lambda pair: order[pair[0]]), gold


def has_labelled(connection: Connection, study: AnyRow, pair_id: int) -> bool:
    """Whether the user (``study_of``) has a counting label of any kind on a pair."""
    mine = {"study": study.id, "user": study.user_id, "pair": pair_id}
    return connection.execute(_LABELLED, mine).first() is not None


def current_task(connection: Connection, user_id: int) -> AnyRow | None:
    """The user's open task, expired or not."""
    return connection.execute(_CURRENT_TASK, {"user": user_id}).first()


def task_to_answer(connection: Connection, task_id: int, user_id: int) -> AnyRow | None:
    """The task if it is open and this user's, locked until the transaction ends."""
    return connection.execute(_OPEN, {"task": task_id, "user": user_id}).first()


def close(connection: Connection, task_id: int, state: str, *, skipped: bool = False) -> None:
    connection.execute(_CLOSE, {"task": task_id, "to": state, "at": now(), "was_skipped": skipped})
    connection.execute(_END_DRAFT, {"task": task_id})


def new_task(
    connection: Connection,
    user_id: int,
    pair_id: int,
    sides: Sequence[int],
    reason: str,
    expires_at: datetime,
    prediction: Prediction | None,
) -> AnyRow:
    left, crowd, snapshot = (
        (None, None, None) if prediction is None else (prediction.left, prediction.crowd, prediction.snapshot)
    )
    return connection.execute(
        _NEW,
        {
            "user_id": user_id,
            "pair_id": pair_id,
            "left_id": sides[0],
            "right_id": sides[1],
            "reason": str(reason),
            "state": "open",
            "handed_at": now(),
            "expires_at": expires_at,
            "predicted_left": left,
            "predicted_crowd": crowd,
            "predicted_snapshot": snapshot,
        },
    ).one()


def write_draft(connection: Connection, task_id: int, draft: Draft) -> None:
    values = {"text": draft.text, "tags": list(draft.tags) or None, "at": now()}
    if not connection.execute(update(DraftRow).where(DraftRow.task_id == task_id).values(values)).rowcount:
        connection.execute(insert(DraftRow).values(task_id=task_id, **values))


def task_of(connection: Connection, row: AnyRow) -> Task:
    pair = read_pair(connection, row.pair_id)
    left, right = (pair.first, pair.second) if row.left_id == pair.first.id else (pair.second, pair.first)
    return Task(row.id, row.user_id, row.pair_id, pair.prompt, left, right, row.reason)


def _skipped_at(connection: Connection, user_id: int) -> dict[int, datetime]:
    """Pairs the user has skipped, with the time of the last skip, the one skipped longest ago first.

    The order is that of the tasks, which a clock that jumps does not change.
    """
    rows: AnyResult = connection.execute(_SKIPPED, {"user": user_id})
    found = dict[int, datetime]()
    for pair_id, at in rows:
        found.pop(pair_id, None)  # an earlier skip of the same pair
        found[pair_id] = at
    return found
