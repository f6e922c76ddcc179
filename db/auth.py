"""Sign-in: tokens, joining by the study's address, invites, e-mail addresses.  Only hashes of secrets are stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count

from sqlalchemy import Connection, insert, select, update

from copl_core.addresses import is_address, stored_address
from copl_core.records import CoplError, Kind, Role, User
from copl_core.study_settings import EmailRule, Invite
from db.base import AnyRow
from db.identity_rows import let_in
from db.members import change_role, checked_name
from db.models import TokenRow, UserRow
from db.names import in_use
from db.overlap import assignment_of
from db.quarantine import note_newcomer, of_newcomer
from db.sessions import KEPT, bind_session, end_links_of, end_sessions_of, same_person, shut_out
from db.study_models import EmailRow, InviteRow
from db.transactions import THERE, Transactions, audit, clock, now, study_row, user_of, user_row

_JOINING = timedelta(days=1)  # within which the page signs in who has joined on it; nobody sees this token


class Auth(Transactions):
    # ---- sign-in tokens
    def add_token(
        self, user_id: int, token_hash: str, *, lasts: timedelta, terminal: bool = False, by: int | None = None
    ) -> None:
        own = by == user_id
        with self._write() as connection:
            study_id = user_row(connection, user_id, lock=True).study_id
            holder = connection.execute(select(TokenRow.user_id).where(TokenRow.hash == token_hash)).scalar()
            if holder is None:
                _add_token(connection, user_id, token_hash, KEPT if own else lasts, terminal=terminal, own=own)
                if not own:  # somebody else may now act as this user
                    audit(connection, study_id, "sign-in link", by, user=user_id, terminal=terminal)
            elif holder != user_id:
                raise CoplError("This sign-in token belongs to another user; make a new one.")

    def user_by_token(self, study_id: int, token_hash: str) -> User | None:
        with self._read() as connection:
            row = connection.execute(
                select(UserRow.__table__)
                .join(TokenRow, TokenRow.user_id == UserRow.id)
                .where(TokenRow.hash == token_hash, UserRow.study_id == study_id)
                .where(TokenRow.expires_at > clock(connection))
            ).first()
            return None if row is None else user_of(row)

    def drop_tokens(self, user_id: int, *, browser: str | None = None, by: int | None = None) -> int:
        with self._write() as connection:
            users = same_person(connection, user_id, browser) if browser else [user_id]
            rows = {row.id: row for row in (user_row(connection, one, lock=True) for one in sorted(users))}
            dropped = end_links_of(connection, users)
            for one in users:
                browsers, links = end_sessions_of(connection, one), dropped.get(one, 0)
                if links or browsers:
                    who = by if one == user_id else one
                    detail = {"user": one, "tokens": links, "browsers": browsers}
                    audit(connection, rows[one].study_id, "signed out", who, **detail)
            for other in dropped.keys() - rows.keys():  # whose links of the terminal opened the studies of these users
                detail = {"user": other, "tokens": dropped[other], "terminal": True}
                audit(connection, user_row(connection, other).study_id, "signed out", None, **detail)
            return sum(dropped.values())

    # ---- by the address of the study
    def join(self, study_id: int, name: str, token_hash: str, session_hash: str | None = None) -> User:
        with self._write() as connection:
            if not assignment_of(study_row(connection, study_id, lock=True)).open:
                raise CoplError("This study is open by invitation only; ask its owner for an invite link.")
            user = add_user(connection, study_id, name, Role.ANNOTATOR, token_hash)
            bind_session(connection, session_hash, user, study_id)
            return user

    # ---- by invite
    def add_invite(
        self,
        study_id: int,
        token_hash: str,
        role: Role,
        *,
        uses: int | None,
        expires_at: datetime | None,
        by: int | None = None,
    ) -> Invite:
        with self._write() as connection:
            study_row(connection, study_id)
            row = connection.execute(
                insert(InviteRow)
                .values(
                    study_id=study_id,
                    hash=token_hash,
                    role=role.value,
                    uses=uses,
                    expires_at=expires_at,
                    user_id=by,
                    created_at=now(),
                )
                .returning(*InviteRow.__table__.c)
            ).one()
            audit(
                connection,
                study_id,
                "invite",
                by,
                invite=row.id,
                role=role.value,
                uses=uses,
                expires=expires_at and expires_at.isoformat(),
            )
            return _invite(row)

    def invites(self, study_id: int) -> list[Invite]:
        with self._read() as connection:
            study_row(connection, study_id)
            rows = connection.execute(
                select(InviteRow.__table__).where(InviteRow.study_id == study_id).order_by(InviteRow.id.desc())
            )
            return [_invite(row) for row in rows]

    def study_of_invite(self, token_hash: str) -> int | None:
        with self._read() as connection:
            query = select(InviteRow.study_id).where(InviteRow.hash == token_hash, InviteRow.study_id.in_(THERE))
            return connection.execute(query).scalar()

    def invite_by_token(self, study_id: int, token_hash: str) -> Invite | None:
        with self._read() as connection:
            row = connection.execute(
                select(InviteRow.__table__).where(InviteRow.hash == token_hash, InviteRow.study_id == study_id)
            ).first()
            return None if row is None else _invite(row)

    def revoke_invite(self, study_id: int, invite_id: int, *, by: int | None = None) -> Invite:
        with self._write() as connection:
            row = connection.execute(
                select(InviteRow.__table__).where(InviteRow.id == invite_id, InviteRow.study_id == study_id)
            ).first()
            if row is None:
                raise CoplError(f"There is no invite with id {invite_id} in this study; take one of its invites.")
            if row.revoked_at is None:
                row = connection.execute(
                    update(InviteRow)
                    .where(InviteRow.id == invite_id)
                    .values(revoked_at=now())
                    .returning(*InviteRow.__table__.c)
                ).one()
                audit(connection, study_id, "invite revoked", by, invite=invite_id)
            return _invite(row)

    def accept_invite(
        self, study_id: int, token_hash: str, name: str, user_token_hash: str, session_hash: str | None = None
    ) -> User:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            row = connection.execute(
                select(InviteRow.__table__)
                .where(InviteRow.hash == token_hash, InviteRow.study_id == study_id)
                .with_for_update()
            ).first()
            state = "unknown" if row is None else _invite(row).state(now())
            if row is None or state != "open":
                raise CoplError(f"This invite link is {state}; ask the study's owner for a new one.")
            user = add_user(connection, study_id, name, Role(row.role), user_token_hash)
            bind_session(connection, session_hash, user, study_id)
            connection.execute(update(InviteRow).where(InviteRow.id == row.id).values(used=row.used + 1))
            audit(connection, study_id, "invite accepted", user.id, invite=row.id, role=row.role)
            return user

    # ---- by e-mail address
    def set_email(self, study_id: int, email: str, role: Role | None, *, by: int | None = None) -> EmailRule:
        email = _address(email)
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            old = _email_row(connection, study_id, email)
            if old is None:
                connection.execute(
                    insert(EmailRow).values(study_id=study_id, email=email, role=role and role.value, created_at=now())
                )
            else:
                connection.execute(update(EmailRow).where(EmailRow.id == old.id).values(role=role and role.value))
            if old is not None and old.user_id is not None and role is not None:
                change_role(connection, user_row(connection, old.user_id, lock=True), role, by)
            if role is None:
                shut_out(connection, study_id, email)
            else:
                let_in(connection, study_id, email)
            audit(connection, study_id, "e-mail", by, email=email, before=old and old.role, after=role and role.value)
            return EmailRule(email, role, None if old is None else old.user_id)

    def emails(self, study_id: int) -> list[EmailRule]:
        with self._read() as connection:
            study_row(connection, study_id)
            rows = connection.execute(
                select(EmailRow.__table__).where(EmailRow.study_id == study_id).order_by(EmailRow.email)
            )
            return [_rule(row) for row in rows]


def _add_token(connection: Connection, user_id: int, token_hash: str, lasts: timedelta, **more: bool) -> None:
    at = clock(connection)
    row = {"user_id": user_id, "hash": token_hash, "created_at": at, "expires_at": at + lasts}
    connection.execute(insert(TokenRow).values(row | more))


def add_user(connection: Connection, study_id: int, name: str, role: Role, token_hash: str | None) -> User:
    """A new user; a name in use, or one that looks like it, is refused: one person would pass for another."""
    name = checked_name(name, "user")
    other = in_use(connection, study_id, name)
    if other is not None and other.casefold() != name.casefold():
        raise CoplError(f"The name {name} looks like {other}, which is in use; choose another.")
    if other is not None:
        raise CoplError(
            f"The name {name!r} is already in use. If it is yours, open your own sign-in link, or ask an owner of the "
            "study for a new one; else choose another name."
        )
    row = connection.execute(
        insert(UserRow)
        .values(
            study_id=study_id,
            name=name,
            kind=Kind.HUMAN.value,
            role=role.value,
            created_at=now(),
            **of_newcomer(study_row(connection, study_id), role),
        )
        .returning(*UserRow.__table__.c)
    ).one()
    note_newcomer(connection, row)
    if token_hash is not None:
        _add_token(connection, row.id, token_hash, _JOINING)
    return user_of(row)


def free_name(connection: Connection, study_id: int, name: str) -> str:
    name = name.strip()[:80] or "Guest"
    names = (name if n == 1 else f"{name} {n}" for n in count(1))
    return next(one for one in names if in_use(connection, study_id, one) is None)


def _address(email: str) -> str:
    email = stored_address(email)
    if not is_address(email):
        raise CoplError(f"{email!r} is not an e-mail address; give one such as name@example.org.")
    return email


def _email_row(connection: Connection, study_id: int, email: str) -> AnyRow | None:
    return connection.execute(
        select(EmailRow.__table__).where(EmailRow.study_id == study_id, EmailRow.email == email)
    ).first()


def _rule(row: AnyRow) -> EmailRule:
    return EmailRule(row.email, None if row.role is None else Role(row.role), row.user_id)


def _invite(row: AnyRow) -> Invite:
    return Invite(
        row.id, Role(row.role), row.uses, row.used, row.expires_at, row.revoked_at, row.user_id, row.created_at
    )
