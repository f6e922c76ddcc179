"""How good the labels are: agreement between users, and how careful each user is.  Numpy only.

Users differ, and the product is about how they differ: disagreement with others is information about taste and never a
flag.  Flags are raised only for what taste cannot explain: different answers to a repeated pair, missed known answers,
a preference for one side of the screen, and answers faster than anybody reads.  Each share comes with its n and
Wilson's interval (E. B. Wilson, JASA 22, 1927).  A flag needs enough answers, and the whole 95 % interval beyond the
bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from copl_core.records import Choice
from copl_core.study_settings import CHECK_REASONS, AnswerTable, SelectionReason

FASTEST_SECONDS = 0.6  # to see two texts and press a key
FASTEST_READING = 150.0  # characters per second, about 25 words: three times the pace of fast readers
SIDE_BOUND = 0.15  # distance from one half, and from the others' share of left
CONSISTENT_BOUND = 0.6  # random answers reach one half
GOLD_BOUND = 0.75
FAST_BOUND = 0.2
FEWEST = {"left": 20, "fast": 10, "consistent": 5, "gold": 5}  # answers that a flag needs
_FEW = 20  # decided answers of others below which one half stands for their share of left
_SAMPLES = 400  # of the bootstrap over pairs
TIE, BOTH_BAD = -2, -3  # in place of a preferred response id
_LEFT, _RIGHT = (list(Choice).index(side) for side in (Choice.LEFT, Choice.RIGHT))
_CHECKS = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]
_GOLD, _PRACTICE = (
    list(SelectionReason).index(SelectionReason.GOLD),
    list(SelectionReason).index(SelectionReason.PRACTICE),
)


@dataclass(frozen=True, slots=True)
class Share:
    """A share: ``hits`` of ``n``."""

    hits: int
    n: int

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; (0, 1) for n = 0."""
        if not self.n:
            return 0.0, 1.0
        z, p, n = 1.959964, self.share, self.n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # exact at the ends, where the square root would leave a rounding error
        low = 0.0 if self.hits == 0 else (middle - half) / (1 + z * z / n)
        return low, 1.0 if self.hits == n else (middle + half) / (1 + z * z / n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits} of {self.n} ({self.share:.0%}, 95% interval {low:.0%} to {high:.0%})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Krippendorff's α of the answers of different users to the same pairs."""

    alpha: float  # 1: all agree, 0: as by chance, below 0: less than by chance; NaN where no pair has two users
    low: float  # 95 % interval by bootstrap over pairs
    high: float
    observed: float  # share of equal answers among two users' answers to one pair
    expected: float  # the same by chance
    n_pairs: int  # answered by two users or more
    n_labels: int  # on those pairs


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one user's answers."""

    user_id: int
    n: int  # preferences that count
    left: Share  # of decided answers with a known position, those on the left of the screen
    others_left: float  # the share of left among all other users
    consistent: Share  # of repeated pairs, those answered the same as the time before
    gold: Share  # of gold pairs, those answered correctly
    median_seconds: float  # NaN where no time was measured
    fast: Share  # of timed answers, those faster than anybody reads
    with_others: Share  # of pairs on which others have a majority, those answered like it: taste, never a flag
    flags: tuple[str, ...]


def agreement(answers: AnswerTable, rng: np.random.Generator) -> Agreement:
    """Nominal α over responses, not sides: two users agree if they prefer the same response, on whichever side.

    With c_v of the m users of a pair giving answer v, N answers in all and n_v of them v (K. Krippendorff, Content
    Analysis, 2004, ch. 11)::

        D_o = 1/N Σ_pairs (m² − Σ_v c_v²) / (m − 1)      D_e = (N² − Σ_v n_v²) / (N (N − 1))      α = 1 − D_o / D_e

    An answer is one of four: the pair's first response, its second, a tie, both bad.  Which response is called first
    is arbitrary, so both share their count in n_v; with raw response ids instead, chance agreement would vanish and α
    would be the plain share of agreement.  Of several answers of one user to one pair, the first counts.
    """
    counts = _answer_counts(answers)  # (P, 4)
    if not len(counts):
        return Agreement(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)
    # Pairs with equal counts are drawn together: a hundred thousand pairs have a few dozen kinds of counts.  Which
    # response comes first is arbitrary, so the larger count does.
    counts[:, :2] = -np.sort(-counts[:, :2], axis=1)
    kinds, pairs = np.unique(counts, axis=0, return_counts=True)
    observed, expected = _disagreements(pairs[None], kinds)
    sampled_o, sampled_e = _disagreements(rng.multinomial(len(counts), pairs / len(counts), _SAMPLES), kinds)
    with np.errstate(invalid="ignore", divide="ignore"):
        alphas = 1 - sampled_o / sampled_e
    alphas = alphas[np.isfinite(alphas)]
    low, high = np.quantile(alphas, (0.025, 0.975)) if len(alphas) else (math.nan, math.nan)
    alpha = 1 - float(observed[0] / expected[0]) if expected[0] > 0 else math.nan
    return Agreement(
        alpha, float(low), float(high), 1 - float(observed[0]), 1 - float(expected[0]), len(counts), int(counts.sum())
    )


