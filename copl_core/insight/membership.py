"""How probable it is that a user is of each group, by the user's own labels.  Numpy only.

Each group predicts a label with the mean probability of its members.  Against the groups stands a user who answers at
random (every label has probability ½), so that somebody whose labels no group explains better than a coin belongs to no
group, however many neighbours of one group they have.  With L_g the log-likelihood of the decided labels under group g,
π_g its share of the grouped users, and N the number of decided labels::

    P(g) ∝ (1 − α) π_g exp(ρ L_g)      P(none) ∝ α exp(ρ N log ½)

The temper ρ < 1 allows for what the likelihood leaves out: labels on the same texts are not independent, and members of
a group differ.  The user's own row, which was fitted to these labels, is not among the members.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from copl_core.preference.state import GraphState
from copl_core.records import Comparisons

TEMPER = 0.6
_AT_RANDOM = 0.4  # prior probability of a user whom no group describes
_MEMBERS = 200  # that stand for a group, evenly spread
_LEAST = 0.02  # no label is predicted with more certainty than this leaves


def membership(state: GraphState, group: np.ndarray, labels: Comparisons, *, own_row: int = -1) -> dict[int, float]:
    """Group → probability that a user with these labels is of it; the rest to 1 is that they are of none.

    Args:
        group: (U,) group of each user row of the graph, −1 for none.
        labels: of one user, with response rows of the state.
        own_row: the user's row in the graph, −1 for none.
    """
    grouped = group >= 0
    if own_row >= 0:
        grouped[own_row] = False
    sizes = np.bincount(group[grouped])
    numbers = np.flatnonzero(sizes)
    if not len(numbers):
        return {}
    sizes = sizes[numbers]
    decided = labels.take(labels.decided)
    likelihood = [_log_likelihood(state, np.flatnonzero(grouped & (group == one)), decided) for one in numbers]
    chance = len(decided) * np.log(0.5)
    prior = np.append((1 - _AT_RANDOM) * sizes / sizes.sum(), _AT_RANDOM)
    found = softmax(TEMPER * np.append(likelihood, chance) + np.log(prior))
    return dict(zip(numbers.tolist(), found[:-1].tolist(), strict=True))


def _log_likelihood(state: GraphState, members: np.ndarray, labels: Comparisons) -> float:
    """Log-probability of decided labels under the mean prediction of a group's members (rows)."""
    members = members[np.linspace(0, len(members) - 1, min(len(members), _MEMBERS)).astype(int)]
    left = expit(state.log_odds(state.user_vectors[members], labels.left, labels.right)).mean(0)
    chosen = np.where(labels.outcome > 0.5, left, 1 - left)
    return float(np.log(np.clip(chosen, _LEAST, 1 - _LEAST)).sum())
