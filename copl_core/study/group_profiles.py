"""The verb that describes the groups of a snapshot: their taste against the rest, typical pairs and typical users.

Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from copl_core.ids import rows_of
from copl_core.insight import describe, taste
from copl_core.insight.layout import answer_space
from copl_core.preference.state import GraphState
from copl_core.records import Pair
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import placement
from copl_core.study.group_names import measured_styles
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

_CELLS = 4_000_000  # users × pairs with predictions
_SAMPLE = 400  # members that stand for a group in the ranking of pairs
_MOST_USERS = 20_000  # whose labels and predictions describe groups; of more, an even sample


@dataclass(frozen=True, slots=True)
class TypicalPair:
    """A pair on which a group is predicted to answer unlike the rest."""

    pair: Pair
    inside: float  # P(first is preferred), mean of the group
    outside: float  # mean of all others
    votes: tuple[int, int]  # the group's labels for the first and for the second


@dataclass(frozen=True, slots=True)
class GroupProfile:
    """One group against the rest."""

    group: int
    people: int  # users of the group
    others: int
    label_statements: tuple[describe.Statement, ...]  # certain from the labels of its users
    by_labels: describe.Contrast | None  # None: too few users
    model_statements: tuple[describe.Statement, ...]  # certain from the model's predictions
    by_model: describe.Contrast | None
    pairs: tuple[TypicalPair, ...]  # largest difference from the rest first
    typical_users: tuple[int, ...]  # user ids, most typical first
    n_texts: int  # responses whose features were measured
    all_texts: int
    snapshot: str


@needs(RESEARCHER)
def profiles(session: Session, version: str | None = None, most_pairs: int = 3) -> tuple[GroupProfile, ...]:
    """Every group of a snapshot, by default of the champion; empty before the first snapshot."""
    snapshot = session.snapshot() if version is None else session.open_snapshot(version)
    if snapshot is None:
        return ()

    def describe_groups() -> tuple[GroupProfile, ...]:
        texts, group = _texts(session, snapshot), snapshot.user_groups
        numbers = np.unique(group[group >= 0]).tolist()
        return tuple(_profile(session, snapshot, texts, group, number, most_pairs) for number in numbers)

    return session.once("group profiles", (snapshot.version, most_pairs), describe_groups)


@dataclass(frozen=True, slots=True)
class SetProfile:
    """What some users prefer compared with all others."""

    people: int  # with labels in the snapshot
    others: int
    n_labels: int  # decided labels of these users
    label_statements: tuple[describe.Statement, ...]  # certain from their labels
    model_statements: tuple[describe.Statement, ...]  # certain from the model's predictions
    compared: bool  # False: too few users inside or outside
    snapshot: str


@needs(RESEARCHER)
def preferences_of(session: Session, ids: Sequence[int], version: str | None = None) -> SetProfile | None:
    """What the users with these ids prefer compared with the rest, in one snapshot; None before the first one."""
    snapshot = session.snapshot() if version is None else session.open_snapshot(version)
    if snapshot is None:
        return None
    texts, state = _texts(session, snapshot), snapshot.graph
    known = state.n_labels > 0
    inside = np.isin(state.user_ids, np.asarray(ids, np.int64)) & known
    described = texts.described.with_rows(texts, state, np.flatnonzero(inside))
    by_labels, by_model = _contrasts(texts, described, inside, known, 0)
    return SetProfile(
        int(inside.sum()),
        int((known & ~inside).sum()),
        int(described.counts[inside[described.rows]].sum()),
        () if by_labels is None else describe.statements(by_labels, texts.correlation, against=None),
        () if by_model is None else describe.statements(by_model, texts.correlation, against=by_labels),
        by_labels is not None or by_model is not None,
        snapshot.version,
    )


def _texts(session: Session, snapshot: Snapshot) -> _Texts:
    return session.once("texts of profiles", snapshot.version, lambda: _Texts(session, snapshot))


def _contrasts(
    texts: _Texts, described: _Described, inside: np.ndarray, known: np.ndarray, seed: int
) -> tuple[describe.Contrast | None, describe.Contrast | None]:
    """Users ``inside`` (U,) against the other ``known`` ones (U,), by their labels and by the model's predictions."""
    inside, known, found = inside[described.rows], known[described.rows], []
    n_labels = int(described.counts[inside].sum())
    for leaning, n in ((described.by_labels, n_labels), (described.by_model, len(texts.rows))):
        rng = np.random.default_rng(seed)  # the same snapshot always gives the same statements
        found.append(describe.contrast(leaning[known], inside[known], n, rng))
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class _Described:
    """What some users prefer, by feature."""

    rows: np.ndarray  # (n,) of the graph's users, ascending
    by_labels: np.ndarray  # (n, F)
    counts: np.ndarray  # (n,) labels behind it
    by_model: np.ndarray  # (n, F)

    @classmethod
    def of(cls, texts: _Texts, state: GraphState, rows: np.ndarray) -> _Described:
        everybody = len(rows) == len(state.user_ids)
        chosen = None if everybody else rows
        by_labels, counts = describe.label_leanings(state, texts.styles, texts.scale, chosen)
        return cls(rows, by_labels, counts, describe.model_leanings(state, texts.rows, texts.differences, chosen))

    def with_rows(self, texts: _Texts, state: GraphState, rows: np.ndarray) -> _Described:
        """The same with more users."""
        more = np.setdiff1d(rows, self.rows)
        if not len(more):
            return self
        other = _Described.of(texts, state, more)
        order = np.argsort(np.concatenate([self.rows, more]))
        return _Described(
            np.concatenate([self.rows, other.rows])[order],
            np.concatenate([self.by_labels, other.by_labels])[order],
            np.concatenate([self.counts, other.counts])[order],
            np.concatenate([self.by_model, other.by_model])[order],
        )


