"""Maps of very many users: some of them, the landmarks, are laid out and grouped; the others are placed among them.

The time of UMAP and of k-means grows faster than a large study can wait.  Above ``MOST_FITTED`` users the landmarks are
drawn by a hash of their ids, so that the same users are landmarks in every snapshot.  Everybody else gets the mean
position of their nearest landmarks, by distance in the space of answers (the idea of landmark MDS, de Silva and
Tenenbaum 2004, with UMAP's weights of neighbours), and the group with the nearest centre.  Memory and time per user are
constant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOST_FITTED = 2500  # users up to whom everybody is laid out
_NEIGHBOURS = 5  # landmarks around a placed user
_CHUNK = 20_000  # users placed at a time
_MIX = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth 1998, 6.4)


def choose(user_ids: np.ndarray, most: int | None = None) -> np.ndarray:
    """Rows, in order, of the landmarks among users (n,): everybody, or ``most`` of them by a hash of the id.

    ``most`` is ``MOST_FITTED`` if not given.
    """
    most = MOST_FITTED if most is None else most
    if len(user_ids) <= most:
        return np.arange(len(user_ids))
    with np.errstate(over="ignore"):
        mixed = user_ids.astype(np.uint64) * _MIX
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX
    return np.sort(np.argsort(mixed, kind="stable")[:most])


def place(
    vectors: np.ndarray,
    landmarks: np.ndarray,
    positions: list[np.ndarray],
    progress: Callable[[float], None] = lambda done: None,
) -> list[np.ndarray]:
    """Positions of users among landmarks, in each of several maps.

    Args:
        vectors: (n, q) of the users to place.
        landmarks: (m, q) of the landmarks.
        positions: (m, D) of the landmarks, one array for each map.
        progress: called with the share that is done; what it raises ends the placing.

    Returns:
        (n, D) float32 for each map.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(landmarks)), algorithm="brute").fit(landmarks)
    placed = [np.empty((len(vectors), one.shape[1]), np.float32) for one in positions]
    for start in range(0, len(vectors), _CHUNK):
        progress(start / len(vectors))
        away, nearest = search.kneighbors(vectors[start : start + _CHUNK])
        weight = _weights(away)
        for target, one in zip(placed, positions, strict=True):
            target[start : start + _CHUNK] = np.einsum("nk,nkd->nd", weight, one[nearest])
    return placed


def _weights(away: np.ndarray) -> np.ndarray:
    """Weights (n, k), which sum to 1, of neighbours at ascending distances (n, k).

    As in UMAP they fall from the nearest one on, at the scale of the distances of each row.
    """
    beyond = away - away[:, :1]
    scale = np.maximum(beyond.mean(1, keepdims=True), 1e-9)
    weight = np.exp(-beyond / scale)
    return weight / weight.sum(1, keepdims=True)


def nearest_group(vectors: np.ndarray, landmarks: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Group (n,) of users (n, q): the one whose landmarks (m, q), with groups (m,) from 0, have the nearest centre."""
    counts = np.bincount(group)
    centres = np.stack([np.bincount(group, column) for column in landmarks.T], 1) / np.maximum(counts, 1)[:, None]
    # ‖v − c‖² without ‖v‖², which is the same for every group
    away = np.square(centres).sum(1) - 2 * vectors @ centres.T
    return np.where(counts > 0, away, np.inf).argmin(1)
