"""A study is deleted: one transaction closes it, many short ones take its rows, and a number stays in its place.

The row of the study stays without its name, its settings and its champion, so that no later study gets its id, under
which files may still lie; one entry of the audit trail stays with it.  ``study.deletion`` says what is to be done yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select, update

from copl_core.records import LEFT, CoplError, DeletedStudy, Deletion, RunState
from db.identity_models import IdentityUserRow
from db.identity_rows import forget_identities
from db.import_models import UnfinishedRow
from db.models import AuditRow, LabelRow, RunRow, SessionUserRow, StudyRow, TaskRow, UserRow
from db.pace import Pace
from db.study_models import DraftRow
from db.study_parts import ALL_PARTS, DELETED, all_of, drop_rows
from db.transactions import Transactions, audit, clock, plain_rows, study_row
from db.unfinished import cut_ranges

# In one transaction, with the id of the study and a number of rows; whether it is whole
_Step = Callable[[Connection, int, int], bool]
_ACCOUNTS = 20  # people with accounts in one transaction
_CANCELLED = "The study is deleted."


class Deletions(Transactions):
    def begin_deletion(self, study_id: int, *, by: int | None = None) -> DeletedStudy:
        with self._write() as connection:
            shown = select(StudyRow.id).where(StudyRow.ready).order_by(StudyRow.id).with_for_update(key_share=True)
            others = [one for one in connection.execute(shown).scalars() if one != study_id]
            study = study_row(connection, study_id, lock=True)
            if not others:
                raise CoplError(
                    f"{study.name} is the only study of this installation, which needs one; make or import another "
                    "study first."
                )
            people = (UserRow.study_id == study_id, UserRow.kind != LEFT)
            counts = select(func.count(), func.coalesce(func.sum(UserRow.n_preferences), 0)).where(*people)
            n_users, n_labels = connection.execute(counts).one()
            detail = {"study": study.name, "labels": int(n_labels), "users": n_users, "app": by is not None}
            audit(connection, study_id, DELETED, None, **detail)  # who it was goes with the study
            active = RunRow.state.in_((RunState.QUEUED.value, RunState.RUNNING.value))
            ended = {"state": RunState.CANCELLED.value, "message": _CANCELLED, "ended_at": clock(connection)}
            connection.execute(update(RunRow).where(RunRow.study_id == study_id, active).values(ended))
            closed = {"ready": False, "deletion": Deletion.ROWS.value, "name": f" deleted {study_id}"}
            closed |= {"champion": None, "assignment": None, "schedule": None, "group_names": None}
            connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(closed))
        return next(one for one in self.deleted_studies() if one.id == study_id)

    def delete_rows(self, study_id: int, *, seconds: float | None = None) -> bool:
        """Which rows a table has of the study is read before, without the writer: few tables have an index for it.
        SQLite does not look for what refers to the rows that go, whose tables it would read whole for each: what
        refers to a row goes before it, and a closed study gets no rows.
        """
        end = None if seconds is None else monotonic() + seconds
        pace = Pace(fewest=50)
        steps = chain([_forget_accounts, _cut_successors], self._parts(study_id, pace), [_drop_rest])
        for step in steps:
            whole = False
            while not whole:
                if end is not None and monotonic() >= end:
                    return False
                # What refers to a row goes before it, and a closed study gets no rows.
                with self._write_some(pace, unreferred=True) as connection:
                    if not _is_closed(connection, study_id):
                        return True
                    whole = step(connection, study_id, pace.n)
        return True

    def _parts(self, study_id: int, pace: Pace) -> Iterator[_Step]:
        """The rows with numbers, in parts, those that refer to others before these."""
        for part in reversed(ALL_PARTS):
            if "id" in part.table.c:
                with self._read() as connection:
                    query = select(part.table.c.id).where(all_of(part, study_id)).order_by(part.table.c.id.desc())
                    ids = iter([row[0] for row in plain_rows(connection, query)])
                while some := list(islice(ids, pace.n)):
                    yield partial(_drop_part, part.table, some)

    def deleted_studies(self) -> list[DeletedStudy]:
        with self._read() as connection:
            query = (
                select(StudyRow.id, StudyRow.created_at, StudyRow.deletion, AuditRow.detail, AuditRow.at)
                .join(AuditRow, AuditRow.study_id == StudyRow.id)
                .where(StudyRow.deletion.is_not(None), AuditRow.event == DELETED)
                .order_by(StudyRow.id)
            )
            return [
                DeletedStudy(
                    row.id,
                    row.detail["study"],
                    row.detail["labels"],
                    row.detail["users"],
                    row.at,
                    row.detail["app"],
                    Deletion(row.deletion),
                    row.created_at,
                )
                for row in connection.execute(query)
            ]

    def finish_deletion(self, study_id: int) -> None:
        with self._write() as connection:
            _set(connection, study_id, Deletion.DONE)


def _is_closed(connection: Connection, study_id: int) -> bool:
    """Whether rows of the study are to be deleted; nobody else says that they are gone meanwhile."""
    query = select(StudyRow.deletion).where(StudyRow.id == study_id).with_for_update(key_share=True)
    return connection.execute(query).scalar() == Deletion.ROWS.value


def _drop_part(table: Table, ids: list[int], connection: Connection, study_id: int, n: int) -> bool:
    if table is TaskRow.__table__:
        connection.execute(delete(DraftRow).where(DraftRow.task_id.in_(ids)))
    if table is UserRow.__table__:
        connection.execute(delete(SessionUserRow).where(SessionUserRow.user_id.in_(ids)))
    connection.execute(delete(table).where(table.c.id.in_(ids)))
    cut_ranges(connection)
    return True


def _drop_rest(connection: Connection, study_id: int, n: int) -> bool:
    if not drop_rows(connection, study_id, n):
        return False
    connection.execute(delete(UnfinishedRow).where(UnfinishedRow.study_id == study_id))
    _set(connection, study_id, Deletion.FILES)
    return True


def _set(connection: Connection, study_id: int, state: Deletion) -> None:
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(deletion=state.value))


def _forget_accounts(connection: Connection, study_id: int, n: int) -> bool:
    """Forget the accounts of some people; those that are nobody's elsewhere go whole.  Whether none is left."""
    query: Any = select(IdentityUserRow.user_id).where(IdentityUserRow.study_id == study_id).distinct().limit(_ACCOUNTS)
    some = list(connection.execute(query).scalars())
    for user_id in some:
        forget_identities(connection, user_id)
    return len(some) < _ACCOUNTS


def _cut_successors(connection: Connection, study_id: int, n: int) -> bool:
    """Let some edited labels refer to no other label, in whose place they could not be deleted before it."""
    edited = (LabelRow.study_id == study_id, LabelRow.successor_id.is_not(None))
    some = select(LabelRow.id).where(*edited).limit(n)
    cut = update(LabelRow).where(LabelRow.id.in_(some)).values(successor_id=None)
    return bool(connection.execute(cut).rowcount < n)
