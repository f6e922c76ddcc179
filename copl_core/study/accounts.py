"""Accounts at identity providers (OpenID Connect): what one says of itself, and as whom it signs in.

An account is its issuer and subject (OpenID Connect Core 1.0, section 5.7): both stay, while addresses and names change
and may be given to other people.  An address counts only where the provider says that it has
verified it, with the JSON value true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import category

from copl_core.addresses import LONGEST, is_address, stored_address
from copl_core.names import has_unseen
from copl_core.records import CoplError, Identity
from copl_core.study.roles import OWN, OWN_OR_OWNER, member, needs
from copl_core.study.session import Session

_LONGEST = {"iss": 500, "sub": 255, "email": LONGEST, "name": 80}  # characters; the name is cut


def identity_of(claims: Mapping[str, Any]) -> Identity:
    """The account that the claims of a checked ID token describe.

    Raises:
        CoplError: a claim that decides who somebody is has another type than the standard gives it.
    """
    issuer, subject = (_text(claims, name, needed=True) for name in ("iss", "sub"))
    address = stored_address(_text(claims, "email"))
    counts = claims.get("email_verified") is True and is_address(address)  # some send "true" and "false" as texts
    return Identity(issuer, subject, address if counts else None, _shown(_text(claims, "name")))


def _text(claims: Mapping[str, Any], name: str, *, needed: bool = False) -> str:
    value = claims.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value.strip()) or "\0" in value:
        raise _wrong(name, value, "a text")
    if len(value) > _LONGEST[name] and name != "name":
        raise _wrong(name, f"{len(value):,} characters", f"at most {_LONGEST[name]}")
    return value


def _wrong(name: str, value: object, needed: str) -> CoplError:
    got = "missing" if value is None else repr(value)[:60]
    return CoplError(
        f"The identity provider's claim {name!r} is {got}; it must be {needed}. Nobody was signed in. Correct it "
        "in the settings of the provider."
    )


def _shown(name: str) -> str:
    """A name without characters that nobody sees; empty, and so replaced, where a newcomer's own name would be
    refused for one that shows nothing although it counts as a letter."""
    shown = " ".join("".join(one for one in name if category(one)[0] != "C").split())[: _LONGEST["name"]]
    return "" if has_unseen(shown) else shown


@needs(OWN)
def connect(session: Session, user_id: int, identity: Identity) -> None:
    """Let an account sign in as this user from now on; all of the user's labels stay theirs.

    Raises:
        CoplError: the account signs in as somebody else of this study, or its address is refused.
    """
    member(session, user_id)
    session.store.connect_identity(user_id, identity)


@needs(OWN_OR_OWNER)
def accounts(session: Session, user_id: int) -> list[Identity]:
    """The accounts that sign in as a user."""
    member(session, user_id)
    return session.store.identities_of(user_id)


@needs(OWN_OR_OWNER)
def disconnect(session: Session, user_id: int, *, by: int | None = None) -> int:
    """Let no account sign in as a user any more, and sign them out of every browser; returns the number of accounts.

    A rule for an account's address still admits it: refuse the address too where it shall stay out.
    """
    member(session, user_id)
    return session.store.disconnect_identities(user_id, by=by)
