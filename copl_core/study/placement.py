"""Where a user stands in a snapshot by the labels of this moment: embedding, neighbours, group and spot on the map.

Numpy only and without training, so that it can run between two clicks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from copl_core.ids import rows_of
from copl_core.preference.adapt import Placement, Prior, adapt
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, Label
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study.views import UserPosition

_OUTCOME = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0, Choice.TIE: 0.5, Choice.BOTH_BAD: 0.5}


def comparisons(state: GraphState, labels: Sequence[Label]) -> Comparisons:
    """The labels whose two responses the graph knows, with response rows of the state; the user column is 0."""
    sides = rows_of(
        np.array([(label.left_id, label.right_id) for label in labels], np.int64).reshape(-1, 2), state.response_ids
    )
    keep = np.flatnonzero((sides >= 0).all(1))
    return Comparisons.build(
        user=np.zeros(len(keep)),
        left=sides[keep, 0],
        right=sides[keep, 1],
        outcome=[_OUTCOME[labels[i].choice] for i in keep],
        both_bad=[labels[i].choice == Choice.BOTH_BAD for i in keep],
        strength=[labels[i].strength for i in keep],
    )


def adapted(
    state: GraphState, labels: Sequence[Label], prior: Prior | None = None, user_id: int | None = None
) -> Placement:
    """The user's place by their labels alone; ``prior`` is ``Prior.of(state)``, which a snapshot keeps.

    The row that was trained for them, of labels that may be others by now, is not among their neighbours.
    """
    return adapt(state, comparisons(state, labels), prior=prior, besides=user_id)


def vector(
    state: GraphState, user_id: int, labels: Sequence[Label], prior: Prior | None = None
) -> tuple[np.ndarray, str, Placement]:
    """(embedding (d,), source, placement): the trained row while it was fitted to these very labels, else the place
    by the labels alone.  A label that was given, taken back or changed since, if only in strength, makes the row an old
    one.
    """
    placement = adapted(state, labels, prior, user_id)
    row = int(rows_of(np.array([user_id]), state.user_ids)[0])
    if labels and row >= 0 and _learned(state, row) == sorted(map(_said, labels)):
        return state.user_vectors[row], "trained", placement
    return placement.vector, placement.source, placement


def _said(label: Label) -> tuple[int, int, float, bool, float]:
    return (
        label.left_id,
        label.right_id,
        _OUTCOME[label.choice],
        label.choice == Choice.BOTH_BAD,
        float(label.strength),
    )


def _learned(state: GraphState, row: int) -> list[tuple[int, int, float, bool, float]]:
    """What the labels say that a user's row was fitted to, in order."""
    labels = state.labels.take(np.flatnonzero(state.labels.user == row))
    columns = (
        state.response_ids[labels.left],
        state.response_ids[labels.right],
        labels.outcome,
        labels.both_bad,
        labels.strength,
    )
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def position_in(snapshot: Snapshot, user_id: int, labels: Sequence[Label]) -> UserPosition:
    """The user's place with a spot on the map and a group: their own where trained, else their neighbours' middle."""
    state, layout = snapshot.graph, snapshot.layout
    embedding, source, placement = vector(state, user_id, labels, snapshot.prior)
    ids, weights = placement.user_ids, placement.weights
    rows = rows_of(ids, layout.user_ids)
    on_map = (rows >= 0) & (layout.group[rows] >= 0)
    rows, weights, ids = rows[on_map], weights[on_map], ids[on_map]
    xy, group, share = None, None, 0.0
    own = int(rows_of(np.array([user_id]), layout.user_ids)[0])
    if len(rows) and weights.sum() > 0:
        weights = weights / weights.sum()
        by_group = np.bincount(layout.group[rows], weights)
        group, share = int(by_group.argmax()), float(by_group.max())
        xy = tuple((weights @ layout.xy[rows]).tolist())
    if source == "trained" and own >= 0 and layout.group[own] >= 0:
        group, xy = int(layout.group[own]), tuple(layout.xy[own].tolist())
    heaviest = np.argsort(-weights, kind="stable")[:10]
    return UserPosition(
        user_id,
        embedding,
        source,
        len(labels),
        placement.n_neighbours,
        tuple((int(ids[i]), float(weights[i])) for i in heaviest),
        placement.spread,
        xy,
        group,
        share,
        snapshot.version,
    )


def preferences(state: GraphState, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """P(user prefers the first response), (N, P), for user vectors (N, d) and pairs of response rows (P, 2)."""
    apart = state.response_vectors[rows[:, 0]] - state.response_vectors[rows[:, 1]]  # (P, d)
    bias = state.response_bias[rows[:, 0]] - state.response_bias[rows[:, 1]]
    return 1 / (1 + np.exp(-np.clip((vectors @ apart.T + bias) / state.temperature, -60, 60)))
