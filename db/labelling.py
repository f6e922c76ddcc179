"""Labels: answering a task, undoing the last step, editing an earlier answer, progress."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, bindparam, case, func, insert, or_, select, update

from copl_core.records import LARGEST, Choice, CoplError, Label, Progress, Task
from copl_core.study_settings import CHECK_REASONS, STRENGTHS, Draft, Prediction, SelectionReason
from copl_core.tags import MOST_TAGS, TAG_LENGTH
from db.base import AnyRow
from db.label_counts import change_count
from db.listing import label_of, labels_query
from db.models import LabelRow, TaskRow
from db.overlap import assignment_of, has_free_slot, recount
from db.study_models import GuidelineRow
from db.tasks import close, current_task, has_labelled, new_task, open_pairs, task_of, task_to_answer, write_draft
from db.transactions import Transactions, audit, bump_by_user, bump_other, now, study_of, user_row
from db.unfinished import shown
from db.withdrawn_pairs import WITHDRAWN

# what an edited label takes over from the one it supersedes
_COPIED = ("study_id", "task_id", "user_id", "pair_id", "left_id", "right_id", "position_known", "created_at")
REASON_LENGTH = 10_000

_NEW = insert(LabelRow).returning(LabelRow.id)
_LABEL = labels_query().where(LabelRow.id == bindparam("label"))
_NEWEST_GUIDELINES = select(func.max(GuidelineRow.version)).where(GuidelineRow.study_id == bindparam("study"))


class Labelling(Transactions):
    def submit(
        self,
        task_id: int,
        user_id: int,
        choice: Choice,
        *,
        strength: int = 1,
        reason: str = "",
        tags: Sequence[str] = (),
        milliseconds: int | None = None,
        guidelines: int | None = None,
    ) -> Label | None:
        """An expired task may still be answered while its pair has a free slot."""
        content = _content(choice, strength, reason, tags)
        with self._write(prompt=True) as connection:
            study = study_of(connection, user_id, lock=True, and_user=True)
            task = task_to_answer(connection, task_id, user_id)
            if task is None:
                return None
            settings, attention = assignment_of(study), task.reason in CHECK_REASONS
            late = task.expires_at <= now() and not attention and task.reason != SelectionReason.REPEAT
            if late and not has_free_slot(connection, task.pair_id, user_id, settings, wait=True):
                return None
            close(connection, task_id, "answered")
            label_id = connection.execute(
                _NEW,
                {
                    "study_id": study.id,
                    "task_id": task_id,
                    "user_id": user_id,
                    "pair_id": task.pair_id,
                    "left_id": task.left_id,
                    "right_id": task.right_id,
                    **content,
                    "guidelines": _guidelines(connection, study.id, guidelines),
                    "milliseconds": None if milliseconds is None else max(0, min(milliseconds, LARGEST)),
                    "key": uuid4().hex,
                    "attention": attention,
                    "revision": _revision_after(connection, study, attention),
                    "created_at": now(),
                },
            ).scalar_one()
            change_count(connection, user_id, 1, attention=attention)
            if not attention:
                recount(connection, settings, task.pair_id)
            return _label(connection, label_id)

    def undo(self, user_id: int) -> Task | None:
        """Imported labels cannot be undone, nor steps on pairs that are withdrawn.

        The label stays, does not count, and keeps its task: a second answer to the same task would violate
        ``UNIQUE(task_id)``, and a late click on the old screen must find the task closed.  A new task shows the same
        sides.  The last is the one of the newest task, whatever the clock says: a user has one open task at a time.
        """
        with self._write() as connection:
            study = study_of(connection, user_id, lock=True)
            user = user_row(connection, user_id, lock=True)
            label, skipped = _last_label(connection, user), _last_skip(connection, user)
            while skipped is not None and (label is None or skipped.id > label.id):
                connection.execute(update(TaskRow).where(TaskRow.id == skipped.id).values(skipped=False))
                if _may_reopen(connection, skipped, study):
                    audit(connection, study.id, "undo", user_id, skip=skipped.pair_id)
                    return _reopen(connection, skipped, Draft())
                skipped = _last_skip(connection, user)  # its pair is full, so this skip cannot be undone
            if label is None:
                return None
            revision = _revision_after(connection, study, label.attention)
            connection.execute(
                update(LabelRow).where(LabelRow.id == label.label_id).values(counts=False, revision=revision)
            )
            change_count(connection, user_id, -1, attention=label.attention)
            audit(connection, study.id, "undo", user_id, label=label.label_id)
            again = _reopen(connection, label, Draft(label.label_reason, tuple(label.tags or ())))
            recount(connection, assignment_of(study), label.pair_id)
            return again

    def edit(
        self,
        label_id: int,
        user_id: int,
        choice: Choice,
        *,
        strength: int = 1,
        reason: str = "",
        tags: Sequence[str] = (),
        guidelines: int | None = None,
    ) -> Label:
        """The new row takes over the task, so that the pair counts as answered once, at the original time."""
        content = _content(choice, strength, reason, tags)
        with self._write() as connection:
            study = study_of(connection, user_id, lock=True)
            old = _own_counting(connection, study, label_id)
            if all(getattr(old, name) == value for name, value in content.items()):
                return _label(connection, label_id)
            revision = bump_by_user(connection, study.id, user_id)
            connection.execute(
                update(LabelRow).where(LabelRow.id == label_id).values(counts=False, task_id=None, revision=revision)
            )
            copied = {name: getattr(old, name) for name in _COPIED}
            new_id = connection.execute(
                _NEW,
                {
                    **copied,
                    **content,
                    "guidelines": _guidelines(connection, study.id, guidelines),
                    "key": uuid4().hex,
                    "revision": revision,
                    "edited_at": now(),
                },
            ).scalar_one()
            connection.execute(update(LabelRow).where(LabelRow.id == label_id).values(successor_id=new_id))
            audit(
                connection,
                study.id,
                "edit",
                user_id,
                label=label_id,
                successor=new_id,
                before=old.choice,
                after=content["choice"],
            )
            return _label(connection, new_id)

    def confirm(self, label_id: int, user_id: int) -> Label:
        """No revision: nothing that trains a model has changed."""
        with self._write() as connection:
            study = study_of(connection, user_id, lock=True)
            old = _own_counting(connection, study, label_id)
            if old.confirmed_at is None:
                connection.execute(update(LabelRow).where(LabelRow.id == label_id).values(confirmed_at=now()))
                audit(connection, study.id, "confirm", user_id, label=label_id)
            return _label(connection, label_id)

    def progress(self, user_id: int) -> Progress:
        """``left`` counts pairs the user may still label, including the one on the screen; days are in UTC.

        Gold pairs count as done like all others, so that annotators cannot recognise them.
        """
        with self._read() as connection:
            study = study_of(connection, user_id)
            midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
            # labels given in the product: imported ones were not made today; a clock that was ahead wrote later days
            of_day = LabelRow.created_at.between(midnight, midnight + timedelta(days=1))
            today = case((and_(LabelRow.task_id.is_not(None), of_day), 1), else_=0)
            done, of_today = connection.execute(
                select(func.count(), func.coalesce(func.sum(today), 0))
                .select_from(LabelRow)
                .outerjoin(TaskRow, and_(TaskRow.id == LabelRow.task_id, LabelRow.attention))
                .where(
                    LabelRow.study_id == study.id,
                    LabelRow.user_id == user_id,
                    LabelRow.counts,
                    or_(LabelRow.attention.is_(False), TaskRow.reason == SelectionReason.GOLD.value),
                )
            ).one()
            fresh, skipped, _ = open_pairs(connection, study, assignment_of(study))
            return Progress(
                done=done,
                left=len(fresh) + len(skipped) + _on_screen(connection, study),
                today=of_today,
                skipped=len(skipped),
            )


def _own_counting(connection: Connection, study: AnyRow, label_id: int) -> AnyRow:
    """The row of a counting preference of the user with whom ``study`` was read; nobody else changes it meanwhile."""
    row = connection.execute(
        select(LabelRow.__table__)
        .where(
            LabelRow.id == label_id,
            LabelRow.study_id == study.id,
            LabelRow.user_id == study.user_id,
            LabelRow.counts,
            LabelRow.attention.is_(False),
            shown(LabelRow),
        )
        .with_for_update(of=LabelRow)
    ).first()
    if row is None:
        raise CoplError(
            f"Label {label_id} is not one of your answers that count; it may have been changed in another window; "
            "reload your list."
        )
    return row


def _label(connection: Connection, label_id: int) -> Label:
    return label_of(connection.execute(_LABEL, {"label": label_id}).one())


def _content(choice: Choice, strength: int, reason: str, tags: Sequence[str]) -> dict[str, Any]:
    """The content of an answer as columns, checked; a tie has no strength."""
    choice = Choice(choice)
    if strength not in STRENGTHS:
        raise CoplError(f"The strength of a label is {strength}; it must be 1, 2 or 3.")
    if len(reason) > REASON_LENGTH:
        raise CoplError(f"The reason has {len(reason):,} characters; {REASON_LENGTH:,} are kept; shorten it.")
    tags = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    if len(tags) > MOST_TAGS or any(len(tag) > TAG_LENGTH for tag in tags):
        raise CoplError(
            f"There are {len(tags)} tags, the longest of {max(map(len, tags))} characters; give at most "
            f"{MOST_TAGS} tags of {TAG_LENGTH} characters."
        )
    decided = choice in (Choice.LEFT, Choice.RIGHT)
    return {"choice": choice.value, "strength": strength if decided else 1, "reason": reason, "tags": tags or None}


def _guidelines(connection: Connection, study_id: int, version: int | None) -> int | None:
    """The version on the screen, else the newest; None if there are no guidelines."""
    newest = connection.execute(_NEWEST_GUIDELINES, {"study": study_id}).scalar()
    return newest if newest is None or version is None else max(0, min(version, newest))


def _revision_after(connection: Connection, study: AnyRow, attention: bool) -> int:
    """The study's revision after a label change; checks (gold, practice) and people who are left out leave it as it is:
    nothing trains on them.
    """
    if not attention:
        return bump_by_user(connection, study.id, study.user_id)
    return bump_other(connection, study.id)


def _last_label(connection: Connection, user: AnyRow) -> AnyRow | None:
    return connection.execute(
        select(
            TaskRow.__table__,
            LabelRow.id.label("label_id"),
            LabelRow.reason.label("label_reason"),
            LabelRow.tags,
            LabelRow.attention,
        )
        .join(LabelRow, LabelRow.task_id == TaskRow.id)
        .where(LabelRow.study_id == user.study_id, LabelRow.user_id == user.id, LabelRow.counts)
        .where(TaskRow.pair_id.not_in(WITHDRAWN))
        .order_by(TaskRow.id.desc())
        .limit(1),
        {"study": user.study_id},
    ).first()


def _last_skip(connection: Connection, user: AnyRow) -> AnyRow | None:
    return connection.execute(
        select(TaskRow.__table__)
        .where(TaskRow.user_id == user.id, TaskRow.skipped, TaskRow.pair_id.not_in(WITHDRAWN))
        .order_by(TaskRow.id.desc())
        .limit(1),
        {"study": user.study_id},
    ).first()


def _may_reopen(connection: Connection, task: AnyRow, study: AnyRow) -> bool:
    """Whether a skipped pair may be shown to its user now."""
    if task.reason in CHECK_REASONS or task.reason == SelectionReason.REPEAT:
        return True
    return not has_labelled(connection, study, task.pair_id) and has_free_slot(
        connection, task.pair_id, study.user_id, assignment_of(study), wait=True
    )


def _reopen(connection: Connection, task: AnyRow, draft: Draft) -> Task:
    """A new task like an earlier one; the task that the user has open is withdrawn."""
    current = current_task(connection, task.user_id)
    if current is not None:
        close(connection, current.id, "withdrawn")
    prediction = None
    if task.predicted_left is not None:
        prediction = Prediction(task.predicted_left, task.predicted_crowd, task.predicted_snapshot)
    expires_at = now() + (task.expires_at - task.handed_at)  # the same length of time as the first one
    row = new_task(
        connection, task.user_id, task.pair_id, (task.left_id, task.right_id), task.reason, expires_at, prediction
    )
    if draft != Draft():
        write_draft(connection, row.id, draft)
    return task_of(connection, row)


def _on_screen(connection: Connection, study: AnyRow) -> int:
    """1 if the user's open task is a new pair, else 0."""
    current = current_task(connection, study.user_id)
    if (
        current is None
        or current.expires_at <= now()
        or current.reason in CHECK_REASONS
        or current.reason == SelectionReason.REPEAT
    ):
        return 0
    return int(not has_labelled(connection, study, current.pair_id))
