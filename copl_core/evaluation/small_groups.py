"""What answers about a small group tell about one of its people.

Three attacks.  *Membership*: was this person in the group, by the group's mean reward on what they labelled.
*Difference*: of a group's share with somebody and its share without them, k·share − (k − 1)·share is that person's own
probability.  *Interval*: an answer with the mean and the 5th and 95th percentile of k people is three linear equations
in their sorted probabilities, so up to three people are read exactly.

Groups for the first are made of people who answer alike, as those of the map are, but of any size; for the second they
are drawn at random, as a group by name, place or team is.

Shapes: U people, N labels, k people of a group.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from copl_core.evaluation.observers import signed
from copl_core.insight.layout import answer_space
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.rounding import rounded

SIZES = (2, 3, 5, 10, 20)
SHARE_STEPS = (("exact", 0.0), ("in thousandths", 0.001), ("in percent", 0.01), ("in steps of 5 %", 0.05))
QUERIES = 10
_PERCENTILES = (0.05, 0.95)  # of a group's people, as the reward page and the server show them


def nearest(state: GraphState) -> np.ndarray:
    """(U, U) for each person all people by likeness of their answers, themselves first."""
    place = (state.user_vectors @ answer_space(state)).astype(np.float64)
    square = (place**2).sum(1)
    apart = square[:, None] - 2 * place @ place.T + square
    np.fill_diagonal(apart, -np.inf)
    return np.argsort(apart, axis=1, kind="stable")


def at_random(n_people: int, seed: int) -> np.ndarray:
    """(U, largest size) for each person some people in random order, themselves first."""
    rng = np.random.default_rng([seed, 11])
    largest = max(sizes_for(n_people), default=1)
    others = np.stack([rng.choice(n_people - 1, largest - 1, replace=False) for _ in range(n_people)])
    own = np.arange(n_people)[:, None]
    return np.concatenate([own, others + (others >= own)], 1)


def sizes_for(n_people: int) -> tuple[int, ...]:
    """The sizes of groups that a study of so many people can have at least two of."""
    return tuple(size for size in SIZES if 2 * size <= n_people)


def group_vectors(state: GraphState, near: np.ndarray, size: int, inside: np.ndarray) -> np.ndarray:
    """(U, d) mean vector of a group around each person: with them where ``inside`` (U,), else of others alone."""
    first = np.where(inside, 0, 1)[:, None]
    members = np.take_along_axis(near, first + np.arange(size), 1)
    return state.user_vectors[members].mean(1)


def group_margins(
    state: GraphState, near: np.ndarray, size: int, inside: np.ndarray, labels: Comparisons
) -> np.ndarray:
    """Log-odds (N,) by the group around each label's person, of what they preferred."""
    vectors = group_vectors(state, near, size, inside)
    return signed(state.margins(labels, vectors[labels.user]), labels)


def in_groups_of(state: GraphState, near: np.ndarray, size: int) -> np.ndarray:
    """(U, d) mean vector of each person's group, where all people are divided into groups of ``size`` or a few more."""
    vectors, free = np.zeros_like(state.user_vectors), np.ones(len(near), bool)
    while free.any():
        order = near[np.flatnonzero(free)[0]]
        members = order[free[order]]
        members = members if len(members) < 2 * size else members[:size]
        vectors[members], free[members] = state.user_vectors[members].mean(0), False
    return vectors


def shares(state: GraphState, order: np.ndarray, size: int, labels: Comparisons) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities (N,) of left in the group of each label's person, with them and without them."""
    difference, bias = state.differences(labels.left, labels.right)
    members = state.user_vectors[order[labels.user, :size]]  # (N, k, d)
    wins = expit((np.einsum("nkd,nd->nk", members, difference) + bias[:, None]) / state.temperature)
    return wins.mean(1), wins[:, 1:].mean(1)


def by_difference(with_them: np.ndarray, without: np.ndarray, size: int, step: float) -> np.ndarray:
    """The estimate (N,) of one person's probability from two shares that are sent in multiples of ``step``."""
    return size * rounded(with_them, step) - (size - 1) * rounded(without, step)


def sent(wins: np.ndarray) -> np.ndarray:
    """(3, ...) mean, 5th and 95th percentile of the probabilities (k, ...) of a group's people."""
    return np.stack([wins.mean(0), *np.quantile(wins, _PERCENTILES, axis=0)])


def solved(answer: np.ndarray, size: int) -> np.ndarray:
    """Sorted probabilities (k, ...) of the people behind an answer (3, ...): exact up to three people, for more of them
    the shortest of all solutions."""
    rows = [np.full(size, 1 / size)]
    for share in _PERCENTILES:
        at = share * (size - 1)
        low = int(at)
        row = np.zeros(size)
        row[low] += 1 - (at - low)
        row[min(low + 1, size - 1)] += at - low
        rows.append(row)
    flat = answer.reshape(3, -1)
    found = np.linalg.lstsq(np.array(rows), flat, rcond=None)[0]
    return found.reshape(size, *answer.shape[1:])
