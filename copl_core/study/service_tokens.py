"""The verbs of the tokens by which other programs ask the reward server."""

from __future__ import annotations

from copl_core.records import CoplError
from copl_core.store import Store
from copl_core.study.roles import OWNER, needs
from copl_core.study.session import Session
from copl_core.study.sign_in import hashed, new_secret
from copl_core.study_settings import ServiceRole, ServiceToken

PER_MINUTE = 600  # requests of a token, unless it is made with another number


@needs(OWNER)
def make_token(
    session: Session,
    name: str,
    role: ServiceRole = ServiceRole.REWARDS,
    per_minute: int = PER_MINUTE,
    *,
    by: int | None = None,
) -> tuple[ServiceToken, str]:
    """(a new token of this study, its secret, which cannot be shown again).

    Raises:
        CoplError: a token of that name is in use, or the number of requests is out of range.
    """
    secret = new_secret()
    made = session.store.add_service_token(session.id, hashed(secret), name, ServiceRole(role), per_minute, by=by)
    return made, secret


@needs(OWNER)
def tokens(session: Session) -> list[ServiceToken]:
    """Every token of this study, newest first, with those that are revoked."""
    return session.store.service_tokens(session.id)


@needs(OWNER)
def revoke_token(session: Session, name: str, *, by: int | None = None) -> ServiceToken:
    """Revoke the token of that name, from the next request on.

    Raises:
        CoplError: no token of that name is in use.
    """
    live = [one for one in session.store.service_tokens(session.id) if one.revoked_at is None]
    found = next((one for one in live if one.name == name.strip()), None)
    if found is None:
        names = ", ".join(repr(one.name) for one in live) or "none"
        raise CoplError(f"No token with the name {name!r} is in use here (in use: {names}); name one of them.")
    return session.store.revoke_service_token(session.id, found.id, by=by)


def token_of(store: Store, secret: str) -> ServiceToken | None:
    """The token of a secret, as stored now; None where it is unknown or revoked."""
    return store.service_token(hashed(secret))
