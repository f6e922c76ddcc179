"""The verbs of the Quality page: how good the labels are, and how well the model predicts a user's answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.insight.ceiling import Ceiling
from copl_core.insight.ceiling import ceiling as of_repeats
from copl_core.insight.collusion import alike
from copl_core.insight.quality import Share, agreement, figures
from copl_core.insight.skill import skills as fit_skills
from copl_core.records import Kind, User
from copl_core.study.roles import OWN, OWNER, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study.views import AlikePerson, PersonQuality, Prequential, QualityView
from copl_core.study_settings import CHECK_REASONS, AnswerTable, GoldPair, SelectionReason

CHECKS = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]


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
    key = _key(session)
    return session.once(f"quality, skill {skill}", key, lambda: _quality(session, key, skill))


@dataclass(frozen=True, slots=True)
class _Key:
    """What all figures of a study follow from; it changes with every answer, person and known answer."""

    revision: int
    answers: tuple[int, int, int]  # with those that raise no revision
    users: tuple[User, ...]
    gold: tuple[GoldPair, ...]
    models: bool  # whether language models train


def _key(session: Session) -> _Key:
    store, study = session.store, session.id
    return _Key(
        store.revision(study),
        store.answers_state(study),
        tuple(store.users(study)),
        tuple(store.gold(study)),
        session.record.include_models,
    )


def _answers(session: Session, key: _Key) -> AnswerTable:
    """Every answer that counts, read once for all figures: reading takes longer than any of them."""
    return session.once("answers", key, lambda: session.store.answers(session.id))


@needs(RESEARCHER)
def preferences(session: Session) -> AnswerTable:
    """The answers that the model learns from: no checks, and only of people who are included in training."""
    return _preferences(session, _key(session))


def _preferences(session: Session, key: _Key) -> AnswerTable:
    trained = [user.id for user in key.users if user.trained and (key.models or user.kind != Kind.MODEL)]
    answers = _answers(session, key)
    return answers.take(np.isin(answers.user, trained) & ~np.isin(answers.selection_reason, CHECKS))


def _quality(session: Session, key: _Key, skill: bool) -> QualityView:
    answers, users = _answers(session, key), {user.id: user for user in key.users}
    trusted = answers.take(~np.isin(answers.user, [user.id for user in users.values() if not user.trained]))
    skills = fit_skills(trusted) if skill else {}
    people = tuple(
        PersonQuality(users[row.user_id], row, skills.get(row.user_id))
        for row in figures(answers)
        if row.user_id in users
    )
    agreed = agreement(trusted, np.random.default_rng(0))
    return QualityView(agreed, people, len(answers), key.revision)


@needs(RESEARCHER)
def ceiling(session: Session) -> Ceiling | None:
    """The accuracy that the self-consistency of the people who train allows; None with too few repeated pairs."""
    key = _key(session)
    return session.once("ceiling", key, lambda: of_repeats(_preferences(session, key)))


@needs(OWNER)
def alike_people(session: Session) -> tuple[AlikePerson, ...]:
    """People whose answers follow those of others more exactly than people follow their own, the clearest first.

    Nobody is left out for it: of an account that copies and the one that it copies, the figures are the same.
    """
    key = _key(session)
    people = {user.id: user for user in key.users if user.kind == Kind.HUMAN and user.trained}

    def found() -> tuple[AlikePerson, ...]:
        answers = _preferences(session, key)
        return tuple(
            AlikePerson(people[one.user_id], one, tuple(people[other] for other in one.others))
            for one in alike(answers.take(np.isin(answers.user, list(people))))
        )

    return session.once("alike people", key, found)


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
