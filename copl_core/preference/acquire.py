"""Which pair teaches most about a user: the mutual information between the answer and who they are like.

With w_k a posterior over known users and p_k the chance that user k prefers the first response, a pair is worth
``H(Σ w_k p_k) − Σ w_k H(p_k)`` nats: high where those the user may be like are sure and disagree, zero where all agree
and zero where each of them is torn (BALD, arXiv 1112.5745).  numpy only.
"""

from __future__ import annotations

import numpy as np

from copl_core.preference.adapt import Placement
from copl_core.preference.state import GraphState

MOST_USERS = 200
LIGHTEST = 1e-4  # of the heaviest weight; users that weigh less change no score that matters


def informative(state: GraphState, placement: Placement | np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Expected information (P,) in nats, each ≥ 0, of asking the pairs (P, 2) of response rows.

    Args:
        placement: where the user stands, or weights (U,) over the rows of the state; without neighbours every user with
            labels counts the same.
    """
    rows, weights = _posterior(state, placement)
    if len(rows) == 0 or len(pairs) == 0:
        return np.zeros(len(pairs))
    chance = _win(state, rows, np.asarray(pairs))
    return np.maximum(_entropy(weights @ chance) - weights @ _entropy(chance), 0.0)


def _posterior(state: GraphState, placement: Placement | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K,) and weights (K,) of the users one may be like, the heaviest only."""
    if isinstance(placement, np.ndarray):
        rows, weights = np.flatnonzero(placement > 0), placement[placement > 0]
    elif len(placement.user_ids):
        order = np.argsort(state.user_ids)
        rows = order[np.searchsorted(state.user_ids, placement.user_ids, sorter=order)]
        weights = placement.weights
    else:
        rows = np.flatnonzero(state.n_labels > 0)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_USERS)).astype(int)] if len(rows) else rows
        weights = np.ones(len(rows))
    heaviest = np.argsort(-weights, kind="stable")[:MOST_USERS]
    heaviest = heaviest[weights[heaviest] >= LIGHTEST * weights.max(initial=0)]
    rows, weights = rows[heaviest], weights[heaviest].astype(np.float32)
    return rows, weights / weights.sum() if len(weights) else weights


def _win(state: GraphState, rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Chance (K, P) that each user prefers the first response; each distinct response is scored once."""
    used, place = np.unique(pairs, return_inverse=True)
    place = place.reshape(pairs.shape)
    scores = state.scores(state.user_vectors[rows], state.response_vectors[used], state.response_bias[used])
    margins = (scores[:, place[:, 0]] - scores[:, place[:, 1]]) / np.float32(state.temperature)
    return 1 / (1 + np.exp(-np.clip(margins, -30, 30)))


def _entropy(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))
