"""The cut of the data that a run learns from, as numbers that tell it from any other.  Numpy only."""

from __future__ import annotations

import hashlib

import numpy as np

from copl_core.records import TrainingData


def data_cut(data: TrainingData) -> dict:
    """How much there is, the watermark, and a hash of all that a fit reads: who preferred what, by id, and the texts.

    Two cuts with one hash are the same data, whatever the order in which their labels came.
    """
    labels = data.labels
    outcome = np.rint(np.asarray(labels.outcome, np.float64) * 2).astype(np.int64)
    rows = (
        np.column_stack(
            [
                data.user_ids[labels.user],
                data.response_ids[labels.left],
                data.response_ids[labels.right],
                outcome,
                labels.both_bad,
                np.rint(labels.strength * 1000),
            ]
        )
        .astype(np.int64)
        .reshape(-1, 6)
    )
    digest = hashlib.sha256(np.ascontiguousarray(rows[np.lexsort(rows.T[::-1])]).tobytes())
    for number, (prompt, response) in zip(data.response_ids.tolist(), data.texts(), strict=True):
        digest.update(f"{number}\0{prompt}\0{response}\0".encode())
    return {
        "labels": len(labels),
        "decided": int(labels.decided.sum()),
        "people": len(np.unique(labels.user)),
        "users": data.n_users,
        "responses": data.n_responses,
        "watermark": data.watermark,
        "sha256": digest.hexdigest(),
    }
