"""A bound on what one account weighs in a fit that all share.

No account weighs more than a share of all labels, or than a multiple of the median account where that is more.  Labels
of larger accounts weigh less, each by the same factor.  The factor is applied to the account's own rows too, likelihood
and prior alike: given what all share, the most probable row is the one without a bound.  So what an account answers
tells as much of its own taste as before, and less of what others see.

The bound is generous: people who label much are worth much, and tighter bounds cost accuracy on real files
(``benchmarks.liars``).  It stops one account from being most of what is learned.  Numpy only.
"""

from __future__ import annotations

import numpy as np

from copl_core.preference.config import Priors
from copl_core.records import Comparisons

FEWEST = 20  # accounts with labels, below which there is no bound: each is a large part of them


def account_factors(
    labels: Comparisons, weight: np.ndarray, n_users: int, share: float, times: float
) -> np.ndarray | None:
    """Factor (U,) float32 on the labels of each account, 1 for most.

    Args:
        weight: (N,) of each label, without a bound.
        share, times: as in ``largest``.

    Returns:
        None if no account is above the bound.
    """
    total = np.bincount(labels.user, weight, n_users)
    most = largest(total, share, times)
    if not (total > most).any():
        return None
    return np.minimum(1.0, most / np.maximum(total, 1e-12)).astype(np.float32)


def bounded_weight(labels: Comparisons, weight: np.ndarray, n_users: int) -> np.ndarray:
    """The weights (N,) of labels under the default bound, for models that have no row of an account."""
    factor = default_factors(labels, weight, n_users)
    return weight if factor is None else weight * factor[labels.user]


def default_factors(labels: Comparisons, weight: np.ndarray, n_users: int) -> np.ndarray | None:
    """``account_factors`` with the bound of a graph's default settings."""
    priors = Priors()
    return account_factors(labels, weight, n_users, priors.influence, priors.influence_times)


def largest(total: np.ndarray, share: float, times: float) -> float:
    """The largest weight of an account.

    Args:
        total: (U,) weight of all labels of each account.
        share: of the weight of all accounts, each being bounded; 0: no bound.
        times: multiple of the median account's weight, up to which no bound goes down.
    """
    total = np.sort(total[total > 0])[::-1]
    if not share or len(total) < FEWEST:
        return float("inf")
    return max(_by_share(total, share), times * float(np.median(total)))


def _by_share(total: np.ndarray, share: float) -> float:
    """The bound B = share · Σ min(total, B), for weights in descending order: with m accounts above it
    B = share · (what the others weigh) / (1 − m · share).
    """
    rest = total.sum() - np.cumsum(total) + total  # of the m-th account and all after it
    for above, weight in enumerate(rest.tolist()):
        if above * share >= 1:
            break
        bound = share * weight / (1 - above * share)
        if total[above] <= bound:
            return float(bound)
    return 0.0  # fewer accounts than shares
