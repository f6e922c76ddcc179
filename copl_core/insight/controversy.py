"""Pairs that divide people: disagreement between groups, apart from noise within people.  Numpy only.

For a pair (a, b) let p_u = P(u prefers a).  Law of total variance over groups g with shares π_g and means p̄_g:

    Var(p_u) = Σ_g π_g (p̄_g − p̄)²   +   Σ_g π_g Var_g(p_u)
               between groups: controversy     within groups: individual taste and the model's doubt
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Division:
    """For P pairs: how the groups would answer and how far they are apart."""

    between: np.ndarray  # (P,) variance between groups, 0 to ¼
    within: np.ndarray  # (P,) variance within groups
    noise: np.ndarray  # (P,) mean p(1−p): the coin that each single person still throws
    by_group: np.ndarray  # (P, G) mean probability that the first response is preferred
    groups: np.ndarray  # (G,) the group of each column


def divide(probabilities: np.ndarray, group: np.ndarray) -> Division:
    """Split the spread of answers.

    Args:
        probabilities: (N, P), P(user prefers the first response).
        group: (N,) group of each user; negative means none, and such users are left out.
    """
    keep = group >= 0
    probabilities, group = probabilities[keep], group[keep]
    groups = np.unique(group)
    if not len(groups):
        empty = np.zeros(probabilities.shape[1])
        return Division(empty, empty, empty, np.zeros((probabilities.shape[1], 0)), groups)
    member = (group[:, None] == groups).astype(float)  # (N, G)
    share = member.mean(0)  # (G,)
    means = (member.T @ probabilities) / member.sum(0)[:, None]  # (G, P)
    squares = (member.T @ probabilities**2) / member.sum(0)[:, None]
    overall = share @ means
    return Division(
        between=share @ (means - overall) ** 2,
        within=np.maximum(0, share @ (squares - means**2)),
        noise=(probabilities * (1 - probabilities)).mean(0),
        by_group=means.T,
        groups=groups,
    )


def together(parts: Sequence[Division]) -> Division:
    """One division of all pairs from divisions of some pairs each, over the same users."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts])
               for name in ("between", "within", "noise", "by_group")}
    return Division(**columns, groups=parts[0].groups)
