"""People to look at: the map of a snapshot, what to colour it by, neighbours, comparisons, and the labels of some.

Verbs, as functions of a study; columns of numpy, so that ten thousand people are looked at at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from copl_core.ids import rows_of
from copl_core.insight.layout import Layout, answer_space
from copl_core.records import CoplError, Kind, Pair
from copl_core.snapshots.snapshot import Snapshot, load_snapshot
from copl_core.study import access, placement
from copl_core.study.session import Session
from copl_core.study.views import UserPosition
from copl_core.study_settings import CHECK_REASONS, AnswerTable, SelectionReason

_PAIRS = 1000  # of the study on which two people's answers are compared
_ATTENTION = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]


@dataclass(frozen=True, slots=True)
class PeopleMap:
    """Everybody in the study, one row a person, as one snapshot sees them."""

    ids: np.ndarray  # (N,) int64
    names: np.ndarray  # (N,) text
    simulated: np.ndarray  # (N,) bool
    tastes: np.ndarray  # (N,) text: the true taste of a simulated person, empty for others
    n_labels: np.ndarray  # (N,) labels behind the place
    group: np.ndarray  # (N,) −1: no place
    xy: np.ndarray  # (N, 2) NaN: no place
    xyz: np.ndarray | None  # (N, 3)
    me: int | None  # row of who looks, placed by their labels of this moment
    my_source: str  # "trained" | "neighbours" | "population mean" | ""
    my_neighbours: int  # people who share a labelled response with who looks
    my_share: float  # of the neighbours' weight, what stands in that group
    silhouette: float
    parameters: dict
    snapshot: str
    total_labels: int  # behind the snapshot

    @property
    def groups(self) -> list[int]:
        return np.unique(self.group[self.group >= 0]).tolist()

    @property
    def placed(self) -> np.ndarray:
        """Mask (N,) of people who stand on the map."""
        return np.isfinite(self.xy[:, 0])

    def rows(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the people of these ids; those who are not here are left out."""
        found = rows_of(np.asarray(ids, np.int64), self.ids)
        return found[found >= 0]


@dataclass(frozen=True, slots=True)
class UserValues:
    """Something to colour people by: a number or a category each, in the order of the map's rows."""

    value: np.ndarray  # (N,) float, NaN where nothing is known
    n: np.ndarray  # (N,) answers behind it


@dataclass(frozen=True, slots=True)
class Neighbour:
    id: int
    same: float  # share of pairs on which both are expected to prefer the same response
    apart: float  # mean difference of the expected probabilities


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A pair on which two people are expected to answer differently."""

    pair: Pair
    one: float  # P(first is preferred)
    other: float
    votes: tuple[str, str]  # what each really answered: "first", "second", "neither", or empty


@dataclass(frozen=True, slots=True)
class Comparison:
    pairs: tuple[Disagreement, ...]  # furthest apart first
    same: float  # share of pairs on which both are expected to prefer the same response
    n_pairs: int
    sources: tuple[str, str]  # what each is known by: "trained" | "neighbours"
    snapshot: str


def map_of_users(session: Session, viewer: int | None = None, version: str | None = None) -> PeopleMap | None:
    """The map of a snapshot, the champion if not said otherwise; None before the first.

    Args:
        viewer: a user who is placed by their labels of this moment, trained or not.
    """
    snapshot = _snapshot(session, version)
    if snapshot is None:
        return None
    layout, users = snapshot.layout, session.store.users(session.id)
    ids = np.array([user.id for user in users], np.int64)
    rows = rows_of(ids, layout.user_ids)
    there = rows >= 0
    group = np.where(there, layout.group[rows] if len(layout.group) else -1, -1)
    xy = _taken(layout.xy, rows, there)
    xyz = None if layout.xyz is None else _taken(layout.xyz, rows, there)
    behind = rows_of(ids, snapshot.graph.user_ids)
    n_labels = np.where((behind >= 0) & (group >= 0), snapshot.graph.n_labels[behind], 0)
    me = next((row for row, user in enumerate(users) if user.id == viewer), None)
    place = None
    if me is not None:
        place = placement.position_in(snapshot, viewer, session.store.labels(session.id, user_id=viewer))
        n_labels[me], group[me] = place.n_labels, -1 if place.group is None else place.group
        xy[me] = np.nan if place.xy is None else place.xy
        if xyz is not None:
            xyz[me] = _third(layout, place)
    return PeopleMap(
        ids,
        np.array([user.name for user in users], np.str_),
        np.array([user.kind == Kind.SIMULATED for user in users], bool),
        np.array([user.true_group or "" for user in users], np.str_),
        n_labels,
        group,
        xy,
        xyz,
        me,
        "" if place is None else place.source,
        0 if place is None else place.n_neighbours,
        0.0 if place is None else place.group_share,
        layout.silhouette,
        layout.parameters,
        snapshot.version,
        len(snapshot.graph.labels),
    )


def map_extent(session: Session, versions: Sequence[str]) -> np.ndarray | None:
    """Corners (2, 5) that hold the maps of these snapshots; unreadable ones are left out.

    Rows are the lowest and the highest; columns x, y of the flat maps, then x, y, z of the deep ones, NaN while there
    is none.
    """
    corners = []
    for version in versions:
        try:
            layout = load_snapshot(session.snapshot_root, version).layout
        except CoplError:
            continue  # it says what is wrong with it when it is chosen
        stands = np.isfinite(layout.xy[:, 0])
        if stands.any():
            flat = layout.xy[stands]
            deep = np.full((len(flat), 3), np.nan) if layout.xyz is None else layout.xyz[stands]
            corners += [np.hstack([flat, deep]).min(0), np.hstack([flat, deep]).max(0)]
    if not corners:
        return None
    return np.stack([np.fmin.reduce(corners), np.fmax.reduce(corners)])


# ---- what people can be coloured by


def consistency(session: Session, ids: np.ndarray) -> UserValues:
    """Of a person's pairs that came again, the share answered as the time before."""

    def repeated() -> tuple[np.ndarray, np.ndarray]:
        answers = session.store.answers(session.id)
        return _repeated(answers.take(~np.isin(answers.selection_reason, _ATTENTION)))

    return _share(ids, *session.once("repeated answers", session.record.revision, repeated))


