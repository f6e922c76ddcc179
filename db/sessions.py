"""Sessions of browsers: who is signed in where.  Only hashes of secrets are stored."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from copl_core.records import BrowserSession, CoplError, Role, User
from db.base import AnyRow
from db.members import study_of_row, user_of
from db.models import BrowserSessionRow, SessionUserRow, StudyRow, TokenRow, UserRow
from db.transactions import Transactions, now, user_row

KEPT = timedelta(days=180)  # without a visit, after which a session ends
TOUCHED = timedelta(days=1)  # a visit is written down once in this time

_LIVE = (
    BrowserSessionRow.hash == bindparam("hash"),
    BrowserSessionRow.ended_at.is_(None),
    BrowserSessionRow.seen_at > bindparam("oldest"),
)
# Built once: every act of a page runs it.
_USER = (
    select(UserRow.__table__)
    .join(SessionUserRow, SessionUserRow.user_id == UserRow.id)
    .join(BrowserSessionRow, BrowserSessionRow.id == SessionUserRow.session_id)
    .where(*_LIVE, UserRow.study_id == bindparam("study"))
)


class Sessions(Transactions):
    def start_session(self, token_hash: str, session_hash: str, *, known: str | None = None) -> str | None:
        with self._write() as connection:
            token = connection.execute(
                select(TokenRow.user_id, TokenRow.terminal, UserRow.study_id)
                .join(UserRow, UserRow.id == TokenRow.user_id)
                .where(TokenRow.hash == token_hash)
            ).first()
            if token is None:
                return None
            session = _live(connection, known) if known else None
            if session is None or _somebody_else(connection, session.id, token):
                session = _new(connection, session_hash)
            _add(connection, session.id, token.user_id)
            connection.execute(
                update(BrowserSessionRow)
                .where(BrowserSessionRow.id == session.id)
                .values(terminal=session.terminal or token.terminal, study_id=token.study_id)
            )
            return str(session.hash)

    def session_user(self, session_hash: str, study_id: int) -> User | None:
        with self._read() as connection:
            row = connection.execute(_USER, {**_live_values(session_hash), "study": study_id}).first()
            return None if row is None else user_of(row)

    def browser_session(self, session_hash: str) -> BrowserSession | None:
        with self._read() as connection:
            session = _live(connection, session_hash)
            if session is None:
                return None
            mine = (
                select(UserRow.study_id)
                .join(SessionUserRow, SessionUserRow.user_id == UserRow.id)
                .where(SessionUserRow.session_id == session.id)
            )
            query = select(StudyRow.__table__).where(StudyRow.ready).order_by(StudyRow.id)
            if not session.terminal:
                query = query.where(StudyRow.id.in_(mine))
            studies = tuple(study_of_row(row) for row in connection.execute(query))
            return BrowserSession(studies, session.study_id, session.terminal)

    def open_in_session(self, session_hash: str, study_id: int) -> None:
        """Writes at most once a day while the study stays the same."""
        with self._read() as connection:
            session = _live(connection, session_hash)
        if session is None or (session.study_id == study_id and session.seen_at > now() - TOUCHED):
            return
        with self._write() as connection:
            connection.execute(
                update(BrowserSessionRow)
                .where(BrowserSessionRow.id == session.id)
                .values(study_id=study_id, seen_at=now())
            )

    def add_to_session(self, session_hash: str, user_id: int) -> None:
        with self._write() as connection:
            study_id = user_row(connection, user_id).study_id
            session = _live(connection, session_hash)
            if session is None:
                raise CoplError("This browser is not signed in any more; open your sign-in link again.")
            if connection.execute(_USER, {**_live_values(session_hash), "study": study_id}).first() is None:
                _add(connection, session.id, user_id)

    def end_session(self, session_hash: str) -> bool:
        with self._write() as connection:
            ended = connection.execute(
                update(BrowserSessionRow)
                .where(BrowserSessionRow.hash == session_hash, BrowserSessionRow.ended_at.is_(None))
                .values(ended_at=now())
            )
            return bool(ended.rowcount)

    def owner(self, study_id: int) -> User | None:
        with self._read() as connection:
            row = connection.execute(
                select(UserRow.__table__)
                .where(UserRow.study_id == study_id, UserRow.role == Role.OWNER.value)
                .order_by(UserRow.id)
                .limit(1)
            ).first()
            return None if row is None else user_of(row)


def end_sessions_of(connection: Connection, user_id: int) -> int:
    """Sign a user out of every browser; a browser that opens all studies as their owner is signed out of all."""
    theirs = select(SessionUserRow.session_id).where(SessionUserRow.user_id == user_id)
    connection.execute(
        update(BrowserSessionRow)
        .where(BrowserSessionRow.id.in_(theirs), BrowserSessionRow.terminal, BrowserSessionRow.ended_at.is_(None))
        .values(ended_at=now())
    )
    return connection.execute(delete(SessionUserRow).where(SessionUserRow.user_id == user_id)).rowcount


def _live_values(session_hash: str) -> dict[str, object]:
    return {"hash": session_hash, "oldest": now() - KEPT}


def _live(connection: Connection, session_hash: str) -> AnyRow | None:
    return connection.execute(select(BrowserSessionRow.__table__).where(*_LIVE), _live_values(session_hash)).first()


def _new(connection: Connection, session_hash: str) -> AnyRow:
    made = insert(BrowserSessionRow).values(hash=session_hash, created_at=now(), seen_at=now())
    return connection.execute(made.returning(*BrowserSessionRow.__table__.c)).one()


def _somebody_else(connection: Connection, session_id: int, token: AnyRow) -> bool:
    """Whether the session has another user in the study of the token: open tabs keep acting as that user."""
    query = (
        select(UserRow.id)
        .join(SessionUserRow, SessionUserRow.user_id == UserRow.id)
        .where(SessionUserRow.session_id == session_id, UserRow.study_id == token.study_id, UserRow.id != token.user_id)
    )
    return connection.execute(query).first() is not None


def _add(connection: Connection, session_id: int, user_id: int) -> None:
    row = {"session_id": session_id, "user_id": user_id}
    known = select(SessionUserRow.user_id).filter_by(**row)
    if connection.execute(known).first() is None:
        connection.execute(insert(SessionUserRow).values(row))
