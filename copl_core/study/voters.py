"""How many people answered each pair: of the labels of now, or in a very large study of those of a snapshot."""

from __future__ import annotations

import numpy as np

from copl_core.ids import rows_of
from copl_core.preference.state import GraphState
from copl_core.study.session import Session

MOST_COUNTED = 300_000  # labels of a study whose people are counted by pair as they are now


def are_of_snapshot(session: Session) -> bool:
    """Whether the study has so many labels that people are counted in the snapshot's."""
    return session.store.label_count(session.id) > MOST_COUNTED


def voters_of(session: Session, pairs: np.ndarray) -> np.ndarray:
    """People who answered each pair (P,), of pairs (P, 3 or more) that begin with id, first and second response."""
    snapshot = session.snapshot() if are_of_snapshot(session) else None
    if snapshot is not None:
        name, key = f"voters of {snapshot.version}", pairs[:, :3].tobytes()
        return session.once(name, key, lambda: of_labels(snapshot.graph, pairs))
    counts = session.store.vote_counts(session.id)
    return np.array([counts.get(pair, 0) for pair in pairs[:, 0].tolist()], np.int64)


def of_labels(state: GraphState, pairs: np.ndarray) -> np.ndarray:
    """The same in the labels of a graph: each person counts once for a pair, however often they answered it."""
    n, labels = len(state.response_ids), state.labels
    known = np.sort(rows_of(pairs[:, 1:3], state.response_ids), axis=1) @ np.array([n, 1])
    order = np.argsort(known, kind="stable")
    answered = np.minimum(labels.left, labels.right) * n + np.maximum(labels.left, labels.right)
    at = np.minimum(np.searchsorted(known[order], answered), max(0, len(order) - 1))
    if not len(order):
        return np.zeros(0, np.int64)
    found = known[order][at] == answered
    who = order[at[found]] * len(state.user_ids) + labels.user[found]
    who.sort()  # ``np.unique`` takes ten times as long
    who = who[np.append(True, who[1:] != who[:-1])[: len(who)]]
    return np.bincount(who // len(state.user_ids), minlength=len(pairs))
