"""Sign-in of a browser: its cookie holds a secret, and the store keeps the SHA-256 of it.

These functions take the store and not a study: a browser may be signed in to several studies, as one user in each.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import suppress

from copl_core.records import BrowserSession, CoplError, Identity, Role, User
from copl_core.store import Store

SIGNED_OUT = (
    "You are signed out, so nothing was saved. Open your own sign-in link to come back; if an account signs you in, "
    "reload this page for its button. Somebody without either needs a new link from an owner of the study."
)
# What browsers send of themselves names others too: the first of each list that is in it is meant.
_PROGRAMS = {
    r"\bEdg(A|iOS)?/": "Edge",
    r"\bOPR/": "Opera",
    r"\bVivaldi/": "Vivaldi",
    r"\bSamsungBrowser/": "Samsung Internet",
    r"\b(Firefox|FxiOS)/": "Firefox",
    r"(Chrome|Chromium|\bCriOS)/": "Chrome",
    r"\bSafari/": "Safari",
}
_SYSTEMS = {
    r"\biPhone\b": "iPhone",
    r"\biPad\b": "iPad",
    r"\bAndroid\b": "Android",
    r"\bCrOS\b": "ChromeOS",
    r"\bWindows\b": "Windows",
    r"\bMac OS X\b|\bMacintosh\b": "Mac",
    r"\bLinux\b": "Linux",
}
_READ = 500  # characters of what a browser sends of itself: names stand in them


def new_secret() -> str:
    """Long and random, so that a plain hash of it is enough."""
    return secrets.token_urlsafe(24)


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def name_of(agent: str) -> str:
    """The name of a browser, such as "Firefox on Linux", by its header User-Agent; empty: it says nothing known.

    Of the header, which tells versions and devices too, nothing else is kept.
    """
    program, system = (_first(names, agent[:_READ]) for names in (_PROGRAMS, _SYSTEMS))
    return f"{program or 'A browser'} on {system}" if system else program


def _first(names: dict[str, str], agent: str) -> str:
    return next((name for pattern, name in names.items() if re.search(pattern, agent)), "")


def begin(store: Store, token: str, browser: str = "", *, agent: str = "") -> str | None:
    """The secret of the session in which the token of a sign-in link signs in; None: the token is unknown or revoked.

    Args:
        browser: the secret of the session that the browser has already, or nothing.
        agent: its header User-Agent.

    Raises:
        LinkExpired: the time of the link is over.
    """
    secret = new_secret()
    known = hashed(browser) if browser else None
    found = store.start_session(hashed(token), hashed(secret), known=known, name=name_of(agent))
    return None if found is None else browser if found == known else secret


def changes(store: Store, token: str, browser: str) -> tuple[str, str] | None:
    """(who a browser is, for whom a sign-in link is) where these are two; None: nobody would be somebody else."""
    return store.link_for_another(hashed(token), hashed(browser)) if browser else None


def begin_with(store: Store, identity: Identity, *, agent: str = "") -> str:
    """The secret of a new session that begins with an account at an identity provider, whatever it may open.

    Args:
        agent: as in ``begin``.
    """
    secret = new_secret()
    store.start_identity_session(identity, hashed(secret), name=name_of(agent))
    return secret


def signed_in(store: Store, browser: str, study_id: int) -> User | None:
    """The user as whom a browser is signed in to a study, looked up now: roles change and sessions end."""
    return store.session_user(hashed(browser), study_id)


def session_of(store: Store, browser: str) -> BrowserSession | None:
    """The live session of a browser."""
    return store.browser_session(hashed(browser))


def may_upload(store: Store, browser: str) -> bool:
    """Whether a browser is that of an owner, of any study: the fields for files are on the page of owners."""
    session = session_of(store, browser) if browser else None
    if session is None or session.terminal:
        return session is not None
    users = (signed_in(store, browser, study.id) for study in session.studies)
    return any(user is not None and user.role == Role.OWNER for user in users)


def open_study(store: Store, browser: str, study_id: int) -> User | None:
    """The user as whom a browser opens a study, which is remembered; None: it may not open this study.

    A session begun in the terminal opens every study, as its owner; one begun with an account those that admit it.
    """
    user = signed_in(store, browser, study_id) or store.admit(hashed(browser), study_id)
    session = session_of(store, browser) if user is None else None
    if session is not None and session.terminal:
        user = store.owner(study_id)
        if user is not None:
            store.add_to_session(hashed(browser), user.id)
    if user is not None:
        with suppress(CoplError):  # a page can be read while the database takes no change
            store.open_in_session(hashed(browser), study_id)
    return user


def add(store: Store, browser: str, user: User) -> None:
    """Sign a browser in as one more user, of a study in which it has none."""
    store.add_to_session(hashed(browser), user.id)


def end(store: Store, browser: str) -> None:
    """Sign a browser out of everything."""
    store.end_session(hashed(browser))


def set_link_due(store: Store, browser: str, user: User, due: bool) -> None:
    """Write down whether somebody who has joined in a browser has still to keep a sign-in link."""
    store.set_link_due(hashed(browser), user.id, due)


def link_is_due(store: Store, browser: str, user: User) -> bool:
    """Whether somebody has joined in this browser, and has neither kept a sign-in link nor used one;
    an account brings its person back without.
    """
    return store.link_due(hashed(browser), user.id) and not store.identities_of(user.id)
