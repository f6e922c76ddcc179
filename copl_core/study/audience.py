"""The users whose rewards are computed, as rows of user vectors: users, posterior draws, neighbours and groups.

Tables stand side by side, because the preference graph and the text rewards come from different fits: row i of each
is the same user.  Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from copl_core.ids import rows_of
from copl_core.preference.adapt import Placement, Prior, label_weights
from copl_core.preference.posterior import draws
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, Label, User
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import placement
from copl_core.tags import Tags
from copl_core.training.split import DRAW, pair_draw, split_of_study

GROUP_SAMPLE = 400  # members that stand for a group; more change its mean by less than its uncertainty
DRAWS = 200  # of a user's vector, for the interval
NEAR = 40  # most similar users included for each user
_NOBODY = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class UserRows:
    """The rows of one user: their own, draws of it, and those of their neighbours."""

    user: User
    source: str
    group: int | None
    own: int
    drawn: slice
    neighbours: slice
    weights: np.ndarray  # (neighbours,), sum to 1


class Audience:
    """Vectors of all users and groups of one request.

    Args:
        users: with the labels that place them.
        groups: True for all groups of the map, False for none, or the numbers of some.
        with_uncertainty: add posterior draws and neighbours of each user.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        users: Sequence[tuple[User, list[Label]]],
        groups: bool | Sequence[int],
        with_uncertainty: bool = True,
    ) -> None:
        self.snapshot, self.with_uncertainty = snapshot, with_uncertainty
        self.graph = snapshot.graph
        self.gate_graph = snapshot.reward_graph if snapshot.has_reward else self.graph
        self.gate_prior = snapshot.reward_prior if snapshot.has_reward else snapshot.prior
        self._draw = (snapshot.manifest.get("reward") or {}).get("draw", "")
        self._graph_rows: list[np.ndarray] = [np.zeros((0, self.graph.user_vectors.shape[1]), np.float32)]
        self._gate_rows: list[np.ndarray] = [np.zeros((0, self.gate_graph.user_vectors.shape[1]), np.float32)]
        has_say = snapshot.linear is not None and (snapshot.mix.linear or snapshot.mix.linear_new)
        self.linear = snapshot.linear if has_say else None
        self._text_rows: list[np.ndarray] = []  # weights of the linear text reward
        self._end = 0
        self.users = [self._user_rows(user, labels) for user, labels in users]
        members = members_of(snapshot, self.gate_graph, groups)
        # as on every other page: with those who came after the last fit of the reward model
        self.sizes = {group: int((snapshot.user_groups == group).sum()) for group in members}
        self.groups = {group: self._known(_sample(ids)) for group, ids in members.items()}
        self.vectors = np.concatenate(self._graph_rows).astype(np.float32)  # (N, d)
        self.gate_vectors = np.concatenate(self._gate_rows).astype(np.float32)  # (N, d of the gate)
        self.text_weights = np.concatenate(self._text_rows) if self._text_rows else None  # (N, p), None: no linear part

    def _user_rows(self, user: User, labels: list[Label]) -> UserRows:
        vector, source, adapted = placement.vector(self.graph, user.id, labels, self.snapshot.prior)
        gate_vector, learned = _gate_vector(self.gate_graph, user.id, labels, self.gate_prior, self._draw)
        theirs = placement.comparisons(self.gate_graph, learned)
        reads_tags = self.linear is not None and self.linear.read is not None
        tags = placement.tags(self.gate_graph, learned) if reads_tags else None
        own = self._add(vector[None], gate_vector[None], self._text_weights(gate_vector, theirs, tags)).start
        group = placement.group_in(self.snapshot, user.id, source, adapted)
        if not self.with_uncertainty:
            return UserRows(user, source, group, own, self._known(_NOBODY), self._known(_NOBODY), np.zeros(0))
        drawn = self._add(
            draws(self.graph, self.snapshot.prior, placement.comparisons(self.graph, labels), vector, DRAWS),
            draws(self.gate_graph, self.gate_prior, theirs, gate_vector, DRAWS, seed=1),
            self._text_weights(gate_vector, theirs, tags, DRAWS),
        )
        ids, weights = _nearest(adapted, self.gate_graph)
        return UserRows(user, source, group, own, drawn, self._known(ids), weights)

    def _known(self, ids: np.ndarray) -> slice:
        """Rows of users whom both states know."""
        rows = rows_of(ids, self.gate_graph.user_ids)
        vectors, text = self.gate_graph.user_vectors[rows], None
        if self.linear is not None:
            text = self.linear.of_fit(rows, vectors, self.gate_graph.labels, self._label_weights)
        return self._add(self.graph.user_vectors[rows_of(ids, self.graph.user_ids)], vectors, text)

    def _text_weights(
        self, vector: np.ndarray, labels: Comparisons, tags: Tags | None, count: int = 0
    ) -> np.ndarray | None:
        """A user's weights in the linear text reward (1, p), or ``count`` draws of them (count, p)."""
        if self.linear is None:
            return None
        weight = label_weights(self.gate_graph, labels)
        if count:
            return self.linear.draws(vector, labels, weight, count, seed=2, tags=tags)
        return self.linear.of_labels(vector, labels, weight, tags)[None]

    @cached_property
    def _label_weights(self) -> np.ndarray:
        return label_weights(self.gate_graph, self.gate_graph.labels)

    def _add(self, graph_rows: np.ndarray, gate_rows: np.ndarray, text_rows: np.ndarray | None) -> slice:
        self._graph_rows.append(graph_rows)
        self._gate_rows.append(gate_rows)
        if text_rows is not None:
            self._text_rows.append(text_rows)
        start, self._end = self._end, self._end + len(graph_rows)
        return slice(start, self._end)


