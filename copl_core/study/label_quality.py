"""The verbs of the Quality page: how good the labels are, and how well the model predicts a user's answers."""

from __future__ import annotations

import numpy as np

from copl_core.insight.ceiling import Ceiling
from copl_core.insight.ceiling import ceiling as of_repeats
from copl_core.insight.quality import Share, agreement, figures
from copl_core.insight.skill import skills as fit_skills
from copl_core.records import Kind
from copl_core.study.roles import OWN, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study.views import PersonQuality, Prequential, QualityView


@needs(RESEARCHER)
def answer_counts(session: Session) -> tuple[int, int]:
    """(users who answered, their answers that count): a quick count, where ``quality`` reads every answer."""
    return session.store.answer_counts(session.id)


@needs(RESEARCHER)
def quality(session: Session, *, skill: bool = False) -> QualityView:
    """Agreement between users, and the figures of each; computed once and cached until something of it changes.

    Args:
        skill: fit noisy Bradley–Terry too, which takes seconds on many answers.
    """
    store, study = session.store, session.id
    # Answers to gold pairs raise no revision, so they are counted; nor does a new known answer.
    key = (store.revision(study), store.answer_counts(study), tuple(store.users(study)), tuple(store.gold(study)))
    return session.once(f"quality, skill {skill}", key, lambda: _quality(session, skill))


def _quality(session: Session, skill: bool) -> QualityView:
    answers = session.store.answers(session.id)
    users = {user.id: user for user in session.store.users(session.id)}
    trusted = answers.take(~np.isin(answers.user, [user.id for user in users.values() if user.excluded]))
    skills = fit_skills(trusted) if skill else {}
    people = tuple(
        PersonQuality(users[row.user_id], row, skills.get(row.user_id))
        for row in figures(answers)
        if row.user_id in users
    )
    agreed = agreement(trusted, np.random.default_rng(0))
    return QualityView(agreed, people, len(answers), session.store.revision(session.id))


@needs(RESEARCHER)
def ceiling(session: Session) -> Ceiling | None:
    """The accuracy that the self-consistency of the people who train allows; None with too few repeated pairs."""
    store, study = session.store, session.id
    key = (store.revision(study), store.answer_counts(study), tuple(store.users(study)))
    return session.once("ceiling", key, lambda: _ceiling(session))


def _ceiling(session: Session) -> Ceiling | None:
    record = session.record
    trained = [
        user.id
        for user in session.store.users(session.id)
        if not user.excluded and (record.include_models or user.kind != Kind.MODEL)
    ]
    answers = session.store.answers(session.id)
    return of_repeats(answers.take(np.isin(answers.user, trained)))


@needs(OWN)
def prequential(session: Session, user_id: int, last: int = 50) -> Prequential:
    """How well the model, and the majority of the others, predicted the user's last decided labels.

    Only pairs chosen without the model count.  Each prediction is stored when the pair is shown, before the answer, so
    the answer cannot leak into it.
    """
    rows = session.store.prediction_records(user_id, last=last)
    model = [(row.prediction.left > 0.5) == row.left for row in rows]
    crowd = [(row.prediction.crowd > 0.5) == row.left for row in rows]
    differ = [mine for mine, theirs in zip(model, crowd, strict=True) if mine != theirs]
    versions = tuple(dict.fromkeys(row.prediction.snapshot for row in rows))
    return Prequential(
        Share(sum(model), len(rows)),
        Share(sum(crowd), len(rows)),
        Share(sum(differ), len(differ)),
        versions,
        tuple(rows),
    )
