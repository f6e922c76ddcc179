"""The verbs of "Would you look at this again?", on the Quality page and on My taste: labels that may be wrong.

They are questions and never flags: no figure of a person counts them, and they never concern people whom the model
does not predict better than chance.  Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from copl_core.ids import rows_of
from copl_core.insight.suspects import label_strengths, predicted, suspects, well_known
from copl_core.records import Choice, Comparisons, Label, Response, User
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study.label_quality import preferences
from copl_core.study.placement import comparisons
from copl_core.study.roles import OWN, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study_settings import AnswerTable

_OUTCOME = np.array([{Choice.LEFT: 1.0, Choice.RIGHT: 0.0}.get(choice, 0.5) for choice in Choice])
_BOTH_BAD = np.array([choice == Choice.BOTH_BAD for choice in Choice])
MOST = 10  # suspect labels of a study that are listed
MOST_OWN = 3  # that are shown to their person at once


@dataclass(frozen=True, slots=True)
class SuspectLabel:
    """A label against which all members of the graph's ensemble vote, by the same user's other labels."""

    user: User
    label: Label
    prompt: str
    preferred: Response
    other: Response
    expected: float  # probability that the user prefers ``other``


@dataclass(frozen=True, slots=True)
class SuspectView:
    """The most suspect labels of a study, and the labels among which they were looked for."""

    items: tuple[SuspectLabel, ...]
    n_suspect: int  # listed or not
    n_labels: int  # decided labels of the people whom the model predicts well
    n_users: int  # these people
    snapshot: str


@needs(RESEARCHER)
def suspect_labels(session: Session) -> SuspectView | None:
    """The labels of the study that are most likely wrong, the most suspect first; None before the first snapshot."""
    snapshot = session.snapshot()
    if snapshot is None:
        return None
    key = (session.store.answers_state(session.id), session.record.include_models)
    found = session.once(f"suspect labels of {snapshot.version}", key, lambda: _suspect_answers(session, snapshot))
    settled = frozenset(session.store.settled_labels(session.id))
    return session.once(
        f"open suspect labels of {snapshot.version}",
        (*key, settled),
        lambda: _suspect_view(session, found, settled, snapshot.version),
    )


@needs(OWN)
def own_suspects(session: Session, user_id: int) -> tuple[SuspectLabel, ...]:
    """The user's own labels that are most likely wrong, at most three, without answers that they confirmed or gave in
    place of another.

    Empty before the first snapshot, and where the model does not predict the user's labels better than chance.
    """
    snapshot = session.snapshot()
    if snapshot is None:
        return ()
    labels = session.store.labels(session.id, user_id=user_id)
    sides = np.array([(label.left_id, label.right_id) for label in labels], np.int64).reshape(-1, 2)
    known = (rows_of(sides, snapshot.graph.response_ids) >= 0).all(1)
    labels = [labels[row] for row in np.flatnonzero(known).tolist()]
    compared = comparisons(snapshot.graph, labels)
    strengths = label_strengths(snapshot.graph, snapshot.learned_prior, compared)
    if not any(map(well_known, predicted(strengths, compared.user).values())):
        return ()
    settled = {(one.pair_id, one.preferred_id) for one in labels if one.edited_at or one.confirmed_at}
    rows = [
        row for row in suspects(strengths).tolist() if (labels[row].pair_id, labels[row].preferred_id) not in settled
    ]
    return _described(session, [(labels[row], float(strengths.mean[row])) for row in rows[:MOST_OWN]])


@needs(OWN)
def confirm(session: Session, label_id: int, user_id: int) -> Label:
    """Store that a label of the user's own is right: it is not suggested again, and its pair with the same answer
    neither.  The answer stays as it is, and so does the model.

    Raises:
        CoplError: the label is not this user's, or does not count.
    """
    return session.store.confirm(label_id, user_id)


def _suspect_view(
    session: Session, found: _SuspectAnswers, settled: frozenset[tuple[int, int, int]], version: str
) -> SuspectView:
    """The suspect answers that their people have not settled, the first of them with their texts."""
    still = np.array([row for row, one in enumerate(_preferred(found.answers)) if one not in settled], np.int64)
    shown = _stored(session, found.answers.take(still[:MOST]), found.mean[still[:MOST]])
    return SuspectView(_described(session, shown), len(still), found.n_labels, found.n_users, version)


@dataclass(frozen=True, slots=True)
class _SuspectAnswers:
    """The answers of a study that are likely wrong, the most suspect first, settled or not."""

    answers: AnswerTable
    mean: np.ndarray  # (N,) mean strength
    n_labels: int  # as in ``SuspectView``
    n_users: int


def _suspect_answers(session: Session, snapshot: Snapshot) -> _SuspectAnswers:
    answers = preferences(session)
    sides = rows_of(np.stack([answers.left, answers.right], 1), snapshot.graph.response_ids)
    known = np.all(sides >= 0, axis=1)
    answers = answers.take(known)
    strengths = label_strengths(snapshot.graph, snapshot.learned_prior, _compared(answers, *sides[known].T))
    shares = {user: share for user, share in predicted(strengths, answers.user).items() if well_known(share)}
    rows = suspects(strengths)
    rows = rows[np.isin(answers.user[rows], list(shares))]
    n_labels = sum(share.n for share in shares.values())
    return _SuspectAnswers(answers.take(rows), strengths.mean[rows], n_labels, len(shares))


def _preferred(answers: AnswerTable) -> list[tuple[int, int, int]]:
    """(user, pair, preferred response) of decided answers."""
    preferred = np.where(_OUTCOME[answers.choice] > 0.5, answers.left, answers.right)
    return list(zip(answers.user.tolist(), answers.pair.tolist(), preferred.tolist(), strict=True))


def _compared(answers: AnswerTable, left: np.ndarray, right: np.ndarray) -> Comparisons:
    """The answers as labels of responses by row (N,); the user column holds ids."""
    return Comparisons.build(
        answers.user,
        left,
        right,
        _OUTCOME[answers.choice],
        _BOTH_BAD[answers.choice],
        answers.strength,
        answers.position_known,
    )


def _stored(session: Session, answers: AnswerTable, strength: np.ndarray) -> list[tuple[Label, float]]:
    """The stored label of each decided answer, with its mean strength."""
    found: dict[int, tuple[Label, float]] = {}
    keys = zip(answers.left.tolist(), _preferred(answers), strict=True)
    for (left, (user, pair, preferred)), mean in zip(keys, strength.tolist(), strict=True):
        for label in session.store.labels(session.id, user_id=user, pair_id=pair):
            if (label.left_id, label.preferred_id) == (left, preferred) and label.id not in found:
                found[label.id] = (label, mean)
                break
    return list(found.values())


def _described(session: Session, found: list[tuple[Label, float]]) -> tuple[SuspectLabel, ...]:
    """The labels with their people and texts."""
    texts = session.store.responses(sorted({side for label, _ in found for side in (label.left_id, label.right_id)}))
    prompts = dict(session.store.prompts(session.id)) if found else {}
    return tuple(
        SuspectLabel(
            session.store.user(label.user_id),
            label,
            prompts[label.prompt_id],
            texts[label.left_id if label.preferred_id == label.left_id else label.right_id],
            texts[label.right_id if label.preferred_id == label.left_id else label.left_id],
            float(expit(-mean)),
        )
        for label, mean in found
    )
