"""Rows of accounts at identity providers, for sessions, sign-in and departures alike."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from copl_core.records import Identity
from db.base import AnyRow
from db.identity_models import IdentityRow, IdentitySessionRow, IdentityUserRow
from db.study_models import EmailRow
from db.transactions import now


def identity_of_row(row: AnyRow) -> Identity:
    return Identity(row.issuer, row.subject, row.email, row.name)


def identity_of_session(connection: Connection, session_id: int) -> AnyRow | None:
    """The account with which a session began; None: it began with a link."""
    query = (
        select(IdentityRow.__table__)
        .join(IdentitySessionRow, IdentitySessionRow.identity_id == IdentityRow.id)
        .where(IdentitySessionRow.session_id == session_id)
    )
    return connection.execute(query).first()


def bind(connection: Connection, identity_id: int, study_id: int, user_id: int) -> None:
    row = {"identity_id": identity_id, "user_id": user_id, "study_id": study_id, "created_at": now()}
    connection.execute(insert(IdentityUserRow).values(row))


def forget_identities(connection: Connection, user_id: int) -> int:
    """Forget that accounts sign in as a user; an account that is nobody any more goes with its sessions."""
    bound = select(IdentityUserRow.identity_id).where(IdentityUserRow.user_id == user_id)
    ids = list(connection.execute(bound).scalars())
    connection.execute(delete(IdentityUserRow).where(IdentityUserRow.user_id == user_id))
    left = select(IdentityUserRow.identity_id)
    gone = [IdentityRow.id.in_(ids), IdentityRow.id.not_in(left)]
    nobody = list(connection.execute(select(IdentityRow.id).where(*gone)).scalars())
    connection.execute(delete(IdentitySessionRow).where(IdentitySessionRow.identity_id.in_(nobody)))
    connection.execute(delete(IdentityRow).where(IdentityRow.id.in_(nobody)))
    return len(ids)


def kept(connection: Connection, identity: Identity) -> int:
    """The id of an account, whose address and name are those of now; it may come in two windows at once."""
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[connection.dialect.name]
    values = {"email": identity.address, "name": identity.name}
    row = {"issuer": identity.issuer, "subject": identity.subject, "created_at": now(), **values}
    made = insert(IdentityRow).values(row)
    made = made.on_conflict_do_update(index_elements=[IdentityRow.issuer, IdentityRow.subject], set_=values)
    return int(connection.execute(made.returning(IdentityRow.id)).scalar_one())


def bound(connection: Connection, identity_id: int, study_id: int) -> int | None:
    query = select(IdentityUserRow.user_id).where(
        IdentityUserRow.identity_id == identity_id, IdentityUserRow.study_id == study_id
    )
    return connection.execute(query).scalar()


def rule(connection: Connection, study_id: int, email: str | None) -> AnyRow | None:
    if email is None:
        return None
    query = select(EmailRow.__table__).where(EmailRow.study_id == study_id, EmailRow.email == email)
    return connection.execute(query).first()


def rules_of(connection: Connection, user: AnyRow) -> list[AnyRow]:
    """The rules of a study that speak of a user: those by which the user came, and those of addresses of the user's
    accounts by which nobody else came.
    """
    theirs = or_(
        EmailRow.user_id == user.id,
        and_(EmailRow.user_id.is_(None), EmailRow.email.in_(_addresses_of_accounts(user.id))),
    )
    query = select(EmailRow.__table__).where(EmailRow.study_id == user.study_id, theirs).order_by(EmailRow.id)
    return list(connection.execute(query))


def addresses_of(connection: Connection, user: AnyRow) -> set[str]:
    """The addresses of a user's rules and accounts, but those by which somebody else came: they are that person's."""
    others = select(EmailRow.email).where(EmailRow.study_id == user.study_id, EmailRow.user_id != user.id)
    of_accounts = set(connection.execute(_addresses_of_accounts(user.id)).scalars())
    of_others = set(connection.execute(others.where(EmailRow.email.in_(of_accounts))).scalars())
    return {row.email for row in rules_of(connection, user)} | of_accounts - of_others


def _addresses_of_accounts(user_id: int) -> Any:
    """A query of the addresses that a user's accounts have now, or had when an owner refused them."""
    now_ = (
        select(IdentityRow.email)
        .join(IdentityUserRow, IdentityUserRow.identity_id == IdentityRow.id)
        .where(IdentityUserRow.user_id == user_id, IdentityRow.email.is_not(None))
    )
    before = select(IdentityUserRow.refused).where(
        IdentityUserRow.user_id == user_id, IdentityUserRow.refused.is_not(None)
    )
    return now_.union(before)


def refused(connection: Connection, study_id: int, identity: AnyRow, user_id: int) -> bool:
    """Whether an owner has refused the account's address, the one by which its user came, or that of an account of the
    user, whatever the provider says of this account now.
    """
    by_rule = select(EmailRow.id).where(
        EmailRow.study_id == study_id,
        EmailRow.role.is_(None),
        or_(EmailRow.email == identity.email, EmailRow.user_id == user_id),
    )
    before = select(IdentityUserRow.user_id).where(
        IdentityUserRow.study_id == study_id,
        IdentityUserRow.refused.is_not(None),
        or_(IdentityUserRow.identity_id == identity.id, IdentityUserRow.user_id == user_id),
    )
    return any(connection.execute(query).first() is not None for query in (by_rule, before))


def mark_refused(connection: Connection, study_id: int, email: str) -> None:
    """Refuse the accounts of a study that have an address now, also for the time when they have another one."""
    ids = select(IdentityRow.id).where(IdentityRow.email == email)
    theirs = (IdentityUserRow.study_id == study_id, IdentityUserRow.identity_id.in_(ids))
    connection.execute(update(IdentityUserRow).where(*theirs, IdentityUserRow.refused.is_(None)).values(refused=email))


def let_in(connection: Connection, study_id: int, email: str) -> None:
    """End the refusal of an address for the accounts that had it."""
    theirs = (IdentityUserRow.study_id == study_id, IdentityUserRow.refused == email)
    connection.execute(update(IdentityUserRow).where(*theirs).values(refused=None))


def studies_of_identity(identity: AnyRow) -> tuple[Any, Any]:
    """Queries of the ids of the studies that an account opens: those where it is somebody, and those by its address."""
    bound = select(IdentityUserRow.study_id).where(
        IdentityUserRow.identity_id == identity.id, IdentityUserRow.refused.is_(None)
    )
    taken = EmailRow.user_id.in_(select(IdentityUserRow.user_id))
    free = or_(EmailRow.user_id.is_(None), ~taken)
    ruled = select(EmailRow.study_id).where(EmailRow.email == identity.email, EmailRow.role.is_not(None), free)
    return bound, ruled
