"""Uncertainty of a user's vector: draws from the Laplace posterior around it.

With the prior N(mean, R Rᵀ) over users and labels of design X = (e_left − e_right) R / T, the whitened posterior
precision at the user's vector is I + Xᵀ D X, with D = w·p(1 − p) for each label of weight w (``label_weights``).  A
user without labels is drawn with the prior's covariance.  numpy only.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from copl_core.preference.adapt import Prior, label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons


def draws(
    state: GraphState, prior: Prior, labels: Comparisons, vector: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """Posterior draws (count, d) around a user's ``vector`` (d,); the same arguments give the same draws.

    Args:
        labels: the user's labels, with responses as rows of ``state``; the user column is not read.
    """
    p = expit(state.log_odds(vector, labels.left, labels.right))
    curve = label_weights(state, labels) * p * (1 - p)
    root = prior.root[:-1]  # (d, q), without the position bias
    difference, _ = state.differences(labels.left, labels.right)  # (N, d)
    x = difference @ root / state.temperature  # (N, q)
    precision = np.eye(x.shape[1]) + x.T @ (x * curve[:, None])
    z = np.random.default_rng(seed).normal(size=(count, x.shape[1]))
    step = np.linalg.solve(np.linalg.cholesky(precision).T, z.T).T  # covariance: the inverse of the precision
    return (vector + step @ root.T).astype(np.float32)
