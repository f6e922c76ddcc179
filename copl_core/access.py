"""Who may come in and as what: the verbs of sign-in, invites and roles, as functions of a study.

A secret is shown once, to whom it is made for; the store keeps its SHA-256 alone.  Secrets are long and random, so a
plain hash is enough.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from copl_core.records import AuditEntry, CoplError, Kind, Role, StudyRecord, User
from copl_core.rules import EmailRule, Invite

if TYPE_CHECKING:
    from copl_core.study import Study

_NAME_LENGTH = 80


# ---- by name, by secret


def join(study: Study, name: str, role: Role = Role.ANNOTATOR) -> User:
    """The user of that name, made if there is none.  For the terminal and the owner: it does not ask whether to."""
    return study.store.create_user(study.id, _checked(name), kind=Kind.HUMAN, role=role)


def enter(study: Study, name: str) -> tuple[User, str]:
    """Somebody who came by the study's address: a new annotator, and the secret that signs them in from now on.

    Raises:
        CoplError: the study is not open to everybody, or somebody is called that already.
    """
    token = _secret()
    return study.store.join(study.id, _checked(name), _hash(token)), token


def sign_in_token(study: Study, user_id: int) -> str:
    """A fresh secret that signs the user in; only its hash is kept."""
    token = _secret()
    study.store.add_token(user_id, _hash(token))
    return token


def sign_in(study: Study, token: str) -> User | None:
    """The user of a secret; None where it is unknown or was revoked."""
    return study.store.user_by_token(study.id, _hash(token))


def sign_out_everywhere(study: Study, user_id: int, *, by: int | None = None) -> int:
    """Revoke every secret of a user, their own or by an owner; returns how many there were."""
    if by != user_id:
        need_owner(study, by)
    _member(study, user_id)
    return study.store.drop_tokens(user_id, by=by)


# ---- invites


def invite(
    study: Study,
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
    need_owner(study, by)
    if uses is not None and uses < 1:
        raise CoplError(f"The invite would let in {uses} people; give 1 or more, or no bound.")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise CoplError(f"The invite would have expired at {expires_at:%Y-%m-%d %H:%M}; choose a later time.")
    secret = _secret()
    made = study.store.add_invite(study.id, _hash(secret), Role(role), uses=uses, expires_at=expires_at, by=by)
    return made, secret


def invites(study: Study) -> list[tuple[Invite, str]]:
    """Every invite with its state (open, revoked, used up, expired), newest first."""
    now = datetime.now(UTC)
    return [(one, one.state(now)) for one in study.store.invites(study.id)]


def invited(study: Study, secret: str) -> Invite | None:
    """The invite of a secret while it is open; None otherwise."""
    found = study.store.invite_by_token(study.id, _hash(secret))
    return found if found is not None and found.state(datetime.now(UTC)) == "open" else None


def accept_invite(study: Study, secret: str, name: str) -> tuple[User, str]:
    """A new user with the invite's role, and the secret that signs them in from now on.

    Raises:
        CoplError: the invite is unknown, revoked, used up or expired, or somebody is called that already.
    """
    token = _secret()
    return study.store.accept_invite(study.id, _hash(secret), _checked(name), _hash(token)), token


def revoke_invite(study: Study, invite_id: int, *, by: int | None = None) -> Invite:
    """Nobody comes in by it any more; who is in stays."""
    need_owner(study, by)
    return study.store.revoke_invite(study.id, invite_id, by=by)


# ---- e-mail addresses, for sign-in with OpenID Connect


def sign_in_email(study: Study, email: str, name: str = "") -> User | None:
    """The user of an address that the identity provider has verified, made at their first sign-in.

    None: the address is refused, or unknown while the study lets people in by invitation only.
    """
    return study.store.user_by_email(study.id, email, name)


def set_email(study: Study, email: str, role: Role | None, *, by: int | None = None) -> EmailRule:
    """Which role an address signs in with; None refuses it, also to somebody who was in before."""
    need_owner(study, by)
    return study.store.set_email(study.id, email, None if role is None else Role(role), by=by)


def emails(study: Study) -> list[EmailRule]:
    return study.store.emails(study.id)


# ---- roles and trust


def set_role(study: Study, user_id: int, role: Role, *, by: int | None = None) -> User:
    """Raises ``CoplError`` where the study would be left without an owner, or the asker is none."""
    need_owner(study, by)
    _member(study, user_id)
    return study.store.set_role(user_id, Role(role), by=by)


def exclude(study: Study, user_id: int, excluded: bool, *, by: int | None = None) -> User:
    """Keep a user's labels out of training and votes, or let them in again; their own pages go on working."""
    need_owner(study, by)
    _member(study, user_id)
    return study.store.exclude(user_id, excluded, by=by)


def audit(study: Study, limit: int = 100) -> list[AuditEntry]:
    """Who changed what, newest first."""
    return study.store.audit(study.id, limit=limit)


# ---- other studies of the installation


def studies(study: Study) -> list[StudyRecord]:
    """Every study of the installation, oldest first."""
    return study.store.studies()


def switch(study: Study, study_id: int, *, by: int) -> str:
    """Open another study to everybody, and let the asker into it; returns their secret there.

    An installation is one house: an owner of the study it shows may open its others, as an owner of the same name.

    Raises:
        CoplError: the asker is no owner, there is no such study, or their name is somebody's there who is no owner.
    """
    need_owner(study, by)
    name = study.store.user(by).name
    there = study.store.create_user(study_id, name, role=Role.OWNER)
    if there.role != Role.OWNER:
        raise CoplError(
            f"In {study.store.study(study_id).name} somebody called {name} is {there.role}; ask an owner "
            "of that study to make them an owner."
        )
    token = _secret()
    study.store.add_token(there.id, _hash(token))
    study.store.make_current(study_id)
    return token


def need_owner(study: Study, by: int | None) -> None:
    """Let only owners of this study pass; None is the product itself, or somebody at its terminal."""
    if by is None:
        return
    user = _member(study, by)
    if user.role != Role.OWNER:
        raise CoplError(f"{user.name} is {user.role} here; only an owner of the study may change this.")


def _member(study: Study, user_id: int) -> User:
    user = next((one for one in study.store.users(study.id) if one.id == user_id), None)
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
