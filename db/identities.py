"""Accounts at identity providers: which user an account is in a study, and the browsers that it has signed in.

An account is its issuer and subject.  A verified address only decides whom an account becomes that a study does not
know yet: from then on the account is that user, whatever happens to the address.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from copl_core.records import CoplError, Identity, Role, User
from db.auth import add_user, free_name
from db.base import AnyRow
from db.identity_models import IdentityRow, IdentitySessionRow, IdentityUserRow
from db.identity_rows import (
    bind,
    bound,
    forget_identities,
    identity_of_row,
    identity_of_session,
    kept,
    refused,
    rule,
    rules_of,
)
from db.models import StudyRow
from db.sessions import add_to, end_sessions_of, live_session, new_session
from db.study_models import EmailRow
from db.transactions import THERE, Transactions, audit, study_row, user_of, user_row


class Identities(Transactions):
    def start_identity_session(self, identity: Identity, session_hash: str, *, name: str = "") -> None:
        with self._write() as connection:
            identity_id = kept(connection, identity)
            session = new_session(connection, session_hash, name)
            connection.execute(insert(IdentitySessionRow).values(session_id=session.id, identity_id=identity_id))

    def admit(self, session_hash: str, study_id: int) -> User | None:
        with self._read() as connection:
            session = live_session(connection, session_hash)
            identity = None if session is None else identity_of_session(connection, session.id)
            there = connection.execute(THERE.where(StudyRow.id == study_id)).first() is not None
            if identity is None or not there or (bound(connection, identity.id, study_id) is None
                                    and rule(connection, study_id, identity.email) is None):  # fmt: skip
                return None
        with self._write() as connection:  # look again under a lock, so that one user is created
            study_row(connection, study_id, lock=True)
            session = live_session(connection, session_hash)
            identity = None if session is None else identity_of_session(connection, session.id)
            if session is None or identity is None:
                return None
            user_id = bound(connection, identity.id, study_id) or _by_address(connection, study_id, identity)
            if user_id is None or refused(connection, study_id, identity, user_id):
                return None
            add_to(connection, session.id, user_id)
            return user_of(user_row(connection, user_id))

    def connect_identity(self, user_id: int, identity: Identity) -> None:
        with self._write() as connection:
            study_id = user_row(connection, user_id).study_id
            study_row(connection, study_id, lock=True)
            identity_id = kept(connection, identity)
            other = bound(connection, identity_id, study_id)
            if other == user_id:
                return
            if other is not None:
                name = user_row(connection, other).name
                raise CoplError(
                    f"This account already signs in to this study as {name}. Sign in with another account, or sign in "
                    f"as {name} and disconnect it there first."
                )
            account = connection.execute(select(IdentityRow.__table__).where(IdentityRow.id == identity_id)).one()
            if refused(connection, study_id, account, user_id):
                raise CoplError(
                    "An owner has refused this account's address, so it was not connected; sign in with another "
                    "account, or ask an owner of the study."
                )
            bind(connection, identity_id, study_id, user_id)
            audit(connection, study_id, "account", user_id, user=user_id, connected=True)

    def disconnect_identities(self, user_id: int, *, by: int | None = None) -> int:
        with self._write() as connection:
            study_id = user_row(connection, user_id, lock=True).study_id
            mine = select(IdentityUserRow.identity_id).where(IdentityUserRow.user_id == user_id)
            n = len(connection.execute(mine).all())
            if n:
                end_sessions_of(connection, user_id)
                forget_identities(connection, user_id)
                audit(connection, study_id, "account", by, user=user_id, connected=False)
            return n

    def identities_of(self, user_id: int) -> list[Identity]:
        with self._read() as connection:
            query = (
                select(IdentityRow.__table__)
                .join(IdentityUserRow, IdentityUserRow.identity_id == IdentityRow.id)
                .where(IdentityUserRow.user_id == user_id)
                .order_by(IdentityRow.id)
            )
            return [identity_of_row(row) for row in connection.execute(query)]

    def is_refused(self, user_id: int) -> bool:
        with self._read() as connection:
            return any(rule.role is None for rule in rules_of(connection, user_row(connection, user_id)))


def _by_address(connection: Connection, study_id: int, identity: AnyRow) -> int | None:
    """The user whom the rule of a verified address names, bound to this account; None: it admits nobody.

    A user who has an account already gets no second one in this way: addresses are given away again.
    """
    found = rule(connection, study_id, identity.email)
    if found is None or found.role is None:
        return None
    user_id = found.user_id
    if user_id is None:
        name = free_name(connection, study_id, identity.name or identity.email.split("@")[0])
        user_id = add_user(connection, study_id, name, Role(found.role), None).id
        connection.execute(update(EmailRow).where(EmailRow.id == found.id).values(user_id=user_id))
    elif connection.execute(select(IdentityUserRow).where(IdentityUserRow.user_id == user_id)).first() is not None:
        return None
    bind(connection, identity.id, study_id, user_id)
    audit(connection, study_id, "account", user_id, user=user_id, connected=True)
    return int(user_id)