def predicted(session: Session, ids: np.ndarray) -> UserValues:
    """Prequential accuracy: of a person's decided labels on pairs drawn by chance, the share foretold right."""
    table = np.array(session.store.prediction_counts(session.id), np.int64).reshape(-1, 3)  # user, right, foretold
    rows = rows_of(ids, table[:, 0])
    there = rows >= 0
    n = np.where(there, table[rows, 2] if len(table) else 0, 0)
    hits = np.where(there, table[rows, 1] if len(table) else 0, 0)
    return UserValues(np.where(n > 0, hits / np.maximum(n, 1), np.nan), n)


def experts_of(session: Session, ids: np.ndarray, version: str | None = None) -> UserValues | None:
    """The expert with the largest mean gate weight of each person; None while there is no reward model."""
    snapshot = _snapshot(session, version)
    if snapshot is None or not snapshot.has_reward:
        return None
    state = snapshot.reward_graph
    rows = rows_of(ids, state.user_ids)
    known = np.flatnonzero((rows >= 0) & (state.n_labels[rows] > 0))
    value = np.full(len(ids), np.nan)
    if len(known):
        gates = snapshot.gate(state.user_vectors[rows[known]])  # (K, G, M)
        if not gates.shape[2]:
            return None  # one model for all, without experts
        value[known] = gates.mean(1).argmax(1)
    return UserValues(value, np.where(np.isfinite(value), state.n_labels[rows], 0))


# ---- one person, and two


def position(session: Session, user_id: int) -> UserPosition | None:
    """Where the user stands by the labels of this moment; None before the first snapshot."""
    snapshot = session.snapshot()
    if snapshot is None:
        return None
    return placement.position_in(snapshot, user_id, session.store.labels(session.id, user_id=user_id))


def nearest(session: Session, user_id: int, version: str | None = None, most: int = 5) -> tuple[Neighbour, ...]:
    """The people whose expected answers are nearest, nearest first; nobody where the person has no label yet."""
    snapshot = _snapshot(session, version)
    if snapshot is None:
        return ()
    state = snapshot.graph
    mine, source, _ = placement.vector(state, user_id, session.store.labels(session.id, user_id=user_id))
    others = np.flatnonzero(
        (state.n_labels > 0)
        & (state.user_ids != user_id)
        & np.isin(state.user_ids, [user.id for user in session.store.users(session.id)])
    )
    if source == "population mean" or not len(others):
        return ()
    space = answer_space(state)
    away = np.square(state.user_vectors[others] @ space - mine @ space).sum(1)
    near = others[np.argsort(away, kind="stable")[:most]]
    _, rows = _known_pairs(session, snapshot, _PAIRS)
    chance = placement.preferences(state, np.vstack([mine[None], state.user_vectors[near]]), rows)
    return tuple(
        Neighbour(
            int(state.user_ids[near[i]]),
            _agreement(chance[0], chance[i + 1]),
            float(np.abs(chance[0] - chance[i + 1]).mean()) if len(rows) else float("nan"),
        )
        for i in range(len(near))
    )