class _Texts:
    """Computed once for all groups: text features, the figures of users, and predictions."""

    def __init__(self, session: Session, snapshot: Snapshot) -> None:
        state = snapshot.graph
        self.all_texts = len(state.response_ids)
        self.measured = describe.most_labelled(state)  # (T,) rows
        self.styles = measured_styles(session.store, state)
        self.pairs, self.rows = _pairs(session, state, self.styles)
        differences = self.styles[self.rows[:, 0]] - self.styles[self.rows[:, 1]]
        self.scale = taste.typical(differences)
        self.differences = differences / self.scale
        self.correlation = taste.correlations(self.differences)
        users = (
            np.flatnonzero(state.n_labels > 0) if len(state.user_ids) > _MOST_USERS else np.arange(len(state.user_ids))
        )
        users = users[np.linspace(0, len(users) - 1, min(len(users), _MOST_USERS)).astype(int)]
        self.described = _Described.of(self, state, users)
        self.space = answer_space(state)


def _profile(
    session: Session, snapshot: Snapshot, texts: _Texts, group: np.ndarray, number: int, most_pairs: int
) -> GroupProfile:
    inside, grouped = group == number, group >= 0
    by_labels, by_model = _contrasts(texts, texts.described, inside, grouped, number)
    statements = [
        () if one is None else describe.statements(one, texts.correlation, against=against)
        for one, against in ((by_labels, None), (by_model, by_labels))
    ]
    state = snapshot.graph
    known = state.n_labels >= np.median(state.n_labels[grouped])
    rows = np.flatnonzero(inside)
    typical = describe.typical_users(state.user_vectors[rows] @ texts.space, known[rows])
    return GroupProfile(
        number,
        int(inside.sum()),
        int((grouped & ~inside).sum()),
        statements[0],
        by_labels,
        statements[1],
        by_model,
        _typical_pairs(session, state, texts, inside, grouped & ~inside, most_pairs),
        tuple(state.user_ids[rows[typical]].tolist()),
        len(texts.measured),
        texts.all_texts,
        snapshot.version,
    )


def _pairs(session: Session, state: GraphState, styles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids (P,) and response rows (P, 2) of the pairs of measured texts; of many pairs, always the same sample."""
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    rows = rows_of(pairs[:, 1:], state.response_ids)
    known = np.flatnonzero((rows >= 0).all(1))
    known = known[np.isfinite(styles[rows[known]]).all((1, 2))]
    most = max(200, min(2000, _CELLS // max(1, len(state.user_ids))))
    if len(known) > most:
        known = np.sort(np.random.default_rng(0).choice(known, most, replace=False))
    return pairs[known, 0], rows[known]


def _typical_pairs(
    session: Session, state: GraphState, texts: _Texts, inside: np.ndarray, outside: np.ndarray, most: int
) -> tuple[TypicalPair, ...]:
    if not inside.any() or not outside.any() or not len(texts.rows):
        return ()
    means = []
    for side in (inside, outside):
        members = np.flatnonzero(side)
        members = members[np.linspace(0, len(members) - 1, min(len(members), _SAMPLE)).astype(int)]
        means.append(placement.preferences(state, state.user_vectors[members], texts.rows).mean(0))
    labels = state.labels.take(inside[state.labels.user] & state.labels.decided)
    found = []
    for i in np.argsort(-np.abs(means[0] - means[1]), kind="stable")[:most].tolist():
        first, second = texts.rows[i]
        one_way = (labels.left == first) & (labels.right == second)
        other_way = (labels.left == second) & (labels.right == first)
        votes = int((labels.outcome[one_way] > 0.5).sum() + (labels.outcome[other_way] < 0.5).sum())
        found.append(
            TypicalPair(
                session.store.pair(int(texts.pairs[i])),
                float(means[0][i]),
                float(means[1][i]),
                (votes, int(one_way.sum() + other_way.sum()) - votes),
            )
        )
    return tuple(found)
