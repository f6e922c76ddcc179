"""The verbs of access: sign-in, invites and roles.

A secret is shown once, to the user it is made for; the store keeps only its SHA-256.  Secrets are long and random, so a
plain hash is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, count

from copl_core.formats.values import visible
from copl_core.names import has_unseen
from copl_core.records import (
    LARGEST,
    Activity,
    AuditEntry,
    CoplError,
    Kind,
    NotInStudy,
    Role,
    SignedInBrowser,
    StudyRecord,
    User,
)
from copl_core.store import Store
from copl_core.study.roles import ANYBODY, OWN, OWN_OR_OWNER, OWNER, RESEARCHER, TERMINAL, member, needs
from copl_core.study.session import Session
from copl_core.study.sign_in import hashed, new_secret
from copl_core.study_settings import EmailRule, Invite

_NAME_LENGTH = 80
MOST_LISTED = 2_000  # users of a study whose lists show everybody; in a larger one they are searched by name
MOST_FOUND = 50  # users that a search shows
MOST_BROWSERS = 20  # that a user's list shows


# ---- members


@needs(RESEARCHER)
def users(session: Session) -> list[User]:
    """All users of the study, without simulated users where the study excludes them."""
    return session.store.users(session.id)


@needs(RESEARCHER)
def few_users(session: Session) -> list[User] | None:
    """All users as in ``users``; None where they are more than ``MOST_LISTED``."""
    found = session.store.users(session.id, most=MOST_LISTED + 1)
    return found if len(found) <= MOST_LISTED else None


@needs(RESEARCHER)
def users_of(session: Session, ids: Iterable[int | None]) -> dict[int, User]:
    """Id → user, of those among these ids that are users of the study; None is no id."""
    wanted = [one for one in ids if one is not None and 0 < one <= LARGEST]
    return {user.id: user for user in session.store.users(session.id, ids=wanted)} if wanted else {}


@needs(OWNER)
def activity(session: Session, ids: Sequence[int]) -> dict[int, Activity]:
    """Id → how many labels of a user count, and when they were seen last, of those that are users of the study."""
    return session.store.activity(session.id, ids)


@needs(RESEARCHER)
def hidden_users(session: Session) -> list[int]:
    """The ids of the users whom the study leaves out of lists: simulated ones while their switch is off."""
    return [] if session.record.include_simulated else session.store.users_of_kind(session.id, Kind.SIMULATED)


@needs(RESEARCHER)
def find_users(session: Session, part: str, most: int = MOST_FOUND) -> list[User]:
    """The users whose name contains a text, the closest first; the first ones of the study for an empty text."""
    return session.store.find_users(session.id, " ".join(part.split()), most)


@needs(RESEARCHER)
def user_counts(session: Session) -> dict[Kind, int]:
    """Kind → number of its users, without simulated users where the study excludes them."""
    return session.store.user_counts(session.id)


@needs(RESEARCHER)
def user(session: Session, user_id: int) -> User:
    return session.store.user(user_id)


@needs(RESEARCHER)
def find_user(session: Session, wanted: str | int) -> User:
    """The user of a name, or of an id.

    Raises:
        NotInStudy: the study has no such user.
    """
    if isinstance(wanted, int):
        found = session.store.member(session.id, wanted) if 0 < wanted <= LARGEST else None
    else:
        found = session.store.user_named(session.id, wanted) or session.store.user_named(session.id, wanted.strip())
    if found is None:
        shown = wanted if isinstance(wanted, int) else repr(wanted[:60])
        raise NotInStudy(
            f"There is no user {shown} in study {session.record.name!r}; use a name of its People page, or an id."
        )
    return found


@needs(RESEARCHER)
def include_simulated(session: Session, include: bool, *, by: int | None = None) -> None:
    """Include simulated users in the study, or exclude them; their labels stay stored."""
    session.store.include_simulated(session.id, include, by=by)


@needs(OWNER)
def include_models(session: Session, include: bool, *, by: int | None = None) -> None:
    """Learn from the labels of language models too, or from those of people only; all labels stay stored."""
    session.store.include_models(session.id, include, by=by)


# ---- sign-in by name and by secret


@needs(TERMINAL)
def join(session: Session, name: str, role: Role = Role.ANNOTATOR) -> User:
    """The user of that name, created if there is none.  For the terminal and the owner: no permission is checked."""
    return session.store.create_user(session.id, _checked(name), kind=Kind.HUMAN, role=role)


@needs(ANYBODY)
def enter(session: Session, name: str, *, browser: str = "") -> tuple[User, str]:
    """(a new annotator who opened the study's address, the secret that signs them in).

    Args:
        browser: the secret of a session that began with an account, which then signs in as this user.

    Raises:
        CoplError: the study is not open to everybody, or the name is taken or looks like one that is.
    """
    token, known = new_secret(), hashed(browser) if browser else None
    return session.store.join(session.id, _checked(name), hashed(token), known), token


@needs(OWN_OR_OWNER)
def sign_in_token(session: Session, user_id: int, *, by: int | None = None) -> str:
    """A new secret that signs the user in to this study; only its hash is stored.  Owners make them for everybody,
    which is in the record, for ``link_days`` of the settings; anybody for themself, for half a year after its last use.

    Raises:
        CoplError: the study has no such user, or ``by`` may not make it.
    """
    member(session, user_id)
    token = new_secret()
    session.store.add_token(user_id, hashed(token), lasts=_lasts(session), by=by)
    return token


@needs(TERMINAL)
def terminal_token(session: Session) -> str:
    """A new secret for the link that the terminal prints: it signs the study's owner in to every study, for
    ``link_days`` of the settings.
    """
    token = new_secret()
    session.store.add_token(owner(session).id, hashed(token), lasts=_lasts(session), terminal=True)
    return token


def _lasts(session: Session) -> timedelta:
    return timedelta(days=session.settings.link_days)


@needs(TERMINAL)
def owner(session: Session) -> User:
    """The study's owner, created if there is none; a user of another role whose name is Owner is not the owner."""
    found = session.store.owner(session.id)
    if found is not None:
        return found
    names = chain(["Owner"], (f"Owner {n}" for n in count(2)))
    free = next(name for name in names if session.store.user_named(session.id, name) is None)
    return join(session, free, Role.OWNER)


@needs(TERMINAL)
def sign_in(session: Session, token: str) -> User | None:
    """The user of a secret; None where it is unknown, revoked or has expired."""
    return session.store.user_by_token(session.id, hashed(token))


@needs(OWN_OR_OWNER)
def sign_out_everywhere(session: Session, user_id: int, *, browser: str = "", by: int | None = None) -> int:
    """Revoke every secret of a user, who may do so themselves, as may an owner; returns the number of secrets.

    Args:
        browser: the secret of the user's own session: everybody as whom it acts, in any study, is signed out too.
    """
    member(session, user_id)
    return session.store.drop_tokens(user_id, browser=hashed(browser) if browser else None, by=by)


@needs(OWN)
def browsers(session: Session, user_id: int, *, browser: str = "") -> list[SignedInBrowser]:
    """The browsers in which a user is signed in, at most ``MOST_BROWSERS``, the one seen last first.

    Args:
        browser: the secret of the session that asks, which is marked.
    """
    member(session, user_id)
    return session.store.browsers_of(user_id, hashed(browser), most=MOST_BROWSERS)


@needs(OWN)
def sign_out_browser(session: Session, user_id: int, browser_id: int, *, by: int | None = None) -> None:
    """Sign a user out of one browser.  It stays signed in to other studies, unless it came by the user's account at an
    identity provider or by a link of the terminal: then it is signed out of all.

    Raises:
        CoplError: the user is not signed in there.
    """
    member(session, user_id)
    session.store.end_session_of(user_id, browser_id if 0 < browser_id <= LARGEST else 0, by=by)


# ---- invites


@needs(OWNER)
def invite(
    session: Session,
    role: Role = Role.ANNOTATOR,
    *,
    expires_at: datetime | None = None,
    uses: int | None = 1,
    by: int | None = None,
) -> tuple[Invite, str]:
    """(an invite for ``uses`` users, None for any number, and its secret, which cannot be shown again).

    Raises:
        CoplError: ``by`` is not an owner, or the invite could never be used.
    """
    if uses is not None and uses < 1:
        raise CoplError(f"The invite would admit {uses} people; give 1 or more, or no limit.")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise CoplError(f"The invite would expire at {expires_at:%Y-%m-%d %H:%M}, which is past; choose a later time.")
    secret = new_secret()
    made = session.store.add_invite(session.id, hashed(secret), Role(role), uses=uses, expires_at=expires_at, by=by)
    return made, secret


@needs(OWNER)
def invites(session: Session) -> list[tuple[Invite, str]]:
    """Every invite with its state (open, revoked, used up, expired), newest first."""
    now = datetime.now(UTC)
    return [(one, one.state(now)) for one in session.store.invites(session.id)]


def study_of_invite(store: Store, secret: str) -> int | None:
    """The study to which an invite belongs, whether it is open or not."""
    return store.study_of_invite(hashed(secret))


@needs(ANYBODY)
def find_invite(session: Session, secret: str) -> Invite | None:
    """The invite of a secret while it is open; None otherwise."""
    found = session.store.invite_by_token(session.id, hashed(secret))
    return found if found is not None and found.state(datetime.now(UTC)) == "open" else None


@needs(ANYBODY)
def accept_invite(session: Session, secret: str, name: str, *, browser: str = "") -> tuple[User, str]:
    """(a new user with the role of the invite, the secret that signs them in); ``browser`` as in ``enter``.

    Raises:
        CoplError: the invite is unknown, revoked, used up or expired, or the name is taken or looks like one that is.
    """
    token, known = new_secret(), hashed(browser) if browser else None
    return session.store.accept_invite(session.id, hashed(secret), _checked(name), hashed(token), known), token


@needs(OWNER)
def revoke_invite(session: Session, invite_id: int, *, by: int | None = None) -> Invite:
    """Close an invite; users who joined by it stay."""
    return session.store.revoke_invite(session.id, invite_id, by=by)


# ---- e-mail addresses, for sign-in with OpenID Connect


@needs(OWNER)
def set_email(session: Session, email: str, role: Role | None, *, by: int | None = None) -> EmailRule:
    """Store the role that an address signs in with; None refuses the address, also to a member, who is signed out."""
    return session.store.set_email(session.id, email, None if role is None else Role(role), by=by)


@needs(OWNER)
def emails(session: Session) -> list[EmailRule]:
    return session.store.emails(session.id)


# ---- roles and exclusion


@needs(OWNER)
def set_role(session: Session, user_id: int, role: Role, *, by: int | None = None) -> User:
    """Change a user's role.

    Raises:
        CoplError: the study would have no owner left, or ``by`` is not an owner.
    """
    member(session, user_id)
    return session.store.set_role(user_id, Role(role), by=by)


@needs(OWNER)
def exclude(session: Session, user_id: int, excluded: bool, *, by: int | None = None) -> User:
    """Exclude a user's labels from training and votes, or include them again; the user's own pages keep working."""
    member(session, user_id)
    return session.store.exclude(user_id, excluded, by=by)


@needs(OWNER)
def audit(session: Session, limit: int = 100) -> list[AuditEntry]:
    """Who changed what, newest first."""
    return session.store.audit(session.id, limit=limit)


# ---- the studies of the installation


@needs(OWNER)
def create_study(session: Session, name: str, *, browser: str = "", by: int | None = None) -> StudyRecord:
    """A new, empty study, by invitation only, whose owner is ``by``; their ``browser`` may open it.

    Raises:
        CoplError: a study with that name exists, or the name is empty or too long.
    """
    record = session.store.create_study(name, new=True, open=False)
    give_owner(session, record.id, by, browser)
    return record


def give_owner(session: Session, study_id: int, by: int | None, browser: str = "") -> int | None:
    """Make a user of this study the owner of a new one, who signs in there as here: by browser or by account.

    Returns:
        The id of that owner.
    """
    if by is None:
        return None
    store = session.store
    name = store.user(by).name
    for own in chain([name], (f"{name} {n}" for n in count(2))):
        user = store.create_user(study_id, own, role=Role.OWNER)
        if (user.role, user.kind) == (Role.OWNER, Kind.HUMAN):
            break  # otherwise somebody else has the name
    for identity in store.identities_of(by):
        store.connect_identity(user.id, identity)
    if browser:
        store.add_to_session(hashed(browser), user.id)
    return user.id


@needs(OWNER)
def make_front(session: Session, *, by: int | None = None) -> None:
    """Show this study to people who come without a link; everybody else stays where they are."""
    session.store.make_current(session.id)


@needs(OWNER)
def is_front(session: Session) -> bool:
    """Whether people who come without a link see this study."""
    front = session.store.current_study()
    return front is not None and front.id == session.id


@needs(ANYBODY)
def is_open(session: Session) -> bool:
    """Whether anybody with the address may join."""
    return session.store.assignment_settings(session.id).open


def _checked(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise CoplError("The name is empty; type a name or a nickname.")
    if len(name) > _NAME_LENGTH:
        raise CoplError(f"The name has {len(name)} characters; give one of 1 to {_NAME_LENGTH}.")
    if visible(name) != name or has_unseen(name):
        raise CoplError(f"The name {visible(name)!r} holds characters that nobody can see; give a name without them.")
    return name