def figures(answers: AnswerTable) -> list[Figures]:
    """Figures of every user with an answer, by id.  Practice does not count."""
    answers = answers.take(answers.selection_reason != _PRACTICE)
    preferences = answers.take(answers.selection_reason != _GOLD)
    placed = np.isin(preferences.choice, (_LEFT, _RIGHT)) & preferences.position_known
    left_of = _sums(preferences.user, placed & (preferences.choice == _LEFT))
    decided_of = _sums(preferences.user, placed)
    lefts, decisions = sum(left_of.values()), sum(decided_of.values())
    nothing = Share(0, 0)
    majority, repeated, gold = _with_majority(preferences), _consistent(preferences), _gold(answers)
    counted, pace = _sums(preferences.user, None), _pace(answers)
    found = []
    for user in np.unique(answers.user).tolist():
        left = Share(left_of.get(user, 0), decided_of.get(user, 0))
        others = decisions - left.n
        usual = (lefts - left.hits) / others if others >= _FEW else 0.5
        median, fast = pace.get(user, (math.nan, nothing))
        row = Figures(
            user,
            counted.get(user, 0),
            left,
            usual,
            repeated.get(user, nothing),
            gold.get(user, nothing),
            median,
            fast,
            majority.get(user, nothing),
            (),
        )
        found.append(replace(row, flags=_flags(row)))
    return found


def _gold(answers: AnswerTable) -> dict[int, Share]:
    """Of each user's gold pairs, those answered correctly."""
    gold = answers.take((answers.selection_reason == _GOLD) & (answers.gold >= 0))
    return _shares(gold.user, preferred_response(gold) == gold.gold)


