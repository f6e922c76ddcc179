"""The accuracy that self-consistency allows: nobody can predict answers that their own person does not repeat.

After arXiv 2405.19534 (Preference learning algorithms do not learn preference rankings), which compares an accuracy
with the one of an ideal model.  Here that one follows from repeated pairs.  Assume symmetric noise: each answer to a
pair is the person's preference with probability 1 − ε and the opposite one otherwise, independently of the other
answers.  Two answers agree with probability c = (1 − ε)² + ε², so that::

    best accuracy  =  1 − ε  =  (1 + √(2c − 1)) / 2,        ½ for c ≤ ½

The function is concave in c: where ε differs between people and pairs, the value at the mean c is above the mean of the
values, so it stays a ceiling.  It holds for pairs like the repeated ones, and it is too high where people remember
their first answer.  numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.insight.quality import Share, preferred_response, repeated_answers
from copl_core.study_settings import AnswerTable, SelectionReason

FEWEST_REPEATS, FEWEST_USERS = 30, 5  # below either there is no ceiling
_SAMPLES = 2000  # of the bootstrap over users
_CHECKS = [list(SelectionReason).index(reason) for reason in (SelectionReason.GOLD, SelectionReason.PRACTICE)]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The highest accuracy that any predictor of single answers can reach, with its 95 % interval."""

    accuracy: float
    low: float
    high: float
    consistent: float  # c, the share of repeats with the same answer
    n_repeats: int  # with both answers decided
    n_users: int


def best_accuracy(consistent: np.ndarray | float) -> np.ndarray:
    """(1 + √(2c − 1)) / 2 of shares c of any shape, ½ for c ≤ ½."""
    return (1 + np.sqrt(np.maximum(2 * np.asarray(consistent, float) - 1, 0))) / 2


def ceiling(answers: AnswerTable, seed: int = 0) -> Ceiling | None:
    """From the decided preferences of ``answers``, as ``ceiling_of``."""
    preferred = preferred_response(answers)
    answers = answers.take((preferred >= 0) & ~np.isin(answers.selection_reason, _CHECKS))
    return ceiling_of(answers.user, answers.pair, preferred_response(answers), seed)


def ceiling_of(user: np.ndarray, pair: np.ndarray, preferred: np.ndarray, seed: int = 0) -> Ceiling | None:
    """None with too few repeats or too few people who repeat.

    The interval is that of a bootstrap over users, whose repeats are correlated, or Wilson's where it is wider: without
    a disagreement all samples are equal.

    Args:
        user, pair, preferred: (N,) of each decided answer, oldest first; ``preferred`` is a response.
    """
    user, same = repeated_answers(user, pair, preferred)
    users, row = np.unique(user, return_inverse=True)
    if len(user) < FEWEST_REPEATS or len(users) < FEWEST_USERS:
        return None
    hits, n = np.bincount(row, same), np.bincount(row)
    draws = np.random.default_rng(seed).multinomial(len(users), np.full(len(users), 1 / len(users)), _SAMPLES)
    low, high = np.quantile(draws @ hits / (draws @ n), (0.025, 0.975))
    repeats = Share(int(same.sum()), len(same))
    low, high = min(low, repeats.interval[0]), max(high, repeats.interval[1])
    best, best_low, best_high = (float(best_accuracy(share)) for share in (repeats.share, low, high))
    return Ceiling(best, best_low, best_high, repeats.share, repeats.n, len(users))