def _gate_vector(
    state: GraphState, user_id: int, labels: list[Label], prior: Prior, draw: str
) -> tuple[np.ndarray, list[Label]]:
    """(the vector that the gate reads (d,), the labels behind it).

    It is the vector of the gate's own fit while the labels of that fit are unchanged, else one adapted to all labels.
    ``draw`` says how the fit held labels out; empty for snapshots of earlier versions.
    """
    described = (
        np.full(len(labels), user_id),
        np.array([label.left_id for label in labels], np.int64),
        np.array([label.right_id for label in labels], np.int64),
        np.array([label.preferred_id is not None for label in labels], bool),
        len(state.response_ids),
    )
    mask = split_of_study(*described)[0] if draw == DRAW else pair_draw(*described)
    learned = [label for label, is_learned in zip(labels, mask, strict=True) if is_learned]
    vector, source, _ = placement.vector(state, user_id, learned, prior)
    return (
        (vector, learned) if source == "trained" else (placement.adapted(state, labels, prior, user_id).vector, labels)
    )


def _nearest(adapted: Placement, gate_graph: GraphState) -> tuple[np.ndarray, np.ndarray]:
    """(ids, weights that sum to 1) of the most similar other users, by their answers."""
    usable = np.flatnonzero(np.isin(adapted.user_ids, gate_graph.user_ids))[:NEAR]
    weights = adapted.weights[usable]
    return adapted.user_ids[usable], weights / weights.sum() if weights.sum() > 0 else weights


def members_of(snapshot: Snapshot, gate_graph: GraphState, groups: bool | Sequence[int]) -> dict[int, np.ndarray]:
    """Group → ids of users that both graph states know."""
    state, own = snapshot.graph, snapshot.user_groups
    numbers = np.unique(own[own >= 0]).tolist()
    if groups is not True:
        numbers = [group for group in numbers if group in (groups or ())]
    common = np.isin(state.user_ids, gate_graph.user_ids)
    members = {}
    for group in numbers:
        ids = state.user_ids[(own == group) & common]
        if len(ids):
            members[group] = ids
    return members


def _sample(ids: np.ndarray) -> np.ndarray:
    """``GROUP_SAMPLE`` ids at most, evenly spread."""
    return ids[np.linspace(0, len(ids) - 1, min(len(ids), GROUP_SAMPLE)).astype(int)]
