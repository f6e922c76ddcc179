"""The map of users: groups found in the embedding space, and a UMAP layout that stays stable between snapshots.

UMAP (McInnes et al., arXiv 1802.03426) is fitted unsupervised on the embeddings of users with labels, in two and in
three dimensions; of very many users some are fitted and the others placed among them (``insight.landmarks``).  Groups
(``insight.groups``) are clusters of the embeddings, never of the layout.  A first map starts from principal components
and is turned so that its longest axis lies flat.  A later map starts from the previous positions and only relaxes: it
runs UMAP's gradient descent on the new neighbourhoods with small steps, without the stretch to a square that UMAP's
``init`` begins with.  The best rotation, reflection and scale (Procrustes) then aligns it with the previous map, and a
group keeps the number of the earlier group with which it shares most people, so colours and positions mean the same in
every snapshot.  A map remembers the people of earlier maps who are not on it, such as simulated people while they are
switched off: when they come back, they have their old positions and group numbers.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from copl_core.ids import rows_of
from copl_core.insight import landmarks
from copl_core.insight.compiled_umap import load_umap
from copl_core.insight.found_features import FoundFeatures
from copl_core.insight.group_names import GroupFeatures
from copl_core.insight.groups import CRITERION, NO_GROUP, all_alike, find_groups, renumber
from copl_core.preference.state import GraphState

_MIN_DIST = 0.3
_NEIGHBOURS = 15
_WARM_EPOCHS, _WARM_RATE = 100, 0.1
_MOST_PAIRS = 1_000_000  # behind ``answer_space``: more of them take gigabytes, and change it by nothing
_FEWEST_TO_ALIGN = 4  # people on both maps; fewer fix no rotation
_ABSENT = "absent."  # before the stored names of the tables of people who are not on the map
_FOUND = "found."  # before those of the features found in the texts

Progress = Callable[[float], None]  # receives the share that is done; what it raises ends the fit


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions and groups of users.  Users without labels have no position (NaN) and no group (−1)."""

    user_ids: np.ndarray  # (U,) int64
    xy: np.ndarray  # (U, 2) float32
    group: np.ndarray  # (U,) int64
    silhouette: float  # of the chosen grouping, NaN for one group
    parameters: dict
    xyz: np.ndarray | None = None  # (U, 3) float32; None in snapshots older than the deep map
    absent: Layout | None = None  # the last positions and groups of people of earlier maps who are not on this one
    traits: GroupFeatures | None = None  # what the groups' names are made of; None in snapshots older than the names
    found: FoundFeatures | None = None  # what else the groups prefer; None before a full fit, or with too few labels

    def with_absent(self) -> Layout:
        """This map and the people it remembers, as one table."""
        gone = self.absent
        if gone is None:
            return self
        deep = None if self.xyz is None or gone.xyz is None else np.concatenate([self.xyz, gone.xyz])
        return replace(
            self,
            user_ids=np.concatenate([self.user_ids, gone.user_ids]),
            xy=np.concatenate([self.xy, gone.xy]),
            group=np.concatenate([self.group, gone.group]),
            xyz=deep,
            absent=None,
        )

    def without_users(self, user_ids: Sequence[int]) -> Layout:
        """This map without some users."""
        keep = ~np.isin(self.user_ids, np.asarray(user_ids, np.int64))
        return replace(
            self,
            user_ids=self.user_ids[keep],
            xy=self.xy[keep],
            group=self.group[keep],
            xyz=None if self.xyz is None else self.xyz[keep],
            absent=None if self.absent is None else self.absent.without_users(user_ids),
        )

    def save(self, folder: Path) -> None:
        tables = self._tables()
        if self.absent is not None:
            tables |= {f"{_ABSENT}{name}": table for name, table in self.absent._tables().items()}
        if self.found is not None:
            tables |= {f"{_FOUND}{name}": table for name, table in self.found.tables().items()}
        save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, folder / "layout.safetensors")
        facts = {"silhouette": self.silhouette if np.isfinite(self.silhouette) else None, "parameters": self.parameters}
        facts |= {} if self.traits is None else {"traits": self.traits}
        facts |= {} if self.found is None else {"found": self.found.facts()}
        (folder / "layout.json").write_text(json.dumps(facts))

    def _tables(self) -> dict[str, np.ndarray]:
        tables = {"user_ids": self.user_ids, "xy": self.xy, "group": self.group}
        return tables if self.xyz is None else tables | {"xyz": self.xyz}

    @classmethod
    def load(cls, folder: Path) -> Layout:
        facts = json.loads((folder / "layout.json").read_text())
        silhouette = float("nan") if facts["silhouette"] is None else facts["silhouette"]
        tables = load_file(folder / "layout.safetensors")
        absent = cls._of(tables, float("nan"), {}, _ABSENT) if f"{_ABSENT}user_ids" in tables else None
        return replace(
            cls._of(tables, silhouette, facts["parameters"]),
            absent=absent,
            traits=_read_traits(facts.get("traits")),
            found=_read_found(facts.get("found"), tables),
        )

    @classmethod
    def _of(cls, tables: dict[str, np.ndarray], silhouette: float, parameters: dict, below: str = "") -> Layout:
        """The layout whose tables are stored under names that begin with ``below``."""
        user_ids, xy, group = (tables[f"{below}{name}"] for name in ("user_ids", "xy", "group"))
        return cls(user_ids, xy, group, silhouette, parameters, tables.get(f"{below}xyz"))


