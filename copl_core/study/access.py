"""Who may come in and as what: the verbs of sign-in, invites and roles, as functions of a study.

A secret is shown once, to whom it is made for; the store keeps its SHA-256 alone.  Secrets are long and random, so a
plain hash is enough.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime

from copl_core.records import AuditEntry, CoplError, Kind, Role, StudyRecord, User
from copl_core.study.session import Session
from copl_core.study_settings import EmailRule, Invite

_NAME_LENGTH = 80


# ---- who takes part


def users(session: Session) -> list[User]:
    """Everybody in the study, without simulated people where the study leaves them out."""
    return session.store.users(session.id)


def user(session: Session, user_id: int) -> User:
    return session.store.user(user_id)


def include_simulated(session: Session, include: bool, *, by: int | None = None) -> None:
    """Let simulated people into the study, or leave them out; their labels are kept."""
    session.store.include_simulated(session.id, include, by=by)


# ---- by name, by secret


def join(session: Session, name: str, role: Role = Role.ANNOTATOR) -> User:
    """The user of that name, made if there is none.  For the terminal and the owner: it does not ask whether to."""
    return session.store.create_user(session.id, _checked(name), kind=Kind.HUMAN, role=role)


def enter(session: Session, name: str) -> tuple[User, str]:
    """Somebody who came by the study's address: a new annotator, and the secret that signs them in from now on.

    Raises:
        CoplError: the study is not open to everybody, or somebody is called that already.
    """
    token = _secret()
    return session.store.join(session.id, _checked(name), _hash(token)), token


def sign_in_token(session: Session, user_id: int) -> str:
    """A fresh secret that signs the user in; only its hash is kept."""
    token = _secret()
    session.store.add_token(user_id, _hash(token))
    return token


def sign_in(session: Session, token: str) -> User | None:
    """The user of a secret; None where it is unknown or was revoked."""
    return session.store.user_by_token(session.id, _hash(token))


def sign_out_everywhere(session: Session, user_id: int, *, by: int | None = None) -> int:
    """Revoke every secret of a user, their own or by an owner; returns how many there were."""
    if by != user_id:
        need_owner(session, by)
    _member(session, user_id)
    return session.store.drop_tokens(user_id, by=by)


# ---- invites


def invite(
    session: Session,
    role: Role = Role.ANNOTATOR,
    *,
    expires_at: datetime | None = None,
    uses: int | None = 1,
    by: int | None = None,
) -> tuple[Invite, str]:
    """A way in for ``uses`` people (None: any number), and its secret, which is not to be had again.

    Raises:
        CoplError: the asker is no owner, or the invite would be of no use.
    """
    need_owner(session, by)
    if uses is not None and uses < 1:
        raise CoplError(f"The invite would let in {uses} people; give 1 or more, or no bound.")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise CoplError(f"The invite would have expired at {expires_at:%Y-%m-%d %H:%M}; choose a later time.")
    secret = _secret()
    made = session.store.add_invite(session.id, _hash(secret), Role(role), uses=uses, expires_at=expires_at, by=by)
    return made, secret


def invites(session: Session) -> list[tuple[Invite, str]]:
    """Every invite with its state (open, revoked, used up, expired), newest first."""
    now = datetime.now(UTC)
    return [(one, one.state(now)) for one in session.store.invites(session.id)]


def find_invite(session: Session, secret: str) -> Invite | None:
    """The invite of a secret while it is open; None otherwise."""
    found = session.store.invite_by_token(session.id, _hash(secret))
    return found if found is not None and found.state(datetime.now(UTC)) == "open" else None


def accept_invite(session: Session, secret: str, name: str) -> tuple[User, str]:
    """A new user with the invite's role, and the secret that signs them in from now on.

    Raises:
        CoplError: the invite is unknown, revoked, used up or expired, or somebody is called that already.
    """
    token = _secret()
    return session.store.accept_invite(session.id, _hash(secret), _checked(name), _hash(token)), token


def revoke_invite(session: Session, invite_id: int, *, by: int | None = None) -> Invite:
    """Nobody comes in by it any more; who is in stays."""
    need_owner(session, by)
    return session.store.revoke_invite(session.id, invite_id, by=by)


# ---- e-mail addresses, for sign-in with OpenID Connect


def sign_in_email(session: Session, email: str, name: str = "") -> User | None:
    """The user of an address that the identity provider has verified, made at their first sign-in.

    None: the address is refused, or unknown while the study lets people in by invitation only.
    """
    return session.store.user_by_email(session.id, email, name)


def set_email(session: Session, email: str, role: Role | None, *, by: int | None = None) -> EmailRule:
    """Which role an address signs in with; None refuses it, also to somebody who was in before."""
    need_owner(session, by)
    return session.store.set_email(session.id, email, None if role is None else Role(role), by=by)


def emails(session: Session) -> list[EmailRule]:
    return session.store.emails(session.id)


# ---- roles and trust


def set_role(session: Session, user_id: int, role: Role, *, by: int | None = None) -> User:
    """Raises ``CoplError`` where the study would be left without an owner, or the asker is none."""
    need_owner(session, by)
    _member(session, user_id)
    return session.store.set_role(user_id, Role(role), by=by)


def exclude(session: Session, user_id: int, excluded: bool, *, by: int | None = None) -> User:
    """Keep a user's labels out of training and votes, or let them in again; their own pages go on working."""
    need_owner(session, by)
    _member(session, user_id)
    return session.store.exclude(user_id, excluded, by=by)


