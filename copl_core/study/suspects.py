"""The verbs of "Would you look at this again?", on the Quality page and on My taste: labels that may be wrong.

They are questions and never flags: no figure of a person counts them, and they never concern people whom the model
does not predict better than chance.  Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from copl_core.ids import rows_of
from copl_core.insight.suspects import Strengths, label_strengths, predicted, suspects, well_known
from copl_core.records import Comparisons, Label, Response, TrainingData, User
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study.placement import comparisons
from copl_core.study.roles import OWN, RESEARCHER, needs
from copl_core.study.session import Session

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
    key = (session.store.revision(session.id), tuple(session.store.users(session.id)))
    return session.once(f"suspect labels of {snapshot.version}", key, lambda: _suspect_labels(session, snapshot))


@needs(OWN)
def own_suspects(session: Session, user_id: int) -> tuple[SuspectLabel, ...]:
    """The user's own labels that are most likely wrong, at most three; an answer that was changed once is not listed.

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
    rows = [row for row in suspects(strengths).tolist() if labels[row].edited_at is None]
    return _described(session, [(labels[row], float(strengths.mean[row])) for row in rows[:MOST_OWN]])


def _suspect_labels(session: Session, snapshot: Snapshot) -> SuspectView:
    data = session.store.training_data(session.id)
    row = rows_of(data.response_ids, snapshot.graph.response_ids)
    labels = data.labels.take((row[data.labels.left] >= 0) & (row[data.labels.right] >= 0))
    compared = replace(labels, left=row[labels.left], right=row[labels.right])
    strengths = label_strengths(snapshot.graph, snapshot.learned_prior, compared)
    shares = {user: share for user, share in predicted(strengths, labels.user).items() if well_known(share)}
    rows = suspects(strengths)
    rows = rows[np.isin(labels.user[rows], list(shares))]
    found = _stored(session, data, labels.take(rows[:MOST]), Strengths(strengths.members[:, rows[:MOST]]))
    return SuspectView(
        _described(session, found), len(rows), sum(share.n for share in shares.values()), len(shares), snapshot.version
    )


def _stored(
    session: Session, data: TrainingData, labels: Comparisons, strengths: Strengths
) -> list[tuple[Label, float]]:
    """The stored label of each row of ``labels``, with its mean strength; those that were changed once are left out."""
    found: dict[int, tuple[Label, float]] = {}
    for row, mean in enumerate(strengths.mean.tolist()):
        sides = (int(data.response_ids[labels.left[row]]), int(data.response_ids[labels.right[row]]))
        key = (*sides, sides[0] if labels.outcome[row] > 0.5 else sides[1])
        for label in session.store.labels(session.id, user_id=int(data.user_ids[labels.user[row]])):
            same = (label.left_id, label.right_id, label.preferred_id) == key
            if same and label.edited_at is None and label.id not in found:
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
