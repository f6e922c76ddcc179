"""Who may do what: every verb of a study names the role it needs, and ``ROLES`` is the table of them all.

A page acts as the signed-in user: its session has an ``actor``, whose role is looked up at every act, since a role may
change and a user may be signed out while a page stays open.  A session without an actor is the product itself, or its
terminal; no page has one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from copl_core.records import CoplError, Role, User
from copl_core.study.session import Session

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Verb = Callable[Concatenate[Session, _Arguments], _Result]
_RANK = {Role.ANNOTATOR: 0, Role.RESEARCHER: 1, Role.OWNER: 2}
_WHO = {
    Role.ANNOTATOR: "a member",
    Role.RESEARCHER: "a researcher or an owner",
    Role.OWNER: "an owner",
}
NOBODY_YET = 0  # the actor of somebody who is not signed in


@dataclass(frozen=True, slots=True)
class Needed:
    """What a verb needs of the user who acts."""

    role: Role | None = None  # the lowest role; None: no membership
    own: bool = False  # the verb's ``user_id`` must be the acting user
    unless: Role | None = None  # the role that may do it to others too
    terminal: bool = False  # no page may call it


OWNER, RESEARCHER, MEMBER = Needed(Role.OWNER), Needed(Role.RESEARCHER), Needed(Role.ANNOTATOR)
OWN = Needed(Role.ANNOTATOR, own=True)
OWN_OR_OWNER = Needed(Role.ANNOTATOR, own=True, unless=Role.OWNER)
ANYBODY = Needed()  # people who sign in
TERMINAL = Needed(terminal=True)
ROLES: dict[str, Needed] = {}  # "module.verb" → what it needs


def needs(needed: Needed) -> Callable[[_Verb[_Arguments, _Result]], _Verb[_Arguments, _Result]]:
    """Mark a verb with what it needs.

    The verb's ``by``, where it has one, becomes the acting user.  What the verb calls in turn runs as the product: one
    act is checked once.
    """

    def mark(verb: _Verb[_Arguments, _Result]) -> _Verb[_Arguments, _Result]:
        ROLES[f"{verb.__module__.rpartition('.')[2]}.{verb.__name__}"] = needed
        signature = inspect.signature(verb)

        @wraps(verb)
        def checked(session: Session, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            by = kwargs.get("by")
            actor = by if isinstance(by, int) else session.actor
            if actor is None:
                return verb(session, *args, **kwargs)
            if session.actor not in (None, actor):
                raise CoplError("You cannot act for somebody else; sign in as yourself.")
            whose = signature.bind(session, *args, **kwargs).arguments.get("user_id") if needed.own else None
            _check(session, actor, needed, whose)
            if "by" in signature.parameters:
                kwargs["by"] = actor
            return verb(session.acting(None), *args, **kwargs)

        return checked

    return mark


def _check(session: Session, actor: int, needed: Needed, whose: object) -> None:
    if needed.terminal:
        raise CoplError("This is done in a terminal of the studio's machine.")
    if needed.role is not None:
        need_role(session, actor, needed.role)
    if needed.own and whose != actor:
        if needed.unless is None:
            raise CoplError("This belongs to somebody else; only they may read or change it.")
        need_role(session, actor, needed.unless)


def need_role(session: Session, user_id: int, role: Role) -> None:
    """Check the present role of a user of this study.

    Raises:
        CoplError: the user is no member of the study, or the role is too low.
    """
    user = member(session, user_id)
    if _RANK[user.role] < _RANK[role]:
        raise CoplError(f"{user.name} is {user.role} here; only {_WHO[role]} of the study may do this.")


def member(session: Session, user_id: int) -> User:
    """A user of this study, as stored now.

    Raises:
        CoplError: there is no such user in this study.
    """
    user = session.store.member(session.id, user_id)
    if user is None:
        raise CoplError(f"There is no user with id {user_id} in this study; choose one of its users.")
    return user
