"""The map of users: groups found in the embedding space, and a UMAP picture that stays put from snapshot to snapshot.

UMAP (McInnes et al., arXiv 1802.03426) is fitted unsupervised on the embeddings of users who hold labels; groups are
k-means clusters of the embeddings, never of the picture, with k chosen by the silhouette (Rousseeuw 1987).  A new map
starts from the old one's positions, takes smaller steps, and is laid onto the old one by the best rotation, reflection
and scale (Procrustes), and groups keep their number by maximum overlap, so colours and places mean the same thing in
every snapshot.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment

from copl_core.preference.state import GraphState
from copl_core.tables import rows_of

NO_GROUP = -1
_MOST_GROUPS = 7  # as many as the palette has colours that show on light and dark
_WARM_EPOCHS, _WARM_RATE = 100, 0.25  # users move by a quarter of the map a refit, where 1.0 moves them by half
_SILHOUETTE_SAMPLE = 2000  # the silhouette is quadratic; a sample chooses k as well


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each user stands.  Users without labels have no position (NaN) and no group (−1)."""

    user_ids: np.ndarray  # (U,) int64
    xy: np.ndarray  # (U, 2) float32
    group: np.ndarray  # (U,) int64
    silhouette: float  # of the chosen grouping, NaN for one group
    parameters: dict

    def save(self, folder: Path) -> None:
        save_file({"user_ids": self.user_ids, "xy": self.xy, "group": self.group}, folder / "layout.safetensors")
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
    difference of u's and v's log-odds, up to the temperature; the map is M's square root on its q leading axes.  Axes
    of the embedding along which no answer depends, of which an average of several graphs has many, vanish.
    """
    apart = state.response_vectors[state.labels.left] - state.response_vectors[state.labels.right]
    sizes, axes = np.linalg.eigh(apart.T @ apart / max(1, len(apart)))
    keep = sizes > 1e-6 * max(sizes.max(initial=0.0), 1e-12)
    return (axes[:, keep] * np.sqrt(sizes[keep]) / state.temperature).astype(np.float32)


def fit_layout(user_ids: np.ndarray, vectors: np.ndarray, n_labels: np.ndarray, *, previous: Layout | None = None,
               seed: int = 0) -> Layout:
    """Lay out users by their embeddings.

    Args:
        user_ids: (U,).
        vectors: (U, d) embeddings, rows as ``user_ids``.
        n_labels: (U,) labels behind each row; rows with none are neither placed nor grouped.
        previous: the last map, to stay close to.
    """
    xy = np.full((len(user_ids), 2), np.nan, np.float32)
    group = np.full(len(user_ids), NO_GROUP, np.int64)
    rows = np.flatnonzero(n_labels > 0)
    neighbours = int(min(15, max(2, len(rows) - 1)))
    silhouette = float("nan")
    if len(rows):
        group[rows], silhouette = _groups(vectors[rows], seed)
        xy[rows] = _picture(vectors[rows], _start(user_ids[rows], vectors[rows], previous), neighbours, seed)
    parameters = {"method": "UMAP", "n_neighbors": neighbours, "min_dist": 0.3, "metric": "euclidean", "seed": seed,
                  "space": "embeddings, distance = difference in predicted answers",
                  "groups": "k-means in that space, k by silhouette", "k": int(group.max(initial=NO_GROUP)) + 1}
    layout = Layout(user_ids.astype(np.int64), xy, group, silhouette, parameters)
    return layout if previous is None else _keep(layout, previous)


def _groups(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """K-means groups (n,) and their silhouette; one group where fewer than eight users make a choice meaningless."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if len(vectors) < 8 or _alike(vectors):
        return np.zeros(len(vectors), np.int64), float("nan")
    best, best_score = np.zeros(len(vectors), np.int64), float("nan")
    for k in range(2, min(_MOST_GROUPS, len(vectors) // 3) + 1):
        labels = KMeans(k, n_init=4, random_state=seed).fit_predict(vectors)
        if len(np.unique(labels)) < 2:
            continue
        score = silhouette_score(vectors, labels, sample_size=min(_SILHOUETTE_SAMPLE, len(vectors)), random_state=seed)
        if not score <= best_score:
            best, best_score = labels.astype(np.int64), float(score)
    return best, best_score


def _picture(vectors: np.ndarray, start: np.ndarray | None, neighbours: int, seed: int) -> np.ndarray:
    """UMAP positions (n, 2); fewer than four users, and users who are all alike, stand in a line."""
    if len(vectors) < 4 or _alike(vectors):
        return np.column_stack([np.arange(len(vectors)), np.zeros(len(vectors))]).astype(np.float32)
    from threadpoolctl import threadpool_limits

    way = {"init": "pca"} if start is None else {"init": start, "n_epochs": _WARM_EPOCHS, "learning_rate": _WARM_RATE}
    # numba, which umap computes with, sets the threads of the OpenMP that torch shares to all cores, for good: the next
    # fit in this process then takes twenty times as long on a busy machine.  Leaving this block sets them back.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and the fixed seed each announce themselves at every fit
        from umap import UMAP

        model = UMAP(n_neighbors=neighbours, min_dist=0.3, random_state=seed, n_jobs=1, **way)
        return model.fit_transform(vectors).astype(np.float32)


def _alike(vectors: np.ndarray) -> bool:
    return float(np.ptp(vectors, axis=0).max(initial=0)) < 1e-9


def _start(user_ids: np.ndarray, vectors: np.ndarray, previous: Layout | None) -> np.ndarray | None:
    """Old positions of those who had one, beside their nearest such user for the rest; None where too few had one."""
    if previous is None or not len(previous.user_ids):
        return None
    rows = rows_of(user_ids, previous.user_ids)
    known = (rows >= 0) & np.isfinite(previous.xy[rows, 0])
    if known.sum() < max(4, len(user_ids) // 2):
        return None
    start = previous.xy[rows]
    for new in np.flatnonzero(~known):
        nearest = np.square(vectors[known] - vectors[new]).sum(1).argmin()
        start[new] = previous.xy[rows[known][nearest]]
    jitter = np.random.default_rng(0).normal(scale=0.01, size=start.shape) * ~known[:, None]
    return (start + jitter).astype(np.float32)


def _keep(layout: Layout, previous: Layout) -> Layout:
    """Lay the map onto the previous one and renumber groups by overlap, using the users that both maps place."""
    _, now, then = np.intersect1d(layout.user_ids, previous.user_ids, return_indices=True)
    both = np.isfinite(layout.xy[now, 0]) & np.isfinite(previous.xy[then, 0])
    now, then = now[both], then[both]
    if len(now) < 4:
        return layout
    new, old = layout.xy[now] - layout.xy[now].mean(0), previous.xy[then] - previous.xy[then].mean(0)
    rotation, fit = orthogonal_procrustes(new, old)
    scale = fit / np.square(new).sum() if np.square(new).sum() > 1e-9 else 1.0
    xy = (layout.xy - layout.xy[now].mean(0)) @ rotation * scale + previous.xy[then].mean(0)
    group = _renumber(layout.group, layout.group[now], previous.group[then])
    return Layout(layout.user_ids, xy.astype(np.float32), group, layout.silhouette, layout.parameters)


def _renumber(group: np.ndarray, now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Give each new group the number of the old group it shares most users with; groups left over take free numbers."""
    size = max(group.max(), then.max()) + 1
    overlap = np.zeros((size, size))
    np.add.at(overlap, (now, then), 1)
    new_ids, old_ids = linear_sum_assignment(-overlap)
    names = dict(zip(new_ids.tolist(), old_ids.tolist(), strict=True))
    return np.array([names.get(g, g) if g != NO_GROUP else NO_GROUP for g in group.tolist()], np.int64)