def audit(session: Session, limit: int = 100) -> list[AuditEntry]:
    """Who changed what, newest first."""
    return session.store.audit(session.id, limit=limit)


# ---- other studies of the installation


def studies(session: Session) -> list[StudyRecord]:
    """Every study of the installation, oldest first."""
    return session.store.studies()


def switch_study(session: Session, study_id: int, *, by: int) -> str:
    """Open another study to everybody, and let the asker into it; returns their secret there.

    An installation is one house: an owner of the study it shows may open its others, as an owner of the same name.

    Raises:
        CoplError: the asker is no owner, there is no such study, or their name is somebody's there who is no owner.
    """
    need_owner(session, by)
    name = session.store.user(by).name
    there = session.store.create_user(study_id, name, role=Role.OWNER)
    if there.role != Role.OWNER:
        raise CoplError(
            f"In {session.store.study(study_id).name} somebody called {name} is {there.role}; ask an owner "
            "of that study to make them an owner."
        )
    token = _secret()
    session.store.add_token(there.id, _hash(token))
    session.store.make_current(study_id)
    return token


def need_owner(session: Session, by: int | None) -> None:
    """Let only owners of this study pass; None is the product itself, or somebody at its terminal."""
    if by is None:
        return
    user = _member(session, by)
    if user.role != Role.OWNER:
        raise CoplError(f"{user.name} is {user.role} here; only an owner of the study may change this.")


def need_researcher(session: Session, by: int | None) -> None:
    """Let only researchers and owners of this study pass; None is the product itself, or somebody at its terminal."""
    if by is None:
        return
    user = next((user for user in users(session) if user.id == by), None)
    if user is None or user.role == Role.ANNOTATOR:
        raise CoplError(
            f"{'Nobody here' if user is None else user.name} may ask for a pair; a researcher or an owner "
            "of the study may."
        )


def _member(session: Session, user_id: int) -> User:
    user = next((one for one in session.store.users(session.id) if one.id == user_id), None)
    if user is None:
        raise CoplError(f"There is no user with id {user_id} in this study; take one of its users.")
    return user


def _checked(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= _NAME_LENGTH:
        raise CoplError(f"The name {name!r} has {len(name)} characters; a name has 1 to {_NAME_LENGTH}; choose one.")
    return name


def _secret() -> str:
    return secrets.token_urlsafe(24)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
