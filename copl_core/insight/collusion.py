"""Accounts whose answers follow those of others more exactly than a person follows their own.

Like-minded people agree, and that is taste.  But nobody is more predictable than consistent: with P(first preferred) =
p on a pair, two answers of one person agree in a share c, the mean of p² + (1 − p)², and a forecast that does not know
the answer is right in a share max(p, 1 − p) at most: on average (1 + √(2c − 1)) / 2 at most (``insight.ceiling``).

So each account's answers to one half of the pairs are forecast by the accounts that answered the other half most like
it, and the number of right forecasts is tested against that bound (binomial test, one-sided). The halves change places.
Ties are left out of forecasts and consistency alike: people decide some pairs always and others never, so what they do
with ties says nothing about the answers that are compared. Accounts are named at a false discovery rate (Y. Benjamini
and Y. Hochberg, JRSS B 57, 1995). It is after the copying indices of examinations (J. A. Wollack, Applied Psychological
Measurement 21, 1997), with people's consistency in place of a model of ability.

The bound is that of careful people, not of the average: a careful minority with a taste of its own agrees in more cases
than the average person does with themselves. That has a price (``benchmarks.liars``): accounts with fewer than about
three hundred answers are never named, nor those that differ from one another as often as careful people do. Without
repeated pairs, or with few people, nobody is named. The figure is symmetric: of two accounts with one list of answers
it names both, also the one that was copied. So it is a question to an owner and never a reason to leave anybody out.
Numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import bdtrc

from copl_core.insight.ceiling import best_accuracy
from copl_core.insight.quality import preferred_response, repeated_answers
from copl_core.records import Choice
from copl_core.study_settings import CHECK_REASONS, AnswerTable, SelectionReason

CAREFUL = 0.98  # right forecasts of somebody who gives the same answer again in 96 %, as few people do
FEWEST_ANSWERS = 100  # forecast answers of an account; with fewer no number of right forecasts proves anything
FEWEST_REPEATS = 50  # decided, in the study, below which its people's consistency is unknown
FEWEST_PEOPLE = 20  # who have decided pairs, below which answers that agree say nothing about copies
RATE = 0.01  # expected share of honest accounts among those that are named
_PRIOR = 10.0  # repeats of a typical person that each person's consistency starts from
_QUARTER = 0.75  # the quantile of people that stands for a consistent person
_COPY = 0.99  # agreement of accounts that copy, with which neighbours are weighed
_NEAR = 32  # accounts that forecast
_BLOCK = 256  # accounts forecast at once
_CHECKS = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]
_DECIDED = [list(Choice).index(side) for side in (Choice.LEFT, Choice.RIGHT)]


@dataclass(frozen=True, slots=True)
class Alike:
    """How exactly the answers of an account follow those of others."""

    user_id: int
    hits: int  # right forecasts
    n: int
    bound: float  # the largest credible share
    p: float  # probability of as many hits or more at the bound
    others: tuple[int, ...]  # ids of named accounts among those that answer most alike, the most alike first


def bound_of(answers: AnswerTable) -> float:
    """The largest share of right forecasts that is credible here; NaN where the study has too few repeats.

    It is that of the more consistent quarter of people, and of a careful person at least.  Each person's share is drawn
    towards that of everybody, since most have few repeats.
    """
    answers = _decided(answers)
    user, same = repeated_answers(answers.user, answers.pair, preferred_response(answers))
    if len(user) < FEWEST_REPEATS:
        return math.nan
    _, row = np.unique(user, return_inverse=True)
    hits, n = np.bincount(row, same), np.bincount(row)
    shares = (hits + _PRIOR * same.mean()) / (n + _PRIOR)
    return max(CAREFUL, float(best_accuracy(np.quantile(shares, _QUARTER))))


def alike(answers: AnswerTable, *, bound: float | None = None, rate: float = RATE) -> list[Alike]:
    """The accounts whose answers follow those of others more exactly than consistency allows, the clearest first.

    Args:
        answers: of the accounts that count; repeated pairs among them give the consistency.
        bound: the largest credible share of right forecasts; None: ``bound_of``.
        rate: false discovery rate.
    """
    answers = _decided(answers)
    if len(np.unique(answers.user)) < FEWEST_PEOPLE:
        return []
    bound = bound_of(answers) if bound is None else bound
    if math.isnan(bound):
        return []
    users, table = _table(answers)
    if not len(users) or bound >= 1:
        return []
    half = np.random.default_rng(0).permutation(table.shape[1]) % 2 == 0
    hits, n, near = np.zeros(len(users), int), np.zeros(len(users), int), [np.zeros(0, int)] * len(users)
    for chosen in (half, ~half):
        for rows, weights, order in _nearest(table[:, chosen], bound):
            right, known = _forecast(table[:, ~chosen], rows, weights)
            hits[rows] += right
            n[rows] += known
            for row, found in zip(rows.tolist(), order, strict=True):
                near[row] = np.concatenate([near[row], found])
    tested = np.flatnonzero(n >= FEWEST_ANSWERS)
    p = np.ones(len(users))
    p[tested] = bdtrc(hits[tested] - 1, n[tested], bound)
    named = tested[_discoveries(p[tested], rate)]
    ids = {row: int(users[row]) for row in named.tolist()}
    return [
        Alike(
            ids[row],
            int(hits[row]),
            int(n[row]),
            bound,
            float(p[row]),
            tuple(ids[one] for one in dict.fromkeys(near[row].tolist()) if one in ids),
        )
        for row in named.tolist()
    ]


def _decided(answers: AnswerTable) -> AnswerTable:
    """The preferences with a side: no checks and no ties."""
    return answers.take(~np.isin(answers.selection_reason, _CHECKS) & np.isin(answers.choice, _DECIDED))


def _table(answers: AnswerTable) -> tuple[np.ndarray, csr_array]:
    """(ids (U,) of users with enough answers, their first answers (U, P): ±1, 0 for none)."""
    key = answers.user * (answers.pair.max(initial=0) + 1) + answers.pair
    answers = answers.take(np.sort(np.unique(key, return_index=True)[1]))
    ids, row = np.unique(answers.user, return_inverse=True)
    enough = np.bincount(row, minlength=len(ids)) >= FEWEST_ANSWERS
    answers, row = answers.take(enough[row]), (np.cumsum(enough) - 1)[row[enough[row]]]
    _, pair = np.unique(answers.pair, return_inverse=True)
    sign = np.where(preferred_response(answers) == np.minimum(answers.left, answers.right), 1.0, -1.0)
    shape = (int(enough.sum()), int(pair.max(initial=-1)) + 1)
    return ids[enough], csr_array((sign, (row, pair)), shape=shape)


def _nearest(table: csr_array, bound: float) -> Iterator[tuple[np.ndarray, csr_array, list[np.ndarray]]]:
    """Blocks of rows, the weights (rows, U) of the accounts that forecast them, and these accounts, the nearest first.

    A weight is the log-likelihood ratio of copying, against two people of the bound's consistency.
    """
    c = min(_COPY - 0.01, (1 + (2 * bound - 1) ** 2) / 2)
    met = abs(table)
    for start in range(0, table.shape[0], _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, table.shape[0]))
        shared, balance = (met[rows] @ met.T).toarray(), (table[rows] @ table.T).toarray()
        agreed, differed = (shared + balance) / 2, (shared - balance) / 2
        score = agreed * math.log(_COPY / c) + differed * math.log((1 - _COPY) / (1 - c))
        score[np.arange(len(rows)), rows] = 0.0
        order = np.argsort(-score, axis=1, kind="stable")[:, :_NEAR]
        best = np.maximum(np.take_along_axis(score, order, 1), 0.0)
        place = np.repeat(np.arange(len(rows)), order.shape[1])
        weights = csr_array((best.ravel(), (place, order.ravel())), shape=score.shape)
        yield rows, weights, [found[weight > 0] for found, weight in zip(order, best, strict=True)]


def _forecast(table: csr_array, rows: np.ndarray, weights: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(right forecasts, forecasts) of each of the rows (B,) on the pairs of the table, by the weighted vote of others;
    pairs on which the vote is even have none.
    """
    own = table[rows]
    vote = (weights @ table).multiply(abs(own)).sign()
    balance = np.asarray(vote.multiply(own).sum(1)).ravel()
    n = np.asarray(abs(vote).sum(1)).ravel()
    return np.rint((n + balance) / 2).astype(int), np.rint(n).astype(int)


def _discoveries(p: np.ndarray, rate: float) -> np.ndarray:
    """Rows of the p-values (N,) that are discoveries at a false discovery rate, the smallest first."""
    order = np.argsort(p, kind="stable")
    below = p[order] <= rate * np.arange(1, len(p) + 1) / max(len(p), 1)
    return order[: int(np.flatnonzero(below).max(initial=-1)) + 1]
