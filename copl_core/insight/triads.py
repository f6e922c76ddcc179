"""Preferences that go in circles: intransitive triads among a user's own labels, against what noise alone makes.

A triad is three responses of which a user compared all three pairs; it is *circular* if a ≻ b, b ≻ c and c ≻ a
(M. G. Kendall and B. Babington Smith, Biometrika 31, 1940).  Under Bradley–Terry every single answer is drawn, so some
triads are circular by noise: with the fitted probabilities p, each from scores alone::

    P(circular)  =  p_ab p_bc p_ca  +  (1 − p_ab) (1 − p_bc) (1 − p_ca)

The counts of a user's triads depend on each other where they share a pair, so their distribution under noise is
simulated: every answer is drawn again, and the same triads are counted.

What the fit does not know of a user makes its probabilities less certain than the user is, and circles by noise look
more frequent than they are.  So fewer circles than expected are usual, and only more are a finding.  numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from copl_core.preference.state import GraphState
from copl_core.records import Comparisons

DRAWS = 200  # simulated sets of answers
MOST = 100_000  # triads counted; beyond it a sample of the triads stands for all
_MOST_WEDGES = 4_000_000  # pairs of comparisons with one response in common among which triads are looked for


@dataclass(frozen=True, slots=True)
class Triads:
    """For T triads among E comparisons, each the first of its user on a pair, the response with the lower row first.

    Triad (a, b, c) with rows a < b < c has the comparisons (a, b), (b, c) and (a, c).
    """

    user: np.ndarray  # (E,)
    low: np.ndarray  # (E,) response row
    high: np.ndarray  # (E,)
    low_wins: np.ndarray  # (E,) bool
    edges: np.ndarray  # (T, 3) rows of the comparisons
    n_found: int  # triads there are; T is smaller where a sample stands for them

    @property
    def owner(self) -> np.ndarray:
        """User of each triad, (T,)."""
        return self.user[self.edges[:, 0]]

    def circular(self, low_wins: np.ndarray) -> np.ndarray:
        """Mask (T,) of circular triads if the comparisons went as ``low_wins`` (E,) says."""
        first, second, third = (low_wins[self.edges[:, i]] for i in range(3))
        return (first == second) & (second != third)


@dataclass(frozen=True, slots=True)
class TriadSummary:
    """Circular triads of some users, and how many noise alone would make."""

    n_users: int  # with a triad
    n_triads: int
    circular: int
    expected: float
    low: int  # 95 % of simulated counts lie between these
    high: int

    @property
    def more(self) -> bool:
        """Whether there are more than noise makes."""
        return self.circular > self.high


@dataclass(frozen=True, slots=True)
class TriadCounts:
    """Circular triads of each of K users who have a triad."""

    user: np.ndarray  # (K,)
    n_triads: np.ndarray  # (K,)
    circular: np.ndarray  # (K,)
    expected: np.ndarray  # (K,) under noise alone
    simulated: np.ndarray  # (S, K) counts in simulated sets of answers
    n_found: int  # triads of all users; more than counted where a sample stands for them

    def summary(self, chosen: np.ndarray | slice = slice(None)) -> TriadSummary:
        """Of the users of a mask (K,), or of all."""
        total = self.simulated[:, chosen].sum(1)
        low, high = np.quantile(total, (0.025, 0.975), method="closest_observation") if len(total) else (0, 0)
        return TriadSummary(
            len(self.user[chosen]),
            int(self.n_triads[chosen].sum()),
            int(self.circular[chosen].sum()),
            float(self.expected[chosen].sum()),
            int(low),
            int(high),
        )

    @property
    def chance(self) -> np.ndarray:
        """(K,) share of simulated sets with as many circles as observed or more; the observed set counts as one."""
        return ((self.simulated >= self.circular).sum(0) + 1) / (len(self.simulated) + 1)


def find_triads(labels: Comparisons, n_responses: int, seed: int = 0, most: int = MOST) -> Triads:
    """The triads among each user's decided labels; of several labels on one pair the first counts."""
    labels = labels.take(labels.decided)
    low, high = np.minimum(labels.left, labels.right), np.maximum(labels.left, labels.right)
    ends = (labels.user * n_responses + low) * n_responses + high
    key, first = np.unique(ends, return_index=True)  # ascending: by user, lower row, higher row
    user, low, high = labels.user[first], low[first], high[first]
    low_wins = (labels.outcome[first] > 0.5) == (labels.left[first] == low)
    rng = np.random.default_rng(seed)
    begins = user * n_responses + low
    start, end = (np.searchsorted(begins, user * n_responses + high, side) for side in ("left", "right"))
    one, two, share = _wedges(start, end - start, rng)
    closing = (user[one] * n_responses + low[one]) * n_responses + high[two]
    three = np.minimum(np.searchsorted(key, closing), max(0, len(key) - 1))
    closed = key[three] == closing if len(key) else np.zeros(0, bool)
    edges = np.column_stack([one, two, three])[closed]
    n_found = round(len(edges) / share)
    if len(edges) > most:
        edges = edges[np.sort(rng.choice(len(edges), most, replace=False))]
    return Triads(user, low, high, low_wins, edges, n_found)


def _wedges(start: np.ndarray, count: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Comparisons (W,) and, for each, one (W,) that starts where it ends; and the share of all such pairs they are.

    Args:
        start, count: (E,) the first such comparison of each, and how many follow it.
    """
    chosen, total = np.arange(len(start)), int(count.sum())
    if total > _MOST_WEDGES:
        chosen = rng.permutation(len(start))
        chosen = np.sort(chosen[: int(np.searchsorted(np.cumsum(count[chosen]), _MOST_WEDGES))])
    count = count[chosen]
    one = np.repeat(chosen, count)
    within = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
    return one, start[one] + within, len(one) / total if total else 1.0


def low_wins_probability(state: GraphState, triads: Triads) -> np.ndarray:
    """P(the response with the lower row is preferred) of each comparison (E,), by scores alone."""
    vectors = state.response_vectors
    own = state.user_vectors[triads.user]
    margin = (own * (vectors[triads.low] - vectors[triads.high])).sum(1)
    margin = margin + state.response_bias[triads.low] - state.response_bias[triads.high]
    if state.user_inverse_temperature is not None:
        margin = margin * state.user_inverse_temperature[triads.user]
    return expit(margin / state.temperature)


def count_triads(triads: Triads, p: np.ndarray, seed: int = 0, draws: int = DRAWS) -> TriadCounts:
    """Circular triads of each user, and of as many simulated sets of answers as ``draws``.

    Args:
        p: (E,) probability that the response with the lower row is preferred in each comparison.
    """
    users, owner = np.unique(triads.owner, return_inverse=True)
    one, two, three = (p[triads.edges[:, i]] for i in range(3))
    expected = one * two * (1 - three) + (1 - one) * (1 - two) * three
    rng, simulated = np.random.default_rng(seed), np.zeros((draws, len(users)), np.int32)
    for draw in simulated:
        draw += np.bincount(owner[triads.circular(rng.random(len(p)) < p)], minlength=len(users)).astype(np.int32)
    return TriadCounts(
        users,
        np.bincount(owner, minlength=len(users)),
        np.bincount(owner[triads.circular(triads.low_wins)], minlength=len(users)),
        np.bincount(owner, expected, minlength=len(users)),
        simulated,
        triads.n_found,
    )
