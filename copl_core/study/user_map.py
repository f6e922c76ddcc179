"""The verbs of the People page: the map of a snapshot, its colours, neighbours, comparisons, and the labels of users.

Tables are columns of numpy, so that a map of ten thousand users stays fast.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from copl_core.formats.table import csv_text
from copl_core.ids import rows_of
from copl_core.insight.layout import Layout, answer_space, flat_rotation
from copl_core.insight.quality import preferred_response, repeated_answers
from copl_core.records import CoplError, Kind, Pair
from copl_core.snapshots.snapshot import Snapshot, load_snapshot
from copl_core.study import access, drawn, placement
from copl_core.study.drawn import Everybody, sizes_of
from copl_core.study.roles import OWN, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study.views import UserPosition
from copl_core.study_settings import CHECK_REASONS, SelectionReason

_LIES = 0.9  # cosine of the angle between the long axis and the horizontal, up to which a map lies
_LONG = 1.25  # a map this much wider than high, by standard deviations, has a long axis
_PAIRS = 1000  # pairs of the study on which predicted answers of neighbours are compared
_CANDIDATES = 10  # times as many users near by embedding, among whom those with the most equal answers are found
_CHECKS = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]


@dataclass(frozen=True, slots=True)
class UserMap:
    """All users of the study, one row each, as one snapshot sees them; of very many, a sample (``drawn``)."""

    ids: np.ndarray  # (N,) int64
    names: np.ndarray  # (N,) text
    simulated: np.ndarray  # (N,) bool
    models: np.ndarray  # (N,) bool, language models
    true_groups: np.ndarray  # (N,) text: the true group of a simulated user, empty for others
    n_labels: np.ndarray  # (N,) labels behind the position
    group: np.ndarray  # (N,) −1: no group
    xy: np.ndarray  # (N, 2) NaN: no position
    xyz: np.ndarray | None  # (N, 3)
    me: int | None  # row of the viewer, positioned by their present labels
    my_source: str  # "trained" | "neighbours" | "population mean" | ""
    my_neighbours: int  # users who share a labelled response with the viewer
    my_share: float  # of the neighbours' weight, the part in the viewer's group
    my_probability: float  # that the viewer is of that group, by their labels, and not of another or of none
    my_group_is_clear: bool  # whether the labels say so clearly (``UserPosition.clear``)
    silhouette: float
    parameters: dict
    snapshot: str
    total_labels: int  # behind the snapshot
    n_users: int  # of whom the rows are a sample, or all
    sizes: dict[int, int]  # group → all users in it
    n_placed: tuple[int, int, int]  # all users with a position: everybody, simulated people, language models

    @property
    def groups(self) -> list[int]:
        return sorted(self.sizes)

    @property
    def my_group(self) -> int | None:
        """The viewer's group, as maps colour their star; None where their labels do not say clearly which."""
        return int(self.group[self.me]) if self.me is not None and self.my_group_is_clear else None

    @property
    def is_sample(self) -> bool:
        return self.n_users > len(self.ids)

    @property
    def placed(self) -> np.ndarray:
        """Mask (N,) of users who have a position on the map."""
        return np.isfinite(self.xy[:, 0])

    @property
    def kinds(self) -> np.ndarray:
        """(N,) text: the kind of each user."""
        return np.where(self.models, Kind.MODEL.value, np.where(self.simulated, Kind.SIMULATED.value, Kind.HUMAN.value))

    def marked_name(self, row: int) -> str:
        """The name of a user, marked unless they are a person."""
        mark = Kind(str(self.kinds[row])).mark
        return f"{self.names[row]} ({mark})" if mark else str(self.names[row])

    def rows(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the users with these ids; unknown ids are skipped."""
        found = rows_of(np.asarray(ids, np.int64), self.ids)
        return found[found >= 0]


@dataclass(frozen=True, slots=True)
class UserValues:
    """One number or category per user, in the order of the map's rows, to colour users by."""

    value: np.ndarray  # (N,) float, NaN where unknown
    n: np.ndarray  # (N,) answers behind it


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A user with similar predicted answers."""

    id: int
    same: float  # share of pairs on which both are predicted to prefer the same response
    apart: float  # mean difference of the predicted probabilities


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A pair on which two users are predicted to answer differently."""

    pair: Pair
    one: float  # P(first is preferred)
    other: float
    votes: tuple[str, str]  # the real answer of each: "first", "second", "neither", or empty


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two users side by side."""

    pairs: tuple[Disagreement, ...]  # largest difference first
    same: float  # share of pairs on which both are predicted to prefer the same response
    n_pairs: int
    sources: tuple[str, str]  # where each embedding comes from: "trained" | "neighbours"
    snapshot: str


@needs(RESEARCHER)
def map_of_users(
    session: Session, viewer: int | None = None, version: str | None = None, also: Sequence[int] = ()
) -> UserMap | None:
    """The map of a snapshot, by default of the champion; None before the first one.

    Args:
        viewer: a user whose position follows their present labels, trained or not.
        also: users who have a row in any case, where the rows are a sample.
    """
    snapshot = _snapshot(session, version)
    if snapshot is None:
        return None
    layout = snapshot.layout
    users, everybody = drawn.people_of_map(session, snapshot, viewer, also)
    ids = np.array([user.id for user in users], np.int64)
    rows = rows_of(ids, layout.user_ids)
    known = rows >= 0
    group = np.where(known, layout.group[rows] if len(layout.group) else -1, -1)
    xy = _positions(layout.xy, rows)
    xyz = None if layout.xyz is None else _positions(layout.xyz, rows)
    graph_rows = rows_of(ids, snapshot.graph.user_ids)
    n_labels = np.where((graph_rows >= 0) & (group >= 0), snapshot.graph.n_labels[graph_rows], 0)
    me = next((row for row, user in enumerate(users) if user.id == viewer), None)
    mine, before = None, -1 if me is None else int(group[me])
    if me is not None:
        mine = placement.position_in(snapshot, users[me].id, session.store.labels(session.id, user_id=viewer))
        n_labels[me], group[me] = mine.n_labels, -1 if mine.group is None else mine.group
        xy[me] = np.nan if mine.xy is None else mine.xy
        if xyz is not None and layout.xyz is not None:
            xyz[me] = _deep_position(layout, layout.xyz, mine)
    simulated = np.array([user.kind == Kind.SIMULATED for user in users], bool)
    models = np.array([user.kind == Kind.MODEL for user in users], bool)
    if everybody is None:
        placed = np.isfinite(xy[:, 0])
        n_placed = (int(placed.sum()), int((placed & simulated).sum()), int((placed & models).sum()))
        everybody = Everybody(len(ids), sizes_of(group), n_placed)
    elif me is not None:
        everybody = everybody.with_viewer(before, int(group[me]))
    return UserMap(
        ids,
        np.array([user.name for user in users], np.str_),
        simulated,
        models,
        np.array([user.true_group or "" for user in users], np.str_),
        n_labels,
        group,
        xy,
        xyz,
        me,
        "" if mine is None else mine.source,
        0 if mine is None else mine.n_neighbours,
        0.0 if mine is None else mine.group_share,
        0.0 if mine is None else mine.group_probability,
        mine is not None and mine.clear,
        layout.silhouette,
        layout.parameters,
        snapshot.version,
        len(snapshot.graph.labels),
        everybody.n_users,
        everybody.sizes,
        everybody.n_placed,
    )


@needs(OWN)
def own_map(session: Session, user_id: int) -> UserMap | None:
    """The map of the champion for somebody who may not know the others: without names, true groups, and the number of
    anybody's labels but their own.
    """
    view = map_of_users(session, user_id)
    if view is None:
        return None
    nothing = np.full(len(view.ids), "")
    n_labels = np.where(view.ids == user_id, view.n_labels, 0)
    return replace(view, names=nothing, true_groups=nothing, n_labels=n_labels)


@dataclass(frozen=True, slots=True)
class MapFrame:
    """What the maps of several snapshots share on screen, and the way of each user through them."""

    versions: tuple[str, ...]  # the readable ones, oldest first
    rotation: np.ndarray  # (2, 2): the flat maps are shown turned by it
    extent: np.ndarray  # (2, 5) lowest and highest x, y of the turned flat maps and x, y, z of the deep ones (or NaN)
    ids: np.ndarray  # (N,) users on one of the maps; of very many, a sample
    xy: np.ndarray  # (S, N, 2) float32, turned; NaN where the user is not on the map of that snapshot
    group: np.ndarray  # (N,) in the newest snapshot, −1 for none

    def turned(self, xy: np.ndarray) -> np.ndarray:
        return (xy @ self.rotation).astype(np.float32)


@needs(RESEARCHER)
def map_frame(session: Session, versions: Sequence[str]) -> MapFrame | None:
    """The frame that holds the maps of these snapshots, oldest first; None where no map can be read.

    An upright long map is turned so that it lies: all maps of a study are aligned, so all turn alike, by the newest.
    Unreadable snapshots are skipped; the page shows the error when somebody chooses one.
    """
    layouts: dict[str, Layout] = {}
    for version in versions:
        try:
            layout = load_snapshot(session.snapshot_root, version).layout
        except CoplError:
            continue
        if np.isfinite(layout.xy).any():
            layouts[version] = layout
    if not layouts:
        return None
    rotation = _upright(list(layouts.values())[-1].xy)
    ids = np.unique(np.concatenate([layout.user_ids[np.isfinite(layout.xy[:, 0])] for layout in layouts.values()]))
    if len(ids) > drawn.MOST_DRAWN:
        ids = ids[np.linspace(0, len(ids) - 1, drawn.DRAWN).astype(int)]
    rows = [rows_of(ids, layout.user_ids) for layout in layouts.values()]
    xy = np.stack([_positions(one.xy, at) @ rotation for one, at in zip(layouts.values(), rows, strict=True)])
    deep = np.concatenate([layout.xyz for layout in layouts.values() if layout.xyz is not None] or [np.empty((0, 3))])
    deep = deep[np.isfinite(deep[:, 0])] if np.isfinite(deep).any() else np.full((1, 3), np.nan)
    extent = np.stack([np.append(np.nanmin(xy, (0, 1)), deep.min(0)), np.append(np.nanmax(xy, (0, 1)), deep.max(0))])
    newest = list(layouts.values())[-1]
    group = np.where(rows[-1] >= 0, newest.group[rows[-1]], -1)
    return MapFrame(tuple(layouts), rotation, extent, ids, xy.astype(np.float32), group)


def _upright(xy: np.ndarray) -> np.ndarray:
    """The rotation (2, 2) that lays an upright map flat; none for a map that lies, or is about as high as wide."""
    known = xy[np.isfinite(xy[:, 0])]
    rotation = flat_rotation(known)
    wide, high = np.maximum((known @ rotation).std(0), 1e-9)
    lies = abs(rotation[0, 0]) > _LIES or wide < _LONG * high
    return np.eye(2) if lies else rotation


# ---- values to colour users by


@needs(RESEARCHER)
def consistency(session: Session, ids: np.ndarray) -> UserValues:
    """Of a user's repeated pairs, the share answered the same as the time before."""

    def repeated() -> tuple[np.ndarray, np.ndarray]:
        answers = session.store.answers(session.id)
        answers = answers.take(~np.isin(answers.selection_reason, _CHECKS))
        return repeated_answers(answers.user, answers.pair, preferred_response(answers))

    user, same = session.once("repeated answers", session.store.answers_state(session.id), repeated)
    rows = rows_of(user, ids)
    known = rows >= 0
    n = np.bincount(rows[known], minlength=len(ids))
    return _shares(np.bincount(rows[known], same[known], minlength=len(ids)), n)


@needs(RESEARCHER)
def prequential_accuracy(session: Session, ids: np.ndarray) -> UserValues:
    """Of a user's decided labels on pairs chosen without the model, the share predicted correctly in advance."""
    table = np.array(session.store.prediction_counts(session.id), np.int64).reshape(-1, 3)  # user, correct, predicted
    rows = rows_of(ids, table[:, 0])
    known = rows >= 0
    n = np.where(known, table[rows, 2] if len(table) else 0, 0)
    return _shares(np.where(known, table[rows, 1] if len(table) else 0, 0), n)


@needs(RESEARCHER)
def experts_of(session: Session, ids: np.ndarray, version: str | None = None) -> UserValues | None:
    """The expert with the largest mean gate weight of each user; None without a reward model or without experts."""
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
            return None
        value[known] = gates.mean(1).argmax(1)
    return UserValues(value, np.where(np.isfinite(value), state.n_labels[rows], 0))


# ---- one user, and two


@needs(OWN)
def position(session: Session, user_id: int) -> UserPosition | None:
    """The user's position by their present labels; None before the first snapshot."""
    snapshot = session.snapshot()
    if snapshot is None:
        return None
    return placement.position_in(snapshot, user_id, session.store.labels(session.id, user_id=user_id))


@needs(RESEARCHER)
def membership(session: Session, user_id: int, version: str | None = None) -> UserPosition | None:
    """The same position for somebody who studies the map, by default in the champion."""
    snapshot = _snapshot(session, version)
    if snapshot is None:
        return None
    return placement.position_in(snapshot, user_id, session.store.labels(session.id, user_id=user_id))


@needs(RESEARCHER)
def nearest(session: Session, user_id: int, version: str | None = None, most: int = 5) -> tuple[Neighbour, ...]:
    """The users with the most similar predicted answers, those with the most equal ones first; none for a user without
    usable labels.
    """
    snapshot = _snapshot(session, version)
    if snapshot is None:
        return ()
    state = snapshot.graph
    mine, source, _ = placement.vector(state, user_id, session.store.labels(session.id, user_id=user_id))
    others = np.flatnonzero(
        (state.n_labels > 0) & (state.user_ids != user_id) & ~np.isin(state.user_ids, access.hidden_users(session))
    )
    if source == "population mean" or not len(others):
        return ()
    space = answer_space(state)
    away = np.square(state.user_vectors[others] @ space - mine @ space).sum(1)
    near = others[np.argsort(away, kind="stable")[: _CANDIDATES * most]]
    _, rows = _known_pairs(session, snapshot, _PAIRS)
    chance = placement.preferences(state, np.vstack([mine[None], state.user_vectors[near]]), rows)
    found = (
        Neighbour(
            int(state.user_ids[near[i]]),
            _agreement(chance[0], chance[i + 1]),
            float(np.abs(chance[0] - chance[i + 1]).mean()) if len(rows) else float("nan"),
        )
        for i in range(len(near))
    )
    return tuple(sorted(found, key=lambda one: -one.same)[:most])


@needs(RESEARCHER)
def compare(session: Session, one: int, other: int, version: str | None = None, most: int = 5) -> Comparison:
    """The pairs on which two users are predicted to disagree most, by their present labels.

    Raises:
        CoplError: there is no snapshot, both are the same user, or one of them has no labels that place them.
    """
    snapshot = _snapshot(session, version)
    if snapshot is None:
        raise CoplError("There is no snapshot yet to compare people by; label some pairs and let the trainer finish.")
    if one == other:
        raise CoplError("The same person was chosen twice; choose two different people to compare.")
    state, vectors, sources, votes = snapshot.graph, [], [], []
    for user_id in (one, other):
        labels = session.store.labels(session.id, user_id=user_id)
        vector, source, _ = placement.vector(state, user_id, labels)
        if source == "population mean":
            name = access.user(session, user_id).name
            raise CoplError(f"{name} has given no label that places them on the map yet; choose somebody who has.")
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
            Disagreement(
                pair, float(chance[0, i]), float(chance[1, i]), (_answered(pair, votes[0]), _answered(pair, votes[1]))
            )
        )
    same = _agreement(chance[0], chance[1])
    return Comparison(tuple(found), same, len(pairs), (sources[0], sources[1]), snapshot.version)


