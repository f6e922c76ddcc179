"""The most informative pair for a user: the mutual information between the label and the user's identity.

With w_k a posterior over the known users and p_k the probability that user k prefers the first response, a pair has
``H(Σ w_k p_k) − Σ w_k H(p_k)`` nats: high where likely users are certain and disagree, zero where all agree, and zero
where each of them is undecided (BALD, arXiv 1112.5745).  numpy only.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from copl_core.preference.adapt import Placement
from copl_core.preference.state import GraphState

MAX_USERS = 200
MIN_WEIGHT = 1e-4  # share of the largest weight; users of smaller weight hardly change a score


def informative(state: GraphState, placement: Placement | np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Expected information (P,) in nats, each ≥ 0, of a label on each of the pairs (P, 2) of response rows.

    Args:
        placement: of the user, or weights (U,) over the rows of the state.  Without neighbours all users with labels
            have the same weight.
    """
    rows, weights = _posterior(state, placement)
    if len(rows) == 0 or len(pairs) == 0:
        return np.zeros(len(pairs))
    p = _preferences(state, rows, np.asarray(pairs))
    return np.maximum(_entropy(weights @ p) - weights @ _entropy(p), 0.0)


def _posterior(state: GraphState, placement: Placement | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K,) and weights (K,), which sum to 1, of the most likely users."""
    if isinstance(placement, np.ndarray):
        rows, weights = np.flatnonzero(placement > 0), placement[placement > 0]
    elif len(placement.user_ids):
        order = np.argsort(state.user_ids)
        rows = order[np.searchsorted(state.user_ids, placement.user_ids, sorter=order)]
        weights = placement.weights
    else:
        rows = np.flatnonzero(state.n_labels > 0)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_USERS)).astype(int)] if len(rows) else rows
        weights = np.ones(len(rows))
    largest = np.argsort(-weights, kind="stable")[:MAX_USERS]
    largest = largest[weights[largest] >= MIN_WEIGHT * weights.max(initial=0)]
    rows, weights = rows[largest], weights[largest].astype(np.float32)
    return rows, weights / weights.sum() if len(weights) else weights


def _preferences(state: GraphState, rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Probability (K, P) that each user prefers the first response."""
    return expit(state.log_odds(state.user_vectors[rows], pairs[:, 0], pairs[:, 1]))


def _entropy(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))