def compare(session: Session, one: int, other: int, version: str | None = None, most: int = 5) -> Comparison:
    """Where two people would disagree most, by the labels that each has given up to now.

    Raises:
        CoplError: there is no snapshot, it is one person, or one of them cannot be placed yet.
    """
    snapshot = _snapshot(session, version)
    if snapshot is None:
        raise CoplError("There is no snapshot yet to compare people by; label some pairs and let the trainer finish.")
    if one == other:
        raise CoplError("The same person was chosen twice; choose two people to compare.")
    state, vectors, sources, votes = snapshot.graph, [], [], []
    for user_id in (one, other):
        labels = session.store.labels(session.id, user_id=user_id)
        vector, source, _ = placement.vector(state, user_id, labels)
        if source == "population mean":
            raise CoplError(
                f"{access.user(session, user_id).name} has given no label that places them yet; choose somebody who has."
            )
        vectors.append(vector)
        sources.append(source)
        votes.append({label.pair_id: label.preferred_id for label in labels})
    pairs, rows = _known_pairs(session, snapshot)
    chance = placement.preferences(state, np.stack(vectors), rows)
    furthest = np.argsort(-np.abs(chance[0] - chance[1]), kind="stable")[:most]
    found = []
    for i in furthest.tolist():
        pair = session.store.pair(int(pairs[i, 0]))
        found.append(
            Disagreement(pair, float(chance[0, i]), float(chance[1, i]), tuple(_answered(pair, cast) for cast in votes))
        )
    return Comparison(tuple(found), _agreement(*chance), len(pairs), tuple(sources), snapshot.version)


# ---- the labels of some people


def labels_of_users(session: Session, ids: Sequence[int]) -> list[dict]:
    """Every preference of these people that counts, oldest first, as rows of the export file."""
    return list(session.store.export(session.id, users=ids))


# ---- helpers


def _snapshot(session: Session, version: str | None) -> Snapshot | None:
    return session.snapshot() if version is None else session.open_snapshot(version)


def _taken(places_: np.ndarray, rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Positions (N, D) of rows, NaN where there is none."""
    if not len(places_):
        return np.full((len(rows), places_.shape[1]), np.nan, np.float32)
    return np.where(there[:, None], places_[rows], np.nan).astype(np.float32)


def _third(layout: Layout, place: placement.UserPosition) -> np.ndarray:
    """Where a live person stands in three dimensions: their own place where trained, else their neighbours' middle."""
    if place.xy is None:
        return np.full(3, np.nan)
    own = int(rows_of(np.array([place.user_id]), layout.user_ids)[0])
    if place.source == "trained" and own >= 0 and layout.group[own] >= 0:
        return layout.xyz[own]
    ids, weights = np.array([number for number, _ in place.neighbours]), np.array([w for _, w in place.neighbours])
    return weights @ layout.xyz[rows_of(ids, layout.user_ids)] / weights.sum()


def _repeated(answers: AnswerTable) -> tuple[np.ndarray, np.ndarray]:
    """(person, answered as the time before) of every answer to a pair that the person had answered before."""
    order = np.lexsort((np.arange(len(answers)), answers.pair, answers.user))
    rows = answers.take(order)
    said = np.select([rows.choice == 0, rows.choice == 1], [rows.left, rows.right], -1 - rows.choice)
    again = (rows.user[1:] == rows.user[:-1]) & (rows.pair[1:] == rows.pair[:-1])
    return rows.user[1:][again], (said[1:] == said[:-1])[again]


def _share(ids: np.ndarray, user: np.ndarray, hit: np.ndarray) -> UserValues:
    rows = rows_of(user, ids)
    n = np.bincount(rows[rows >= 0], minlength=len(ids))
    hits = np.bincount(rows[rows >= 0], hit[rows >= 0], minlength=len(ids))
    return UserValues(np.where(n > 0, hits / np.maximum(n, 1), np.nan), n)


def _known_pairs(session: Session, snapshot: Snapshot, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(pairs (P, 3): id, first, second; their response rows (P, 2)) that the graph knows; a sample where there are
    more than ``most``, always the same one.
    """
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    rows = rows_of(pairs[:, 1:], snapshot.graph.response_ids)
    known = np.flatnonzero((rows >= 0).all(1))
    if most is not None and len(known) > most:
        known = np.sort(np.random.default_rng(0).choice(known, most, replace=False))
    return pairs[known], rows[known]


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one > 0.5) == (other > 0.5)).mean()) if len(one) else float("nan")


def _answered(pair: Pair, votes: dict[int, int | None]) -> str:
    if pair.id not in votes:
        return ""
    return {pair.first.id: "first", pair.second.id: "second"}.get(votes[pair.id], "neither")