def answer_space(state: GraphState) -> np.ndarray:
    """A linear map (d, q) of embeddings under which distance is disagreement.

    With D (N, d) the vectors of the labelled pairs (``GraphState.differences``), ‖(ê_u − ê_v)‖² under M = DᵀD / N is
    the mean square difference of u's and v's log-odds, up to the temperature; the map is M's square root on its q
    leading axes.
    Directions of the embedding that no answer depends on vanish; an average of several graphs has many of them.
    M is measured on ``_MOST_PAIRS`` labels at most, evenly chosen.
    """
    labels = state.labels
    if len(labels) > _MOST_PAIRS:
        labels = labels.take(np.linspace(0, len(labels) - 1, _MOST_PAIRS).astype(int))
    apart, _ = state.differences(labels.left, labels.right)
    sizes, axes = np.linalg.eigh(apart.T @ apart / max(1, len(apart)))
    keep = sizes > 1e-6 * max(sizes.max(initial=0.0), 1e-12)
    return (axes[:, keep] * np.sqrt(sizes[keep]) / state.temperature).astype(np.float32)


def fit_layout(
    user_ids: np.ndarray,
    vectors: np.ndarray,
    n_labels: np.ndarray,
    *,
    previous: Layout | None = None,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> Layout:
    """Lay out users by their embeddings.

    Args:
        user_ids: (U,).
        vectors: (U, d) embeddings, rows as ``user_ids``.
        n_labels: (U,) labels behind each row; rows without labels get no position and no group.
        previous: the previous map, which the new one stays close to.
        progress: called with the share that is done; what it raises ends the fit.
    """
    rows = np.flatnonzero(n_labels > 0)
    chosen = rows[landmarks.choose(user_ids[rows])]  # of few users everybody
    before = None if previous is None else previous.with_absent()
    neighbours = int(min(_NEIGHBOURS, max(2, len(chosen) - 1)))
    progress(0.0)
    found = find_groups(vectors[chosen], n_labels[chosen], before=_n_groups(before, user_ids[rows]), seed=seed)
    group = np.full(len(user_ids), NO_GROUP, np.int64)
    group[chosen] = found.group
    positions = _positions(user_ids, vectors, chosen, before, neighbours, seed, part(progress, 0.1, 0.8))
    others = np.setdiff1d(rows, chosen, assume_unique=True)
    if len(others):
        group[others] = landmarks.nearest_group(vectors[others], vectors[chosen], found.group)
        known = [table[chosen] for table in positions.values()]
        placed = landmarks.place(vectors[others], vectors[chosen], known, part(progress, 0.8, 1.0))
        for table, values in zip(positions.values(), placed, strict=True):
            table[others] = values
    progress(1.0)
    parameters = {
        "method": "UMAP",
        "n_neighbors": neighbours,
        "fitted": len(chosen),
        "placed": len(others),
        "min_dist": _MIN_DIST,
        "metric": "euclidean",
        "seed": seed,
        "space": "embeddings, distance = difference in predicted answers",
        "start": "principal components" if previous is None else "the snapshot before",
        "groups": CRITERION,
        "k": int(found.group.max(initial=NO_GROUP)) + 1,
        "silhouette_by_k": {str(k): round(score, 4) for k, score in found.tried.items()},
    }
    layout = Layout(user_ids.astype(np.int64), positions[2], group, found.silhouette, parameters, positions[3])
    if before is None:
        return turned_flat(layout)
    return replace(_align(layout, before), absent=_absent(before, user_ids[rows]))


def turned_like(layout: Layout, before: Layout) -> Layout:
    """A map that was made from nothing, turned like an earlier one and with its numbers of groups; it is laid out as
    before, so of the earlier map nothing else is in it.
    """
    known = before.with_absent()
    return replace(_align(layout, known), absent=_absent(known, layout.user_ids))


def part(progress: Progress, start: float, end: float) -> Progress:
    """The progress of a part of the work, which begins and ends at these shares of the whole."""
    return lambda done: progress(start + (end - start) * done)


def turned_flat(layout: Layout) -> Layout:
    """The map turned around its centre so that the direction in which it is longest lies flat; never mirrored."""
    return replace(
        layout,
        xy=_turned(layout.xy, flat_rotation(layout.xy)),
        xyz=None if layout.xyz is None else _turned(layout.xyz, flat_rotation(layout.xyz)),
    )


def flat_rotation(positions: np.ndarray) -> np.ndarray:
    """The rotation (D, D) that lays the longest axis of positions (U, D) flat, in the direction that turns them less.

    Rows with NaN are skipped.
    """
    known = positions[np.isfinite(positions[:, 0])].astype(np.float64)
    if len(known) < 2:
        return np.eye(positions.shape[1])
    known = known - known.mean(0)
    axes = np.linalg.eigh(known.T @ known)[1][:, ::-1]
    axes = axes * np.where(np.diag(axes) < 0, -1.0, 1.0)
    if np.linalg.det(axes) < 0:
        axes[:, -1] *= -1
    return axes


def _turned(positions: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    if not np.isfinite(positions).any():
        return positions
    centre = np.nanmean(positions, 0)
    return ((positions - centre) @ rotation + centre).astype(np.float32)


def _n_groups(layout: Layout | None, user_ids: np.ndarray) -> int:
    """Number of groups that these users had; 0 for none."""
    if layout is None:
        return 0
    return len(np.unique(layout.group[np.isin(layout.user_ids, user_ids) & (layout.group >= 0)]))


def _absent(before: Layout, user_ids: np.ndarray) -> Layout | None:
    """Positions and groups of the users of earlier maps who are not among these; None for none."""
    gone = np.flatnonzero(~np.isin(before.user_ids, user_ids) & (before.group >= 0))
    if not len(gone):
        return None
    deep = None if before.xyz is None else before.xyz[gone]
    return Layout(before.user_ids[gone], before.xy[gone], before.group[gone], float("nan"), {}, deep)


def _read_traits(stored: dict[str, list] | None) -> GroupFeatures | None:
    if stored is None:
        return None
    return {int(group): tuple((feature, way) for feature, way in traits) for group, traits in stored.items()}


def _read_found(stored: dict[str, Any] | None, tables: dict[str, np.ndarray]) -> FoundFeatures | None:
    if stored is None:
        return None
    own = {name.removeprefix(_FOUND): table for name, table in tables.items() if name.startswith(_FOUND)}
    return FoundFeatures.read(stored, own)


def _positions(
    user_ids: np.ndarray,
    vectors: np.ndarray,
    rows: np.ndarray,
    previous: Layout | None,
    neighbours: int,
    seed: int,
    progress: Progress,
) -> dict[int, np.ndarray]:
    """Positions (U, D) for D = 2 and 3; NaN for users who are not among ``rows``."""
    positions = {}
    for dimensions in (2, 3):
        start = None
        if previous is not None:
            before = previous.xy if dimensions == 2 else previous.xyz
            start = None if before is None else _start(user_ids[rows], vectors[rows], previous.user_ids, before)
        positions[dimensions] = np.full((len(user_ids), dimensions), np.nan, np.float32)
        share = part(progress, dimensions / 2 - 1, dimensions / 2 - 0.5)
        share(0.0)
        if len(rows):
            positions[dimensions][rows] = _umap(vectors[rows], dimensions, start, neighbours, seed, share)
    return positions


class _Epochs:
    """A file that reads the "done/total" of umap's progress bar and reports the share: umap has no other callback."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def write(self, text: str) -> None:
        if found := re.search(r"(\d+)/(\d+)", text):
            self.progress(int(found[1]) / max(1, int(found[2])))

    def flush(self) -> None:
        """Nothing is held back."""

    def bar(self) -> dict:
        """The settings of tqdm that write every epoch to this file, from the thread that fits."""
        return {
            "file": self,
            "disable": False,
            "bar_format": "{n_fmt}/{total_fmt}",
            "mininterval": 0.0,
            "miniters": 1,
            "leave": False,
        }


def _umap(
    vectors: np.ndarray, dimensions: int, start: np.ndarray | None, neighbours: int, seed: int, progress: Progress
) -> np.ndarray:
    """UMAP positions (n, D); fewer than four users, and users who are all alike, are put on a line."""
    if len(vectors) < 4 or all_alike(vectors):
        line = np.zeros((len(vectors), dimensions), np.float32)
        line[:, 0] = np.arange(len(vectors))
        return line
    from threadpoolctl import threadpool_limits

    # principal components need at least D columns; columns of zeros change no distance
    vectors = np.pad(vectors, ((0, 0), (0, max(0, dimensions - vectors.shape[1]))))
    # umap's numba sets the number of OpenMP threads, which torch shares, to all cores and leaves it there: on a busy
    # machine the next fit in this process then takes twenty times as long.  This block restores the number at its end.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at every fit numba and the fixed seed each give a warning
        options = {"init": "pca"} if start is None else {"transform_mode": "graph"}
        umap = load_umap()
        model = umap.UMAP(
            n_components=dimensions,
            n_neighbors=neighbours,
            min_dist=_MIN_DIST,
            random_state=seed,
            n_jobs=1,
            tqdm_kwds=_Epochs(progress).bar(),
            **options,
        ).fit(vectors)
        return model.embedding_.astype(np.float32) if start is None else _relaxed(model, start, seed, progress)


def _relaxed(model: Any, start: np.ndarray, seed: int, progress: Progress) -> np.ndarray:
    """The old positions (n, D) after some steps of UMAP's descent on the neighbourhoods of a fitted model."""
    from umap.layouts import optimize_layout_euclidean
    from umap.umap_ import find_ab_params, make_epochs_per_sample

    graph = model.graph_.tocoo()
    graph.sum_duplicates()
    strong = graph.data >= graph.data.max() / _WARM_EPOCHS
    spread, closeness = find_ab_params(1.0, _MIN_DIST)
    state = np.random.default_rng(seed).integers(-(2**31) + 1, 2**31 - 1, 3)
    positions = np.ascontiguousarray(start, np.float32)
    return optimize_layout_euclidean(
        positions,
        positions,
        graph.row[strong],
        graph.col[strong],
        _WARM_EPOCHS,
        len(positions),
        make_epochs_per_sample(graph.data[strong], _WARM_EPOCHS),
        spread,
        closeness,
        state,
        initial_alpha=_WARM_RATE,
        move_other=True,
        tqdm_kwds=_Epochs(progress).bar(),
    )


def _start(user_ids: np.ndarray, vectors: np.ndarray, old_ids: np.ndarray, old: np.ndarray) -> np.ndarray | None:
    """Old positions, and for new users that of the most similar old user; None where too few users have an old one."""
    if not len(old_ids):
        return None
    rows = rows_of(user_ids, old_ids)
    known = (rows >= 0) & np.isfinite(old[rows, 0])
    if known.sum() < max(4, len(user_ids) // 2):
        return None
    start = old[rows]
    for new in np.flatnonzero(~known):
        nearest = np.square(vectors[known] - vectors[new]).sum(1).argmin()
        start[new] = old[rows[known][nearest]]
    jitter = np.random.default_rng(0).normal(scale=0.01, size=start.shape) * ~known[:, None]
    return (start + jitter).astype(np.float32)


def _align(layout: Layout, previous: Layout) -> Layout:
    """Align the map with the previous one and renumber groups by the people they share."""
    _, now, then = np.intersect1d(layout.user_ids, previous.user_ids, return_indices=True)
    both = (layout.group[now] >= 0) & (previous.group[then] >= 0)
    now, then = now[both], then[both]
    used = np.unique(previous.group[previous.group >= 0])
    layout = replace(layout, group=renumber(layout.group, layout.group[now], previous.group[then], used))
    if len(now) < _FEWEST_TO_ALIGN:
        return layout
    xyz = layout.xyz
    if layout.xyz is not None and previous.xyz is not None:
        xyz = _onto(layout.xyz, previous.xyz, now, then)
    return replace(layout, xy=_onto(layout.xy, previous.xy, now, then), xyz=xyz)


def _onto(positions: np.ndarray, before: np.ndarray, now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Positions (U, D) rotated, mirrored, scaled and shifted so that rows ``now`` best match the old rows ``then``."""
    from scipy.linalg import orthogonal_procrustes

    new, old = positions[now] - positions[now].mean(0), before[then] - before[then].mean(0)
    rotation, fit = orthogonal_procrustes(new, old)
    scale = fit / np.square(new).sum() if np.square(new).sum() > 1e-9 else 1.0
    return ((positions - positions[now].mean(0)) @ rotation * scale + before[then].mean(0)).astype(np.float32)