def _pace(answers: AnswerTable) -> dict[int, tuple[float, Share]]:
    """Median seconds of each user's timed answers, and the share of them that is faster than anybody reads."""
    timed = answers.take(answers.milliseconds >= 0)
    timed = timed.take(np.lexsort((timed.milliseconds, timed.user)))
    seconds = timed.milliseconds / 1000
    fast = (seconds < FASTEST_SECONDS) | (timed.characters > FASTEST_READING * seconds)
    users, starts, counts = np.unique(timed.user, return_index=True, return_counts=True)
    middle = (seconds[starts + (counts - 1) // 2] + seconds[starts + counts // 2]) / 2
    hits = _sums(timed.user, fast)
    return {
        user: (median, Share(hits[user], n))
        for user, median, n in zip(users.tolist(), middle.tolist(), counts.tolist(), strict=True)
    }


def _flags(row: Figures) -> tuple[str, ...]:
    """A sentence with its numbers for each figure whose whole interval is beyond the bound."""
    flags = []
    enough = {name for name, fewest in FEWEST.items() if getattr(row, name).n >= fewest}
    low, high = row.left.interval
    # Sides are random, so a careful user is near one half even where the others are not.
    usual = (0.5, row.others_left)
    if "left" in enough and (low > max(usual) + SIDE_BOUND or high < min(usual) - SIDE_BOUND):
        side = "left" if low > max(usual) else "right"
        flags.append(
            f"Prefers the {side} side: chose the left answer in {row.left}; others do in {row.others_left:.0%}."
        )
    if "consistent" in enough and row.consistent.interval[1] < CONSISTENT_BOUND:
        flags.append(f"Answers repeated pairs differently: the same in {row.consistent}; random answers reach 50%.")
    if "gold" in enough and row.gold.interval[1] < GOLD_BOUND:
        flags.append(f"Misses known answers: right in {row.gold}.")
    if "fast" in enough and row.fast.interval[0] > FAST_BOUND:
        flags.append(f"Answers faster than one can read: {row.fast}, with a median of {row.median_seconds:.1f} s.")
    return tuple(flags)


def preferred_response(answers: AnswerTable) -> np.ndarray:
    """Response id (N,) that each answer prefers; −2 for a tie, −3 for both bad."""
    undecided = np.where(answers.choice == list(Choice).index(Choice.TIE), TIE, BOTH_BAD)
    return np.select([answers.choice == _LEFT, answers.choice == _RIGHT], [answers.left, answers.right], undecided)


def repeated_answers(user: np.ndarray, pair: np.ndarray, preferred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(user (R,), whether the answer is the same as the time before (R,)) of every answer to a repeated pair.

    Args:
        user, pair: (N,) of each answer, oldest first.
        preferred: (N,) as by ``preferred_response``.
    """
    order = np.lexsort((np.arange(len(user)), pair, user))
    user, pair, preferred = user[order], pair[order], preferred[order]
    again = (user[1:] == user[:-1]) & (pair[1:] == pair[:-1])
    return user[1:][again], (preferred[1:] == preferred[:-1])[again]


def _first_answers(answers: AnswerTable) -> AnswerTable:
    """Each user's first preference on each pair."""
    answers = answers.take(~np.isin(answers.selection_reason, _CHECKS))
    _, first = np.unique(answers.user * (answers.pair.max(initial=0) + 1) + answers.pair, return_index=True)
    return answers.take(np.sort(first))


def _answer_counts(answers: AnswerTable) -> np.ndarray:
    """How many users gave each of the four answers (P, 4), for pairs that two users or more answered."""
    answers = _first_answers(answers)
    _, row = np.unique(answers.pair, return_inverse=True)
    preferred = preferred_response(answers)
    value = np.select(
        [preferred == TIE, preferred == BOTH_BAD, preferred == np.minimum(answers.left, answers.right)], [2, 3, 0], 1
    )
    counts = np.bincount(4 * row + value, minlength=4 * (int(row.max(initial=-1)) + 1)).reshape(-1, 4)
    return counts[counts.sum(1) >= 2].astype(float)


def _disagreements(weights: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D_o, D_e), each (S,), of S samples of pairs with the counts (K, 4), each as often as ``weights`` (S, K) say."""
    m = counts.sum(1)
    pooled = weights @ counts  # (S, 4)
    n = pooled.sum(1)
    pooled[:, :2] = pooled[:, :2].mean(1, keepdims=True)
    return weights @ ((m**2 - (counts**2).sum(1)) / (m - 1)) / n, (n**2 - (pooled**2).sum(1)) / (n * (n - 1))


def _consistent(preferences: AnswerTable) -> dict[int, Share]:
    """Of each user's repeated pairs, those answered the same as the time before."""
    return _shares(*repeated_answers(preferences.user, preferences.pair, preferred_response(preferences)))


def _with_majority(preferences: AnswerTable) -> dict[int, Share]:
    """Of each user's decided first answers on pairs where the others have a majority, those like the majority."""
    answers = _first_answers(preferences)
    answers = answers.take(np.isin(answers.choice, (_LEFT, _RIGHT)))
    _, row = np.unique(answers.pair, return_inverse=True)
    first = preferred_response(answers) == np.minimum(answers.left, answers.right)
    for_first = np.bincount(row, first, minlength=1)[row] - first  # votes of others
    for_second = np.bincount(row, ~first, minlength=1)[row] - ~first
    known = for_first != for_second
    return _shares(answers.user[known], (first == (for_first > for_second))[known])


def _shares(users: np.ndarray, hit: np.ndarray) -> dict[int, Share]:
    """User → share of their rows for which ``hit`` (N,) holds."""
    hits = _sums(users, hit)
    return {user: Share(hits[user], n) for user, n in _sums(users, None).items()}


def _sums(users: np.ndarray, mask: np.ndarray | None) -> dict[int, int]:
    """User → number of their rows, or of those for which ``mask`` (N,) holds."""
    ids, row = np.unique(users, return_inverse=True)
    counts = np.bincount(row, mask, minlength=len(ids)).astype(int)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))