# ---- the labels of some users


@needs(RESEARCHER)
def labels_of_users(session: Session, ids: Sequence[int]) -> list[dict]:
    """Every preference of these users that counts, oldest first, as rows of the export file."""
    return list(session.store.export(session.id, users=ids))


@needs(RESEARCHER)
def labels_file(session: Session, ids: Sequence[int], form: str) -> bytes:
    """A file of the labels of these users, "CSV" or "Parquet": one row per label, columns as in the export file."""
    rows = [row | {"meta": json.dumps(row["meta"], ensure_ascii=False)} for row in labels_of_users(session, ids)]
    if form == "CSV":
        columns = list(rows[0]) if rows else []
        return csv_text((row | {"tags": ", ".join(row["tags"])} for row in rows), columns, line_end="\n").encode()
    import pandas as pd  # imported here: it takes half a second, and no other verb needs it

    return pd.DataFrame(rows).to_parquet(index=False)


# ---- helpers


def _snapshot(session: Session, version: str | None) -> Snapshot | None:
    return session.snapshot() if version is None else session.open_snapshot(version)


def _positions(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) of a table of positions, NaN for row −1."""
    if not len(table):
        return np.full((len(rows), table.shape[1]), np.nan, np.float32)
    return np.where(rows[:, None] >= 0, table[rows], np.nan).astype(np.float32)


def _deep_position(layout: Layout, xyz: np.ndarray, position_: UserPosition) -> np.ndarray:
    """The viewer's position (3,) on the deep map: their own where trained, else the mean of their neighbours."""
    if position_.xy is None:
        return np.full(3, np.nan)
    own = int(rows_of(np.array([position_.user_id]), layout.user_ids)[0])
    if position_.source == "trained" and own >= 0 and layout.group[own] >= 0:
        return xyz[own]
    ids, weights = np.array([one for one, _ in position_.neighbours]), np.array([w for _, w in position_.neighbours])
    return weights @ xyz[rows_of(ids, layout.user_ids)] / weights.sum()


def _shares(hits: np.ndarray, n: np.ndarray) -> UserValues:
    return UserValues(np.where(n > 0, hits / np.maximum(n, 1), np.nan), n)


def _known_pairs(session: Session, snapshot: Snapshot, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(pairs (P, 3) of id, first, second; their response rows (P, 2)) that the graph knows.

    More than ``most`` pairs are reduced to a sample, always the same one.
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
    preferred = votes[pair.id]
    return "first" if preferred == pair.first.id else "second" if preferred == pair.second.id else "neither"
