"""The base of every part of the store: transactions, rows by id, the switch for simulated users, the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from copl_core.records import LEFT, CoplError, Kind, Role, User
from db.base import AnyRow, AnySelect
from db.engine import reading, to_disk, writing
from db.models import IS_APART, AuditRow, PairRow, StudyRow, UserRow
from db.pace import Pace
from db.unfinished import hidden

# A literal, not a bound parameter: a partial index serves only a query that repeats its condition.
OPEN: ColumnElement[str] = literal_column("'open'")
# Likewise: users whom lists, training or votes may leave out.  In a study of people they are few.
APART = and_(text(f"({IS_APART})"))


class Transactions:
    """The engine with its two kinds of transaction; every part of ``db.store.SqlStore`` extends it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with reading(self.engine) as connection, hidden(connection):
            yield connection

    def _write(self, *, patient: bool = False, prompt: bool = False) -> AbstractContextManager[Connection]:
        return writing(self.engine, patient=patient, prompt=prompt)

    @contextmanager
    def _write_some(self, pace: Pace, *, unreferred: bool = False) -> Iterator[Connection]:
        """One of many short transactions of a long work, for which nobody waits; ``unreferred`` as in ``writing``."""
        with pace.step(writing(self.engine, patient=True, part=True, unreferred=unreferred)) as connection:
            yield connection
        to_disk(self.engine)

    @contextmanager
    def _in_steps(self, pace: Pace) -> Iterator[Callable[[], AbstractContextManager[Connection]]]:
        """Gives the transactions of a long work: short ones where there is one writer; on PostgreSQL the same one, of
        which nothing is left if it is killed, and which takes as many rows at once as ``pace`` allows.
        """
        if self.engine.dialect.name == "sqlite":
            yield lambda: self._write_some(pace)
        else:
            with self._write(patient=True) as connection:
                pace.n = pace.most
                yield lambda: nullcontext(connection)


def now() -> datetime:
    return datetime.now(UTC)


_CLOCK = {
    "sqlite": text("select strftime('%Y-%m-%d %H:%M:%f', 'now')"),
    "postgresql": text("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US')"),
}


def clock(connection: Connection) -> datetime:
    """The time by the clock of the database: one for all machines, however wrong their own ones are."""
    found: str = connection.execute(_CLOCK[connection.dialect.name]).scalar_one()
    return datetime.fromisoformat(found).replace(tzinfo=UTC)


# The ids of the studies that are there: a study that is being deleted is closed from its first moment on
THERE = select(StudyRow.id).where(StudyRow.deletion.is_(None))
_STUDY_OF = (
    select(StudyRow.__table__, UserRow.id.label("user_id"))
    .join(UserRow, UserRow.study_id == StudyRow.id)
    .where(UserRow.id == bindparam("user"), UserRow.kind != LEFT, StudyRow.deletion.is_(None))
)
_STUDY_OF_LOCKED = _STUDY_OF.with_for_update(of=StudyRow, key_share=True)
_BOTH_LOCKED = _STUDY_OF.with_for_update(of=(StudyRow, UserRow), key_share=True)  # in this order


def study_of(connection: Connection, user_id: int, *, lock: bool = False, and_user: bool = False) -> AnyRow:
    """The study of a user, with ``user_id`` as an extra column.

    Args:
        lock: as in ``study_row``; with ``and_user``, the user's row too.
    """
    query = _BOTH_LOCKED if lock and and_user else _STUDY_OF_LOCKED if lock else _STUDY_OF
    row = connection.execute(query, {"user": user_id}).first()
    if row is None:
        raise _no_user(user_id)
    return row


_STUDY = select(StudyRow.__table__).where(StudyRow.id == bindparam("study"), StudyRow.deletion.is_(None))
_STUDY_LOCKED = _STUDY.with_for_update(key_share=True)


def study_row(connection: Connection, study_id: int, *, lock: bool = False) -> AnyRow:
    """The study; with ``lock``, no other transaction changes it until this one ends (on SQLite always so).

    Whoever locks several rows locks in the order study, user, task, which prevents deadlocks on PostgreSQL.
    """
    row = connection.execute(_STUDY_LOCKED if lock else _STUDY, {"study": study_id}).first()
    if row is None:
        raise CoplError(f"There is no study with id {study_id}; take one of the list of studies.")
    return row


def pair_row(connection: Connection, study_id: int, pair_id: int) -> AnyRow:
    query = select(PairRow.__table__).where(PairRow.id == pair_id, PairRow.study_id == study_id)
    row = connection.execute(query).first()
    if row is None:
        raise CoplError(f"There is no pair with id {pair_id} in this study; take one of its pairs.")
    return row


