"""The verbs of the quarantine, on the Quality page: who is left out until an owner decides, and the decision."""

from __future__ import annotations

from dataclasses import replace

from copl_core.insight.evidence import present
from copl_core.records import Quarantine, User
from copl_core.study import label_quality
from copl_core.study.roles import OWNER, RESEARCHER, member, needs
from copl_core.study.session import Session


@needs(RESEARCHER)
def waiting(session: Session) -> list[Quarantine]:
    """Those who are left out until an owner decides, with the figures of now, the newest first."""
    found = [one for one in session.store.quarantines(session.id) if one.user.quarantined]
    if not found:
        return []
    figures = {person.user.id: person.figures for person in label_quality.quality(session).people}
    return [
        replace(one, grounds=tuple(present(ground, figures[one.user.id]) for ground in one.grounds))
        if one.user.id in figures
        else one
        for one in found
    ]


@needs(RESEARCHER)
def n_waiting(session: Session) -> int:
    """How many are left out until an owner decides."""
    return sum(one.user.quarantined for one in session.store.quarantines(session.id))


@needs(RESEARCHER)
def decided(session: Session) -> list[Quarantine]:
    """Those who were left out once and about whom it is decided, the newest first."""
    return [one for one in session.store.quarantines(session.id) if not one.user.quarantined]


@needs(OWNER)
def decide(session: Session, user_id: int, count: bool, *, by: int | None = None) -> User:
    """Count a person's labels for good, or leave them out of training and votes.

    Raises:
        CoplError: the person does not wait for a decision.
    """
    member(session, user_id)
    return session.store.decide_quarantine(user_id, count, by=by)
