"""The fingerprint of the data that a run learns from: counts and a hash that distinguish it from all other data."""

from __future__ import annotations

import hashlib

import numpy as np

from copl_core.records import TrainingData


def data_fingerprint(data: TrainingData) -> dict:
    """Counts, the watermark, and a hash of everything that a fit reads: labels by id with their tags, and texts.

    Equal hashes mean equal data; the order of the labels does not matter.
    """
    labels = data.labels
    outcome = np.rint(np.asarray(labels.outcome, np.float64) * 2).astype(np.int64)
    rows = np.column_stack(
        [
            data.user_ids[labels.user],
            data.response_ids[labels.left],
            data.response_ids[labels.right],
            outcome,
            labels.both_bad,
            np.rint(labels.strength * 1000),
            *([] if labels.position_known.all() else [labels.position_known]),
        ]
    ).astype(np.int64)  # (N, 6 or 7)
    digest = hashlib.sha256(_in_order(rows))
    if data.tags is not None:
        digest.update(_in_order(np.column_stack([rows[data.tags.label], data.tags.key])))
    for number, (prompt, response) in zip(data.response_ids.tolist(), data.texts(), strict=True):
        digest.update(f"{number}\0{prompt}\0{response}\0".encode())
    return {
        "labels": len(labels),
        "decided": int(labels.decided.sum()),
        "people": len(np.unique(labels.user)),  # users with a label
        "users": data.n_users,
        "responses": data.n_responses,
        "watermark": data.watermark,
        "sha256": digest.hexdigest(),
    }


def _in_order(rows: np.ndarray) -> bytes:
    """The same bytes for rows (N, k) in any order."""
    return np.ascontiguousarray(rows[np.lexsort(rows.T[::-1])]).tobytes()