def user_row(connection: Connection, user_id: int, *, lock: bool = False) -> AnyRow:
    query = select(UserRow.__table__).where(UserRow.id == user_id, UserRow.kind != LEFT, UserRow.study_id.in_(THERE))
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
    if row is None:
        raise _no_user(user_id)
    return row


def locked_user(connection: Connection, user_id: int) -> tuple[AnyRow, AnyRow]:
    """(study, user), locked in this order, which is that of ``study_row``."""
    study = study_row(connection, user_row(connection, user_id).study_id, lock=True)
    return study, user_row(connection, user_id, lock=True)


def user_of(row: AnyRow) -> User:
    return User(row.id, row.name, Kind(row.kind), Role(row.role), row.true_group, row.excluded, row.quarantined)


def _no_user(user_id: int) -> CoplError:
    return CoplError(f"There is no user with id {user_id}; take one of the study's users.")


def only_visible(query: AnySelect, study: AnyRow, user_id_column: Any) -> AnySelect:
    """Restrict a query to visible users: all, or all but simulated ones when the switch for those is off."""
    if study.include_simulated:
        return query
    simulated = select(UserRow.id).where(UserRow.study_id == study.id, UserRow.kind == Kind.SIMULATED.value, APART)
    return query.where(user_id_column.not_in(simulated))


def only_trained(query: AnySelect, study: AnyRow, user_id_column: Any) -> AnySelect:
    """Restrict a query to users whose labels count for training and votes: visible, not excluded and not quarantined.

    Language models count only if the study says so.
    """
    out = or_(UserRow.excluded, UserRow.quarantined)
    out = out if study.include_models else or_(out, UserRow.kind == Kind.MODEL.value)
    excluded = select(UserRow.id).where(UserRow.study_id == study.id, out, APART)
    return only_visible(query, study, user_id_column).where(user_id_column.not_in(excluded))


def plain_rows(connection: Connection, query: AnySelect, values: dict[str, Any] | None = None) -> list[Any]:
    """The rows of a query of integers or plain texts, straight from the driver: several times faster than rows of
    SQLAlchemy.
    """
    result = connection.execute(query, values or {})
    try:
        return list(result.cursor.fetchall())
    finally:
        result.close()


_BUMP_REVISION = (
    update(StudyRow)
    .where(StudyRow.id == bindparam("study"))
    .values(revision=StudyRow.revision + bindparam("changes"))
    .returning(StudyRow.revision)
)


def bump_revision(connection: Connection, study_id: int, changes: int) -> int:
    """Add a number of label changes to the study's revision; returns the new revision."""
    return connection.execute(_BUMP_REVISION, {"study": study_id, "changes": changes}).scalar_one()


# In the statement that takes the change: on PostgreSQL a row read before waiting for the study's lock may be outdated.
_TRAINED = (
    select(func.count())
    .select_from(UserRow)
    .where(UserRow.id == bindparam("user"), UserRow.excluded.is_(False), UserRow.quarantined.is_(False))
    .scalar_subquery()
)
_BUMP_BY_USER = (
    update(StudyRow)
    .where(StudyRow.id == bindparam("study"))
    .values(revision=StudyRow.revision + _TRAINED, other_changes=StudyRow.other_changes + 1 - _TRAINED)
    .returning(StudyRow.revision)
)
_BUMP_OTHER = (
    update(StudyRow)
    .where(StudyRow.id == bindparam("study"))
    .values(other_changes=StudyRow.other_changes + 1)
    .returning(StudyRow.revision)
)


def bump_by_user(connection: Connection, study_id: int, user_id: int) -> int:
    """Add one label change of a user, unless they are left out of training; returns the revision."""
    return connection.execute(_BUMP_BY_USER, {"study": study_id, "user": user_id}).scalar_one()


def bump_other(connection: Connection, study_id: int) -> int:
    """Add one change of an answer that nothing trains on; returns the revision, which stays."""
    return connection.execute(_BUMP_OTHER, {"study": study_id}).scalar_one()


def audit(connection: Connection, study_id: int, event: str, user_id: int | None = None, **detail: object) -> None:
    """Write an entry of the audit trail, in the transaction of the change it records."""
    entry = {"study_id": study_id, "user_id": user_id, "event": event, "detail": detail, "at": now()}
    connection.execute(insert(AuditRow).values(entry))
