"""The verbs of the Quality page: how good the labels are, and how well the model predicts a user's answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from copl_core.insight.ceiling import Ceiling
from copl_core.insight.ceiling import ceiling as of_repeats
from copl_core.insight.collusion import alike
from copl_core.insight.quality import Share, agreement, figures
from copl_core.insight.skill import skills as fit_skills
from copl_core.records import CoplError, Kind, User
from copl_core.study import access
from copl_core.study.roles import OWN, OWNER, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study.views import AcceptedAlike, AlikePerson, PersonQuality, Prequential, QualityView
from copl_core.study_settings import CHECK_REASONS, AnswerTable, GoldPair, SelectionReason

MOST_READ = 300_000  # answers of a study that are all read for its figures; of a larger one, those of some people
MOST_USERS = 5_000  # in such a sample
MOST_LEFT_OUT = 500  # of the people who are left out, whose figures stand beside those of the sample
CHECKS = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]


@needs(RESEARCHER)
def answer_counts(session: Session) -> tuple[int, int]:
    """(users who answered, their answers that count): a quick count, where ``quality`` reads every answer."""
    return session.store.answer_counts(session.id)


@needs(RESEARCHER)
def quality(session: Session, *, skill: bool = False, also: tuple[int, ...] = ()) -> QualityView:
    """Agreement between users, and the figures of each; computed once and cached until something of it changes.

    A study of more than ``MOST_READ`` answers is not read whole: the figures are those of users and of pairs drawn at
    random, always the same ones, and of those who are left out.

    Args:
        skill: fit noisy Bradley–Terry too, which takes seconds on many answers.
        also: users who are among the people of the view in any case.
    """
    key = _key(session)
    return session.once(f"quality, skill {skill}", (key, also), lambda: _quality(session, key, skill, also))


@dataclass(frozen=True, slots=True)
class _Key:
    """What all figures of a study follow from; it changes with every answer, decision about a person and known answer.

    A change of role changes no figure, and a new user has none.
    """

    answers: tuple[int, int]  # revision, and changes that raise none
    gold: tuple[GoldPair, ...]
    models: bool  # whether language models train


@dataclass(frozen=True, slots=True)
class _Read:
    """The answers that the figures of people come from."""

    answers: AnswerTable
    users: dict[int, User]  # of these answers
    drawn: int | None  # users drawn at random; None: everybody


def _key(session: Session) -> _Key:
    store, study = session.store, session.id
    return _Key(store.answers_state(study), tuple(store.gold(study)), session.record.include_models)


def _counts(session: Session, key: _Key) -> tuple[int, int]:
    return session.once("answer counts", key, lambda: session.store.answer_counts(session.id))


def _answers(session: Session, key: _Key, also: tuple[int, ...] = ()) -> _Read:
    """The answers that count, read once for all figures: reading takes longer than any of them."""
    return session.once("answers", (key, also), lambda: _read(session, key, also))


def _read(session: Session, key: _Key, also: tuple[int, ...]) -> _Read:
    store, (_, n) = session.store, _counts(session, key)
    if n <= MOST_READ:
        answers = store.answers(session.id)
        return _Read(answers, {user.id: user for user in store.users(session.id)}, None)
    drawn = store.some_users(session.id, MOST_READ / (2 * n))[:MOST_USERS]
    beside = [*store.left_out(session.id)[-MOST_LEFT_OUT:], *also]
    chosen = sorted({*drawn, *beside})
    users = {user.id: user for user in store.users(session.id, ids=chosen)}
    return _Read(store.answers(session.id, users=chosen), users, len(drawn))


@needs(RESEARCHER)
def preferences(session: Session) -> AnswerTable:
    """The answers that the model learns from: no checks, and only of people who are included in training; in a large
    study, those of some people.
    """
    return _preferences(_answers(session, key := _key(session)), key)


def _preferences(found: _Read, key: _Key) -> AnswerTable:
    trained = [user.id for user in found.users.values() if user.trained and (key.models or user.kind != Kind.MODEL)]
    answers = found.answers
    return answers.take(np.isin(answers.user, trained) & ~np.isin(answers.selection_reason, CHECKS))


def _quality(session: Session, key: _Key, skill: bool, also: tuple[int, ...]) -> QualityView:
    found = _answers(session, key, also)
    trusted = _trusted(found.answers, session)
    skills = fit_skills(trusted) if skill else {}
    people = tuple(
        PersonQuality(found.users[row.user_id], row, skills.get(row.user_id))
        for row in figures(found.answers)
        if row.user_id in found.users
    )
    about_pairs = trusted if found.drawn is None else _trusted(_of_some_pairs(session, key), session)
    n_users, n_answers = _counts(session, key)
    agreed = agreement(about_pairs, np.random.default_rng(0))
    return QualityView(agreed, people, n_users, n_answers, found.drawn, key.answers[0])


def _trusted(answers: AnswerTable, session: Session) -> AnswerTable:
    return answers.take(~np.isin(answers.user, session.store.left_out(session.id)))


def _of_some_pairs(session: Session, key: _Key) -> AnswerTable:
    """All answers about pairs drawn at random: agreement needs everybody who answered a pair."""
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)[:, 0]
    most = min(MOST_USERS, max(1, MOST_READ * len(pairs) // (4 * max(1, _counts(session, key)[1]))))
    chosen = np.random.default_rng(0).choice(pairs, min(most, len(pairs)), replace=False)
    return session.store.answers(session.id, pairs=np.sort(chosen).tolist())


@needs(RESEARCHER)
def ceiling(session: Session) -> Ceiling | None:
    """The accuracy that the self-consistency of the people who train allows; None with too few repeated pairs."""
    key = _key(session)
    return session.once("ceiling", key, lambda: of_repeats(_preferences(_answers(session, key), key)))


@needs(OWNER)
def alike_people(session: Session) -> tuple[AlikePerson, ...]:
    """People whose answers follow those of others more exactly than people follow their own, the clearest first.

    Nobody is left out for it: of an account that copies and the one that it copies, the figures are the same.  Those
    whom an owner has accepted come back once the answers of another account are like theirs.
    """
    key = _key(session)

    def found() -> tuple[AlikePerson, ...]:
        read = _answers(session, key)
        people = {user.id: user for user in read.users.values() if user.kind == Kind.HUMAN and user.trained}
        answers = _preferences(read, key)
        return tuple(
            AlikePerson(people[one.user_id], one, tuple(people[other] for other in one.others))
            for one in alike(answers.take(np.isin(answers.user, list(people))))
        )

    people = session.once("alike people", key, found)
    accepted = session.store.accepted_alike(session.id) if people else []
    return tuple(one for one in people if not any(one.accounts <= known for known in accepted))


@needs(OWNER)
def accept_alike(session: Session, user_id: int, *, by: int | None = None) -> None:
    """Name somebody, and those whose answers are most like theirs, no more, until another account is among them.

    Raises:
        CoplError: the answers of this user are not, or no longer, more alike than taste explains.
    """
    named = next((one for one in alike_people(session) if one.user.id == user_id), None)
    if named is None:
        raise CoplError("Their answers are not among those that are too much alike any more; load the page again.")
    session.store.accept_alike(session.id, sorted(named.accounts), by=by)


@needs(OWNER)
def accepted_alike(session: Session) -> tuple[AcceptedAlike, ...]:
    """The accounts that owners have accepted as alike, those that were accepted last first."""
    sets = session.store.accepted_alike(session.id)[::-1]
    users = access.users_of(session, {one for accounts in sets for one in accounts})
    found = [sorted((users[one] for one in own if one in users), key=lambda user: user.name) for own in sets]
    return tuple(AcceptedAlike(tuple(named), own) for named, own in zip(found, sets, strict=True) if named)


@needs(OWNER)
def end_alike(session: Session, accounts: Collection[int], *, by: int | None = None) -> None:
    """Take back that accounts are accepted as alike: they are named again, where they still are.

    Raises:
        CoplError: they are not accepted, or not any more.
    """
    if not session.store.end_alike(session.id, accounts, by=by):
        raise CoplError("These accounts are not accepted as alike any more; load the page again.")


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
