"""What a user's labels leave open: vectors they might have, drawn from the Laplace posterior around their own.

With the prior N(mean, R Rᵀ) over people and labels of design X = (e_left − e_right) R / T, the whitened posterior
precision at the user's vector is I + Xᵀ D X, D = w·p(1 − p) of each label, which counts w (``label_weights``).  A user
without labels is drawn from the prior: anybody.  numpy only.
"""

from __future__ import annotations

import numpy as np

from copl_core.preference.adapt import Prior, label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons


def draws(
    state: GraphState, prior: Prior, labels: Comparisons, vector: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """Vectors (count, d) that the user of ``vector`` (d,) might have; the same ones for the same arguments.

    Args:
        labels: the user's, with responses by row of ``state``; the user column is not read.
    """
    apart = state.response_vectors[labels.left] - state.response_vectors[labels.right]  # (N, d)
    bias = state.response_bias[labels.left] - state.response_bias[labels.right]
    p = 1 / (1 + np.exp(-np.clip((apart @ vector + bias) / state.temperature, -40, 40)))
    curve = label_weights(state, labels) * p * (1 - p)
    root = prior.root[:-1]  # (d, q), without the side
    x = apart @ root / state.temperature  # (N, q)
    precision = np.eye(x.shape[1]) + x.T @ (x * curve[:, None])
    z = np.random.default_rng(seed).normal(size=(count, x.shape[1]))
    step = np.linalg.solve(np.linalg.cholesky(precision).T, z.T).T  # covariance: the inverse of the precision
    return (vector + step @ root.T).astype(np.float32)
