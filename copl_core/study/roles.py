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


@dataclass(frozen=True, slots=True)
class Needed:
    """What a verb needs of the user who acts."""

    role: Role
    own: bool = False  # the verb's ``user_id`` must be the acting user


ROLES: dict[str, Needed] = {}  # "module.verb" → what it needs


def needs(role: Role, *, own: bool = False) -> Callable[[_Verb[_Arguments, _Result]], _Verb[_Arguments, _Result]]:
    """Mark a verb with the role it needs.

    The verb's ``by``, where it has one, becomes the acting user.  What the verb calls in turn runs as the product: one
    act is checked once.
    """

    def mark(verb: _Verb[_Arguments, _Result]) -> _Verb[_Arguments, _Result]:
        ROLES[f"{verb.__module__.rpartition('.')[2]}.{verb.__name__}"] = Needed(role, own)
        signature = inspect.signature(verb)

        @wraps(verb)
        def checked(session: Session, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            by = kwargs.get("by")
            actor = by if isinstance(by, int) else session.actor
            if actor is None:
                return verb(session, *args, **kwargs)
            if session.actor not in (None, actor):
                raise CoplError("You cannot act for somebody else; sign in as yourself.")
            need_role(session, actor, role)
            if own and signature.bind(session, *args, **kwargs).arguments["user_id"] != actor:
                raise CoplError("These are somebody else's answers; only they may read or change them here.")
            if "by" in signature.parameters:
                kwargs["by"] = actor
            return verb(session.acting(None), *args, **kwargs)

        return checked

    return mark


def need_role(session: Session, user_id: int | None, role: Role) -> None:
    """Check the present role of a user of this study; None is the product itself, or its terminal.

    Raises:
        CoplError: the user is no member of the study, or the role is too low.
    """
    if user_id is None:
        return
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
