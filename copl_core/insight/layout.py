"""The map of users: groups found in the embedding space, and a UMAP layout that stays stable between snapshots.

UMAP (McInnes et al., arXiv 1802.03426) is fitted unsupervised on the embeddings of users with labels, in two and in
three dimensions.  Groups (``insight.groups``) are clusters of the embeddings, never of the layout.  A first map starts
from principal components.  A later map starts from the previous positions and only relaxes: it runs UMAP's gradient
descent on the new neighbourhoods with small steps, without the stretch to a square that UMAP's ``init`` begins with.
The best rotation, reflection and scale (Procrustes) then aligns it with the previous map, and groups keep their number
by maximum overlap, so colours and positions mean the same in every snapshot.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.linalg import orthogonal_procrustes

from copl_core.ids import rows_of
from copl_core.insight.compiled_umap import load_umap
from copl_core.insight.groups import CRITERION, NO_GROUP, all_alike, find_groups, renumber
from copl_core.preference.state import GraphState

_MIN_DIST = 0.3
_NEIGHBOURS = 15
_WARM_EPOCHS, _WARM_RATE = 100, 0.1


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions and groups of users.  Users without labels have no position (NaN) and no group (−1)."""

    user_ids: np.ndarray  # (U,) int64
    xy: np.ndarray  # (U, 2) float32
    group: np.ndarray  # (U,) int64
    silhouette: float  # of the chosen grouping, NaN for one group
    parameters: dict
    xyz: np.ndarray | None = None  # (U, 3) float32; None in snapshots older than the deep map

    def save(self, folder: Path) -> None:
        tables = {"user_ids": self.user_ids, "xy": self.xy, "group": self.group}
        tables |= {} if self.xyz is None else {"xyz": self.xyz}
        save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, folder / "layout.safetensors")
        facts = {"silhouette": self.silhouette if np.isfinite(self.silhouette) else None, "parameters": self.parameters}
        (folder / "layout.json").write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder: Path) -> Layout:
        facts = json.loads((folder / "layout.json").read_text())
        silhouette = float("nan") if facts["silhouette"] is None else facts["silhouette"]
        return cls(**load_file(folder / "layout.safetensors"), silhouette=silhouette, parameters=facts["parameters"])


def answer_space(state: GraphState) -> np.ndarray:
    """A linear map (d, q) of embeddings under which distance is disagreement.

    With D (N, d) the response differences of the labelled pairs, ‖(ê_u − ê_v)‖² under M = DᵀD / N is the mean square
    difference of u's and v's log-odds, up to the temperature; the map is M's square root on its q leading axes.
    Directions of the embedding that no answer depends on vanish; an average of several graphs has many of them.
    """
    apart = state.response_vectors[state.labels.left] - state.response_vectors[state.labels.right]
    sizes, axes = np.linalg.eigh(apart.T @ apart / max(1, len(apart)))
    keep = sizes > 1e-6 * max(sizes.max(initial=0.0), 1e-12)
    return (axes[:, keep] * np.sqrt(sizes[keep]) / state.temperature).astype(np.float32)


def fit_layout(
    user_ids: np.ndarray, vectors: np.ndarray, n_labels: np.ndarray, *, previous: Layout | None = None, seed: int = 0
) -> Layout:
    """Lay out users by their embeddings.

    Args:
        user_ids: (U,).
        vectors: (U, d) embeddings, rows as ``user_ids``.
        n_labels: (U,) labels behind each row; rows without labels get no position and no group.
        previous: the previous map, which the new one stays close to.
    """
    rows = np.flatnonzero(n_labels > 0)
    neighbours = int(min(_NEIGHBOURS, max(2, len(rows) - 1)))
    found = find_groups(vectors[rows], n_labels[rows], before=_n_groups(previous), seed=seed)
    group = np.full(len(user_ids), NO_GROUP, np.int64)
    group[rows] = found.group
    positions = _positions(user_ids, vectors, rows, previous, neighbours, seed)
    parameters = {
        "method": "UMAP",
        "n_neighbors": neighbours,
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
    return layout if previous is None else _align(layout, previous)


def _n_groups(layout: Layout | None) -> int:
    return 0 if layout is None else len(np.unique(layout.group[layout.group >= 0]))


def _positions(
    user_ids: np.ndarray, vectors: np.ndarray, rows: np.ndarray, previous: Layout | None, neighbours: int, seed: int
) -> dict[int, np.ndarray]:
    """Positions (U, D) for D = 2 and 3; NaN for users who are not among ``rows``."""
    positions = {}
    for dimensions in (2, 3):
        start = None
        if previous is not None:
            before = previous.xy if dimensions == 2 else previous.xyz
            start = None if before is None else _start(user_ids[rows], vectors[rows], previous.user_ids, before)
        positions[dimensions] = np.full((len(user_ids), dimensions), np.nan, np.float32)
        if len(rows):
            positions[dimensions][rows] = _umap(vectors[rows], dimensions, start, neighbours, seed)
    return positions


def _umap(vectors: np.ndarray, dimensions: int, start: np.ndarray | None, neighbours: int, seed: int) -> np.ndarray:
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
            n_components=dimensions, n_neighbors=neighbours, min_dist=_MIN_DIST, random_state=seed, n_jobs=1, **options
        ).fit(vectors)
        return model.embedding_.astype(np.float32) if start is None else _relaxed(model, start, seed)


def _relaxed(model: Any, start: np.ndarray, seed: int) -> np.ndarray:
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
    """Align the map with the previous one and renumber groups by overlap, using the users that are on both maps."""
    _, now, then = np.intersect1d(layout.user_ids, previous.user_ids, return_indices=True)
    both = np.isfinite(layout.xy[now, 0]) & np.isfinite(previous.xy[then, 0])
    now, then = now[both], then[both]
    if len(now) < 4:
        return layout
    xyz = layout.xyz
    if layout.xyz is not None and previous.xyz is not None:
        xyz = _onto(layout.xyz, previous.xyz, now, then)
    return replace(
        layout,
        xy=_onto(layout.xy, previous.xy, now, then),
        xyz=xyz,
        group=renumber(layout.group, layout.group[now], previous.group[then]),
    )


def _onto(positions: np.ndarray, before: np.ndarray, now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Positions (U, D) rotated, mirrored, scaled and shifted so that rows ``now`` best match the old rows ``then``."""
    new, old = positions[now] - positions[now].mean(0), before[then] - before[then].mean(0)
    rotation, fit = orthogonal_procrustes(new, old)
    scale = fit / np.square(new).sum() if np.square(new).sum() > 1e-9 else 1.0
    return ((positions - positions[now].mean(0)) @ rotation * scale + before[then].mean(0)).astype(np.float32)
