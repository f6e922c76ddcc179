"""A user's embedding, neighbours, group and map position in a snapshot, by their present labels.

Numpy only and without training, so that it runs between two clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from copl_core.ids import rows_of
from copl_core.insight.membership import membership
from copl_core.preference.adapt import Placement, Prior, adapt
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, Label
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study.views import UserPosition
from copl_core.study_settings import LabelSummary
from copl_core.tags import Tags

_OUTCOME = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0, Choice.TIE: 0.5, Choice.BOTH_BAD: 0.5}


def comparisons(state: GraphState, labels: Sequence[Label | LabelSummary]) -> Comparisons:
    """The labels whose two responses the graph knows, with response rows of the state; the user column is 0."""
    sides = _sides(state, labels)
    keep = np.flatnonzero((sides >= 0).all(1))
    kept = [labels[i] for i in keep.tolist()]
    return Comparisons.build(
        user=np.zeros(len(keep)),
        left=sides[keep, 0],
        right=sides[keep, 1],
        outcome=[_OUTCOME[label.choice] for label in kept],
        both_bad=[label.choice == Choice.BOTH_BAD for label in kept],
        strength=[label.strength for label in kept],
        position_known=[label.position_known for label in kept],
    )


def tags(state: GraphState, labels: Sequence[Label]) -> Tags:
    """The tags of the labels that ``comparisons`` gives."""
    keep = np.flatnonzero((_sides(state, labels) >= 0).all(1))
    return Tags.of((row, labels[i].tags) for row, i in enumerate(keep.tolist()))


def _sides(state: GraphState, labels: Sequence[Label | LabelSummary]) -> np.ndarray:
    """Rows (N, 2) of the left and the right response of each label, −1 for one that the graph does not know."""
    ids = np.array([(label.left_id, label.right_id) for label in labels], np.int64).reshape(-1, 2)
    return rows_of(ids, state.response_ids)


def adapted(
    state: GraphState, labels: Sequence[Label | LabelSummary], prior: Prior | None = None, user_id: int | None = None
) -> Placement:
    """The embedding of a user by their labels alone; ``prior`` is ``Prior.of(state)``, which a snapshot keeps.

    The user's own trained row, which may rest on other labels, is not among the neighbours.
    """
    return adapt(state, comparisons(state, labels), prior=prior, exclude_user=user_id)


def vector(
    state: GraphState, user_id: int, labels: Sequence[Label], prior: Prior | None = None
) -> tuple[np.ndarray, str, Placement]:
    """(embedding (d,), source, placement) of a user.

    The embedding is the trained row if it was fitted to exactly these labels, else the one adapted to them.  A label
    that is new, taken back or changed, if only in strength, makes the trained row outdated.
    """
    placement = adapted(state, labels, prior, user_id)
    row = int(rows_of(np.array([user_id]), state.user_ids)[0])
    if labels and row >= 0 and _trained_on(state, row) == sorted(map(_label_key, labels)):
        return state.user_vectors[row], "trained", placement
    return placement.vector, placement.source, placement


def _label_key(label: Label) -> tuple[int, int, float, bool, float]:
    return (
        label.left_id,
        label.right_id,
        _OUTCOME[label.choice],
        label.choice == Choice.BOTH_BAD,
        float(label.strength),
    )


def _trained_on(state: GraphState, row: int) -> list[tuple[int, int, float, bool, float]]:
    """Sorted keys of the labels that a user's row was fitted to."""
    labels = state.labels.take(np.flatnonzero(state.labels.user == row))
    columns = (
        state.response_ids[labels.left],
        state.response_ids[labels.right],
        labels.outcome,
        labels.both_bad,
        labels.strength,
    )
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True, slots=True)
class _OnMap:
    """Where a user stands on a snapshot's map."""

    neighbours: tuple[tuple[int, float], ...]  # (user id, weight) of the ten heaviest on the map, heaviest first
    xy: tuple[float, float] | None
    group: int | None
    group_share: float


def group_in(snapshot: Snapshot, user_id: int, source: str, placement: Placement) -> int | None:
    """The group of a user of whom ``vector`` gave the source and the placement."""
    return _on_map(snapshot, user_id, source, placement).group


def position_in(snapshot: Snapshot, user_id: int, labels: Sequence[Label]) -> UserPosition:
    """The user's embedding, group and map position: their own where trained, else the mean of their neighbours."""
    state = snapshot.graph
    embedding, source, placement = vector(state, user_id, labels, snapshot.prior)
    place = _on_map(snapshot, user_id, source, placement)
    graph_row = int(rows_of(np.array([user_id]), state.user_ids)[0])
    probability = membership(state, snapshot.user_groups, comparisons(state, labels), own_row=graph_row)
    return UserPosition(
        user_id,
        embedding,
        source,
        len(labels),
        placement.n_neighbours,
        place.neighbours,
        placement.spread,
        place.xy,
        place.group,
        place.group_share,
        snapshot.version,
        0.0 if place.group is None else probability.get(place.group, 0.0),
        len(np.unique(snapshot.layout.group[snapshot.layout.group >= 0])),
    )


def _on_map(snapshot: Snapshot, user_id: int, source: str, placement: Placement) -> _OnMap:
    layout = snapshot.layout
    ids, weights = placement.user_ids, placement.weights
    rows = rows_of(ids, layout.user_ids)
    on_map = (rows >= 0) & (layout.group[rows] >= 0)
    rows, weights, ids = rows[on_map], weights[on_map], ids[on_map]
    xy: tuple[float, float] | None = None
    group, share = None, 0.0
    own = int(rows_of(np.array([user_id]), layout.user_ids)[0])
    if len(rows) and weights.sum() > 0:
        weights = weights / weights.sum()
        by_group = np.bincount(layout.group[rows], weights)
        group, share = int(by_group.argmax()), float(by_group.max())
        x, y = (weights @ layout.xy[rows]).tolist()
        xy = (x, y)
    if source == "trained" and own >= 0 and layout.group[own] >= 0:
        group = int(layout.group[own])
        x, y = layout.xy[own].tolist()
        xy = (x, y)
    heaviest = np.argsort(-weights, kind="stable")[:10]
    return _OnMap(tuple((int(ids[i]), float(weights[i])) for i in heaviest), xy, group, share)


def preferences(state: GraphState, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """P(user prefers the first response), (N, P), for user vectors (N, d) and pairs of response rows (P, 2)."""
    return expit(state.log_odds(vectors, rows[:, 0], rows[:, 1]))
