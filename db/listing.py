"""Reading labels: lists, history, export, and the columns from which quality and accuracy are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from sqlalchemy import case, func, select, text

from copl_core.records import Choice, Label
from copl_core.study_settings import UNBIASED_REASONS, AnswerTable, Prediction, PredictionRecord, SelectionReason
from db.base import AnyRow
from db.engine import limit
from db.label_counts import trained_labels
from db.models import IS_SETTLED, LabelRow, PairRow, PromptRow, ResponseRow, TaskRow, UserRow
from db.transactions import Transactions, only_trained, only_visible, plain_rows, study_row, user_row

_LABEL = (
    LabelRow.id,
    LabelRow.task_id,
    LabelRow.user_id,
    LabelRow.pair_id,
    PairRow.prompt_id,
    LabelRow.left_id,
    LabelRow.right_id,
    LabelRow.choice,
    LabelRow.strength,
    LabelRow.reason,
    LabelRow.milliseconds,
    LabelRow.created_at,
    LabelRow.tags,
    LabelRow.guidelines,
    TaskRow.reason.label("selection_reason"),
    LabelRow.counts,
    LabelRow.successor_id,
    LabelRow.edited_at,
    LabelRow.position_known,
    LabelRow.confirmed_at,
)
_PREFERENCE = (LabelRow.counts, LabelRow.attention.is_(False))
_DECIDED = (Choice.LEFT.value, Choice.RIGHT.value)
# Labels that count, each user's in the order given.  A user's next task opens after the last one has closed, so their
# tasks follow each other whatever the clock says, and an edit keeps its task.  Imported labels have no task, only the
# times of their file: they come first.
OLDEST_FIRST = (func.coalesce(LabelRow.task_id, 0), LabelRow.created_at, LabelRow.id)
_MOST_BOUND = 500  # ids bound in one statement; longer lists are filtered here


class Listing(Transactions):
    def label_count(self, study_id: int, *, most: int | None = None) -> int:
        with self._read() as connection:
            return trained_labels(connection, study_row(connection, study_id), most)

    def labels(self, study_id: int, *, user_id: int | None = None, pair_id: int | None = None) -> list[Label]:
        with self._read() as connection:
            query = labels_query().where(LabelRow.study_id == study_id, *_PREFERENCE)
            study = study_row(connection, study_id)
            if user_id is None:
                query = only_trained(query, study, LabelRow.user_id)
            else:
                query = only_visible(query.where(LabelRow.user_id == user_id), study, LabelRow.user_id)
            if pair_id is not None:
                query = query.where(LabelRow.pair_id == pair_id)
            return [label_of(row) for row in connection.execute(query.order_by(*OLDEST_FIRST))]

    def history(self, user_id: int) -> list[Label]:
        with self._read() as connection:
            study_id = user_row(connection, user_id).study_id
            query = labels_query().where(
                LabelRow.study_id == study_id, LabelRow.user_id == user_id, LabelRow.attention.is_(False)
            )
            labels = [label_of(row) for row in connection.execute(query.order_by(LabelRow.id.desc()))]
        return _newest_first(labels)

    def settled_labels(self, study_id: int) -> set[tuple[int, int, int]]:
        preferred = case((LabelRow.choice == Choice.LEFT.value, LabelRow.left_id), else_=LabelRow.right_id)
        looked_at = text(f"({IS_SETTLED})")  # literally: it serves a partial index
        with self._read() as connection:
            query = select(LabelRow.user_id, LabelRow.pair_id, preferred).where(
                LabelRow.study_id == study_id, LabelRow.choice.in_(_DECIDED), looked_at, *_PREFERENCE
            )
            return set(plain_rows(connection, query))

    def votes(self, pair_id: int, *, excluding: int) -> tuple[int, int]:
        with self._read() as connection:
            pair = connection.execute(select(PairRow.__table__).where(PairRow.id == pair_id)).one()
            preferred = case((LabelRow.choice == Choice.LEFT.value, LabelRow.left_id), else_=LabelRow.right_id)
            query = select(preferred, func.count()).where(
                LabelRow.pair_id == pair_id, LabelRow.user_id != excluding, LabelRow.choice.in_(_DECIDED), *_PREFERENCE
            )
            query = only_trained(query, study_row(connection, pair.study_id), LabelRow.user_id).group_by(preferred)
            counts = {response: n for response, n in connection.execute(query)}
            return counts.get(pair.first_id, 0), counts.get(pair.second_id, 0)

    def answer_counts(self, study_id: int) -> tuple[int, int]:
        with self._read() as connection:
            answers = UserRow.n_preferences + UserRow.n_checks
            query = select(func.count(), func.coalesce(func.sum(answers), 0))
            query = query.where(UserRow.study_id == study_id, answers > 0)
            study = study_row(connection, study_id)
            users, n = connection.execute(only_visible(query, study, UserRow.id)).one()
            return users, int(n)

    def answered_since(self, study_id: int, label_id: int) -> tuple[list[int], int]:
        with self._read() as connection:
            study = study_row(connection, study_id)
            new = only_visible(select(LabelRow.user_id, LabelRow.id), study, LabelRow.user_id)
            rows = connection.execute(new.where(LabelRow.study_id == study_id, LabelRow.id > label_id)).all()
            return sorted({row.user_id for row in rows}), max((row.id for row in rows), default=label_id)

    def newest_label(self) -> int:
        with self._read() as connection:
            return connection.execute(select(func.coalesce(func.max(LabelRow.id), 0))).scalar_one()

    def answers_state(self, study_id: int) -> tuple[int, int]:
        with self._read() as connection:
            study = study_row(connection, study_id)
            return study.revision, study.other_changes

    def answers(
        self, study_id: int, *, users: Sequence[int] | None = None, pairs: Sequence[int] | None = None
    ) -> AnswerTable:
        """Read straight from the driver: 100,000 labels take about a second."""
        with self._read() as connection:
            limit(connection, statement_seconds=0)
            study = study_row(connection, study_id)
            counting = select(LabelRow.id).where(LabelRow.study_id == study_id, LabelRow.counts)
            for column, chosen in ((LabelRow.user_id, users), (LabelRow.pair_id, pairs)):
                counting = counting if chosen is None else counting.where(column.in_([int(one) for one in chosen]))
            counting = only_visible(counting, study, LabelRow.user_id)
            # By ids, which SQLite looks up in the order of the file: twice as fast as in the order of the index.
            query = _answers().where(LabelRow.id.in_(counting))
            rows = plain_rows(connection, query.order_by(*OLDEST_FIRST))
            lengths = plain_rows(
                connection,
                select(ResponseRow.id, func.length(ResponseRow.text))
                .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                .where(PromptRow.study_id == study_id)
                .order_by(ResponseRow.id),
            )
            gold_pairs = plain_rows(
                connection,
                select(PairRow.id, PairRow.gold_id).where(PairRow.study_id == study_id, PairRow.gold_id.is_not(None)),
            )
        columns = np.fromiter(chain.from_iterable(rows), np.int64, 9 * len(rows)).reshape(-1, 9)
        del rows
        ids, length = np.array(lengths, np.int64).reshape(len(lengths), 2).T
        characters = length[np.searchsorted(ids, columns[:, 2:4])].sum(1) if len(columns) else np.zeros(0, np.int64)
        user, pair, left, right, choice, milliseconds, reason, placed, strength = columns.T
        gold = _gold_of(pair, gold_pairs)
        known = placed.astype(bool)
        return AnswerTable(user, pair, left, right, choice, milliseconds, reason, gold, characters, known, strength)

    def prediction_records(self, user_id: int, *, last: int) -> list[PredictionRecord]:
        with self._read() as connection:
            study_id = user_row(connection, user_id).study_id
            first = _first_answers(study_id)
            answered = func.coalesce(first.c.choice, LabelRow.choice)
            rows: Sequence[AnyRow] = connection.execute(
                select(
                    LabelRow.id,
                    LabelRow.created_at,
                    answered,
                    TaskRow.predicted_left,
                    TaskRow.predicted_crowd,
                    TaskRow.predicted_snapshot,
                )
                .join(TaskRow, TaskRow.id == LabelRow.task_id)
                .outerjoin(first, first.c.id == LabelRow.id)
                .where(LabelRow.user_id == user_id, *_predicted(study_id, answered))
                .order_by(TaskRow.id.desc())
                .limit(last)
            ).all()
            return [
                PredictionRecord(row[0], row[1], row[2] == Choice.LEFT.value, Prediction(*row[3:]))
                for row in rows[::-1]
            ]

    def prediction_counts(self, study_id: int) -> list[tuple[int, int, int]]:
        first = _first_answers(study_id)
        answered = func.coalesce(first.c.choice, LabelRow.choice)
        left = answered == Choice.LEFT.value
        right = case(((TaskRow.predicted_left > 0.5) & left, 1), ((TaskRow.predicted_left <= 0.5) & ~left, 1), else_=0)
        with self._read() as connection:
            query = (
                select(LabelRow.user_id, func.sum(right), func.count())
                .join(TaskRow, TaskRow.id == LabelRow.task_id)
                .outerjoin(first, first.c.id == LabelRow.id)
                .where(*_predicted(study_id, answered))
                .group_by(LabelRow.user_id)
                .order_by(LabelRow.user_id)
            )
            study = study_row(connection, study_id)
            rows = plain_rows(connection, only_visible(query, study, LabelRow.user_id))
            return [(int(user), int(correct), int(n)) for user, correct, n in rows]

    def export(self, study_id: int, *, users: Sequence[int] | None = None) -> Iterator[dict]:
        """Reads in one transaction, then yields row by row; ``copl_core.formats.own.read_rows`` reads the rows back."""
        with self._read() as connection:
            study = study_row(connection, study_id)
            query = only_visible(_export().where(LabelRow.study_id == study_id, *_PREFERENCE), study, LabelRow.user_id)
            wanted = None if users is None else {int(user) for user in users}
            if wanted is not None and len(wanted) <= _MOST_BOUND:
                query = query.where(LabelRow.user_id.in_(wanted))
            labels = [
                row
                for row in connection.execute(query.order_by(*OLDEST_FIRST))
                if wanted is None or row.user_id in wanted
            ]
            prompts = dict(
                connection.execute(select(PromptRow.id, PromptRow.text).where(PromptRow.study_id == study_id)).all()
            )
            responses = {
                row.id: row
                for row in connection.execute(
                    select(ResponseRow.id, ResponseRow.text, ResponseRow.source)
                    .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                    .where(PromptRow.study_id == study_id)
                )
            }
        return (_exported(row, study.name, prompts[row.prompt_id], responses) for row in labels)


def _first_answers(study_id: int) -> Any:
    """(id, choice): of every edited label, the first answer to its task.  A prediction is about that answer: an edit
    says nothing about it, and may follow a look at the prediction."""
    superseded = LabelRow.successor_id.is_not(None)
    first = (
        select(LabelRow.successor_id.label("id"), LabelRow.choice)
        .where(LabelRow.study_id == study_id, superseded, LabelRow.edited_at.is_(None))
        .cte("first_answer", recursive=True)
    )
    return first.union_all(
        select(LabelRow.successor_id, first.c.choice).join(first, first.c.id == LabelRow.id).where(superseded)
    )


def _predicted(study_id: int, answered: Any) -> tuple[Any, ...]:
    """Conditions: labels with a decided (first) answer and a prediction, on pairs chosen without the model."""
    return (
        LabelRow.study_id == study_id,
        *_PREFERENCE,
        answered.in_(_DECIDED),
        TaskRow.predicted_left.is_not(None),
        TaskRow.reason.in_([reason.value for reason in UNBIASED_REASONS]),
    )


def labels_query() -> Any:
    return (
        select(*_LABEL).join(PairRow, PairRow.id == LabelRow.pair_id).outerjoin(TaskRow, TaskRow.id == LabelRow.task_id)
    )


def label_of(row: AnyRow) -> Label:
    values: list[Any] = list(row[: len(_LABEL)])
    values[7], values[12] = Choice(values[7]), tuple(values[12] or ())
    return Label(*values)


def _newest_first(labels: list[Label]) -> list[Label]:
    """Labels without the undone ones; a superseded label stands where the edit stands that has taken over its task.

    Args:
        labels: all of a user, by descending id: an edit comes before what it supersedes.
    """
    tasks = dict[int, int]()
    for label in labels:
        of_edit = tasks.get(label.successor_id, 0) if label.successor_id is not None else 0
        tasks[label.id] = label.task_id or of_edit
    kept = [label for label in labels if label.counts or label.successor_id is not None]
    return sorted(kept, key=lambda label: (tasks[label.id], label.created_at, label.id), reverse=True)


def _gold_of(pair: np.ndarray, gold_pairs: list[tuple[int, int]]) -> np.ndarray:
    """The known answer of each pair (N,), -1 without one."""
    if not gold_pairs:
        return np.full(len(pair), -1)
    ids, known = np.array(sorted(gold_pairs), np.int64).T
    row = np.minimum(np.searchsorted(ids, pair), len(ids) - 1)
    return np.where(ids[row] == pair, known[row], -1)


def _answers() -> Any:
    """The columns of ``AnswerTable`` as integers, without known answers and the lengths of texts."""
    choice = case({value.value: index for index, value in enumerate(Choice)}, value=LabelRow.choice, else_=-1)
    reasons = {value.value: index for index, value in enumerate(SelectionReason)}
    return (
        select(
            LabelRow.user_id,
            LabelRow.pair_id,
            LabelRow.left_id,
            LabelRow.right_id,
            choice,
            func.coalesce(LabelRow.milliseconds, -1),
            case(reasons, value=TaskRow.reason, else_=-1),
            case((LabelRow.position_known, 1), else_=0),
            LabelRow.strength,
        )
        # the few gold pairs are read apart: a join with every pair would take as long as all the rest
        .outerjoin(TaskRow, TaskRow.id == LabelRow.task_id)
    )


def _export() -> Any:
    return (
        labels_query()
        .add_columns(
            LabelRow.key,
            func.coalesce(LabelRow.meta, PairRow.meta),
            PairRow.first_id,
            PairRow.second_id,
            UserRow.name,
            UserRow.kind,
            UserRow.true_group,
            UserRow.excluded,
            UserRow.quarantined,
            LabelRow.strength_known,
        )
        .join(UserRow, UserRow.id == LabelRow.user_id)
    )


def _exported(row: AnyRow, study: str, prompt: str, responses: dict[int, AnyRow]) -> dict[str, Any]:
    # Unpacked in the order of _export: reading columns by name takes longer than everything else.
    (
        pair_id,
        _,
        left_id,
        _,
        choice,
        strength,
        reason,
        milliseconds,
        at,
        tags,
        guidelines,
        selection_reason,
        _,
        _,
        edited,
        position_known,
        _,
        key,
        meta,
        first_id,
        second_id,
        name,
        kind,
        true_group,
        excluded,
        quarantined,
        strength_known,
    ) = row[3:]
    _, text_a, source_a = responses[first_id]
    _, text_b, source_b = responses[second_id]
    left, right = ("a", "b") if left_id == first_id else ("b", "a")
    return {
        "prompt": prompt,
        "response_a": text_a,
        "response_b": text_b,
        "choice": left if choice == _DECIDED[0] else right if choice == _DECIDED[1] else choice,
        "annotator": name,
        "study": study,
        "pair": pair_id,
        "model_a": source_a,
        "model_b": source_b,
        "left": left if position_known else None,
        "right": right if position_known else None,
        "strength": strength if strength_known else None,
        "reason": reason,
        "tags": tags or [],
        "milliseconds": milliseconds,
        "time": at.isoformat(),
        "edited": edited and edited.isoformat(),
        "guidelines": guidelines,
        "kind": kind,
        "taste": true_group,  # the name that files have for it
        "excluded": excluded,
        "quarantined": quarantined,
        "asked": selection_reason,  # likewise
        "label_key": key,
        "meta": meta or {},  # everything else that the file of the label, or of its pair, had: its own ids, its split …
    }
