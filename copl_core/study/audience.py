"""Who is asked about some texts, as rows of user vectors: people, what their labels leave open, those near, groups.

Two tables stand side by side, since the preference graph and the gate of the reward model are of different fits: row i
of both is the same person.  Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from copl_core.ids import rows_of
from copl_core.preference.adapt import Placement, Prior
from copl_core.preference.posterior import draws
from copl_core.preference.state import GraphState
from copl_core.records import Label, User
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import placement
from copl_core.training.split import kept_apart

GROUP_SAMPLE = 400  # members whose judgements stand for a group; more change the mean by less than its uncertainty
DRAWS = 200  # of a person's vector, for the interval
NEAR = 40  # people near somebody who are asked too


@dataclass(frozen=True, slots=True)
class UserRows:
    """One person among the rows: their own row, draws of it, and those near them."""

    user: User
    source: str
    group: int | None
    own: int
    drawn: slice
    near: slice
    weights: np.ndarray  # (near,), sum to 1


class Audience:
    """Vectors of everybody who is asked.

    Args:
        users: people with the labels that they are placed by.
        groups: all of the map, none, or those of these numbers.
        company: also give each person's draws and the people near them.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        users: Sequence[tuple[User, list[Label]]],
        groups: bool | Sequence[int],
        company: bool = True,
    ) -> None:
        self.snapshot, self.company = snapshot, company
        self.graph = snapshot.graph
        self.gate_graph = snapshot.reward_graph if snapshot.has_reward else self.graph
        self.gate_prior = Prior.of(self.gate_graph) if snapshot.has_reward else snapshot.prior
        self._graph_rows: list[np.ndarray] = [np.zeros((0, self.graph.user_vectors.shape[1]), np.float32)]
        self._gate_rows: list[np.ndarray] = [np.zeros((0, self.gate_graph.user_vectors.shape[1]), np.float32)]
        self._end = 0
        self.seats = [self._seat(user, labels) for user, labels in users]
        self.groups = {group: self._known(ids) for group, ids in _members(snapshot, self.gate_graph, groups).items()}
        self.vectors = np.concatenate(self._graph_rows).astype(np.float32)  # (N, d)
        self.gate_vectors = np.concatenate(self._gate_rows).astype(np.float32)  # (N, d of the gate)

    def _seat(self, user: User, labels: list[Label]) -> UserRows:
        vector, source, placed = placement.vector(self.graph, user.id, labels, self.snapshot.prior)
        gate_vector, learned = _gate_vector(self.gate_graph, user.id, labels, self.gate_prior)
        own = self._add(vector[None], gate_vector[None]).start
        count = DRAWS if self.company else 0
        drawn = self._add(
            draws(self.graph, self.snapshot.prior, placement.comparisons(self.graph, labels), vector, count),
            draws(
                self.gate_graph,
                self.gate_prior,
                placement.comparisons(self.gate_graph, learned),
                gate_vector,
                count,
                seed=1,
            ),
        )
        ids, weights = _nearest(placed, self.gate_graph, NEAR if self.company else 0)
        group = placement.position_in(self.snapshot, user.id, labels).group
        return UserRows(user, source, group, own, drawn, self._known(ids), weights)

    def _known(self, ids: np.ndarray) -> slice:
        """Rows of users whom both states know."""
        return self._add(
            self.graph.user_vectors[rows_of(ids, self.graph.user_ids)],
            self.gate_graph.user_vectors[rows_of(ids, self.gate_graph.user_ids)],
        )

    def _add(self, graph_rows: np.ndarray, gate_rows: np.ndarray) -> slice:
        self._graph_rows.append(graph_rows)
        self._gate_rows.append(gate_rows)
        start, self._end = self._end, self._end + len(graph_rows)
        return slice(start, self._end)


def _gate_vector(state: GraphState, user_id: int, labels: list[Label], prior: Prior) -> tuple[np.ndarray, list[Label]]:
    """(the vector that the gate reads (d,), the labels behind it): the one it was trained on while the user's learned
    labels are the same.
    """
    kept, new = kept_apart(
        np.full(len(labels), user_id),
        np.array([label.left_id for label in labels], np.int64),
        np.array([label.right_id for label in labels], np.int64),
        np.array([label.preferred_id is not None for label in labels], bool),
        len(state.response_ids),
    )
    learned = [label for label, out in zip(labels, kept | new, strict=True) if not out]
    vector, source, _ = placement.vector(state, user_id, learned, prior)
    return (
        (vector, learned) if source == "trained" else (placement.adapted(state, labels, prior, user_id).vector, labels)
    )


def _nearest(placed: Placement, gate_graph: GraphState, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, weights that sum to 1) of the other people one is most likely to be like, by their answers."""
    usable = np.flatnonzero(np.isin(placed.user_ids, gate_graph.user_ids))[:count]
    weights = placed.weights[usable]
    return placed.user_ids[usable], weights / weights.sum() if weights.sum() > 0 else weights


def _members(snapshot: Snapshot, gate_graph: GraphState, groups: bool | Sequence[int]) -> dict[int, np.ndarray]:
    """User ids of each group that both graph states know, at most a fixed number each, evenly spread."""
    layout = snapshot.layout
    wanted = sorted(set(layout.group[layout.group >= 0].tolist()))
    if groups is not True:
        wanted = [group for group in wanted if group in (groups or ())]
    common = np.isin(layout.user_ids, gate_graph.user_ids)
    members = {}
    for group in wanted:
        ids = layout.user_ids[(layout.group == group) & common]
        if len(ids):
            members[group] = ids[np.linspace(0, len(ids) - 1, min(len(ids), GROUP_SAMPLE)).astype(int)]
    return members
