"""How good the labels are: agreement between people, and what each person's answers say of their care.  Numpy only.

People differ, and the product is about how, so disagreeing with others is information about taste and never a flag.
A person is flagged only on what taste cannot explain: answering the same pair differently a second time, missing known
answers, preferring a side of the screen, or answering faster than anybody reads.  A share is given with its n and
Wilson's interval (E. B. Wilson, JASA 22, 1927), and a flag is raised only on enough answers, where the whole 95 %
interval is beyond its bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from copl_core.records import Choice
from copl_core.study_settings import CHECK_REASONS, AnswerTable, SelectionReason

FASTEST_SECONDS = 0.6  # to see two texts and press a key
FASTEST_READING = 150.0  # characters a second, about 25 words: three times what fast readers manage
SIDE_BOUND = 0.15  # beyond one half and beyond the share of left that others show
CONSISTENT_BOUND = 0.6  # a coin reaches one half
GOLD_BOUND = 0.75
FAST_BOUND = 0.2
FEWEST = {"left": 20, "fast": 10, "consistent": 5, "gold": 5}  # answers below which nobody is flagged
_FEW = 20  # decided answers of others below which half is taken for the usual share of left
_SAMPLES = 400  # of the bootstrap over pairs
_LEFT, _RIGHT = (list(Choice).index(side) for side in (Choice.LEFT, Choice.RIGHT))
_ATTENTION = [list(SelectionReason).index(reason) for reason in sorted(CHECK_REASONS)]
_GOLD, _PRACTICE = (
    list(SelectionReason).index(SelectionReason.GOLD),
    list(SelectionReason).index(SelectionReason.PRACTICE),
)


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` of ``n``."""

    hits: int
    n: int

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; everything while there is nothing."""
        if not self.n:
            return 0.0, 1.0
        z, p, n = 1.959964, self.share, self.n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # exact at the ends, where the rounding of the root would leave a hair
        low = 0.0 if self.hits == 0 else (middle - half) / (1 + z * z / n)
        return low, 1.0 if self.hits == n else (middle + half) / (1 + z * z / n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits} of {self.n} ({self.share:.0%}, 95 % interval {low:.0%} to {high:.0%})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Krippendorff's α of the answers of different people to one pair."""

    alpha: float  # 1 all agree, 0 as chance would, below 0 less than that; nan where no pair has two people
    low: float  # 95 % interval by bootstrap over pairs
    high: float
    observed: float  # share of two people's answers to one pair that are the same
    expected: float  # the same by chance
    n_pairs: int  # answered by two people or more
    n_labels: int  # on those pairs


@dataclass(frozen=True, slots=True)
class Figures:
    """What one person's answers show."""

    user_id: int
    n: int  # preferences that count
    left: Share  # of decided answers, on the left of the screen
    others_left: float  # the usual share of left among everybody else
    consistent: Share  # of repeats, answered as the first time
    gold: Share  # of gold pairs, answered right
    median_seconds: float  # nan where no time was measured
    fast: Share  # of timed answers, faster than anybody reads
    with_others: Share  # of pairs on which others have a majority, answered with it: about taste, never a flag
    flags: tuple[str, ...]


def agreement(answers: AnswerTable, rng: np.random.Generator) -> Agreement:
    """Nominal α over responses, not sides: two people agree who prefer the same response, wherever it stood.

    With c_v the m people who gave answer v to a pair, N answers in all and n_v of them v (K. Krippendorff, Content
    Analysis, 2004, ch. 11)::

        D_o = 1/N Σ_pairs (m² − Σ_v c_v²) / (m − 1)      D_e = (N² − Σ_v n_v²) / (N (N − 1))      α = 1 − D_o / D_e

    An answer is one of four: the pair's first response, its second, a tie, both bad.  Which response is called first
    is arbitrary, so both share their count in n_v; pooling raw response ids instead would make chance agreement vanish
    and α the bare share of agreement.  Of several answers of one person to one pair the first is taken.
    """
    counts = _answer_counts(answers)  # (P, 4)
    if not len(counts):
        return Agreement(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)
    m = counts.sum(1)
    disagreement = (m**2 - (counts**2).sum(1)) / (m - 1)
    observed, expected = _disagreements(disagreement[None], counts[None])
    again = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _SAMPLES)  # (S, P)
    sampled_o, sampled_e = _disagreements(again * disagreement, again[:, :, None] * counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        alphas = 1 - sampled_o / sampled_e
    alphas = alphas[np.isfinite(alphas)]
    low, high = np.quantile(alphas, (0.025, 0.975)) if len(alphas) else (math.nan, math.nan)
    alpha = 1 - float(observed[0] / expected[0]) if expected[0] > 0 else math.nan
    return Agreement(
        alpha, float(low), float(high), 1 - float(observed[0]), 1 - float(expected[0]), len(counts), int(m.sum())
    )


def figures(answers: AnswerTable) -> list[Figures]:
    """Figures of every person with an answer, by id.  Practice is left out."""
    answers = answers.take(answers.selection_reason != _PRACTICE)
    preferences = answers.take(answers.selection_reason != _GOLD)
    decided = np.isin(preferences.choice, (_LEFT, _RIGHT))
    left_of, decided_of = _sums(preferences.user, preferences.choice == _LEFT), _sums(preferences.user, decided)
    lefts, decisions = sum(left_of.values()), sum(decided_of.values())
    nothing = Share(0, 0)
    majority, repeated, gold = _with_majority(preferences), _repeats(preferences), _gold(answers)
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
    """Of the gold pairs that a person answered, those answered as is known to be right."""
    gold = answers.take((answers.selection_reason == _GOLD) & (answers.gold >= 0))
    hits = _sums(gold.user, _preferred(gold) == gold.gold)
    return {user: Share(hits[user], n) for user, n in _sums(gold.user, None).items()}


def _pace(answers: AnswerTable) -> dict[int, tuple[float, Share]]:
    """Median seconds of a person's timed answers, and how many of them were faster than anybody reads."""
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
    """What is beyond its bound with the whole interval, each as a sentence with its numbers."""
    flags = []
    enough = {name for name, fewest in FEWEST.items() if getattr(row, name).n >= fewest}
    low, high = row.left.interval
    # Sides are drawn at random, so a careful person is near one half even where the others are not.
    usual = (0.5, row.others_left)
    if "left" in enough and (low > max(usual) + SIDE_BOUND or high < min(usual) - SIDE_BOUND):
        side = "left" if low > max(usual) else "right"
        flags.append(
            f"Prefers the {side} side: chose the left answer in {row.left}; others do in {row.others_left:.0%}."
        )
    if "consistent" in enough and row.consistent.interval[1] < CONSISTENT_BOUND:
        flags.append(f"Answers repeated pairs differently: the same again in {row.consistent}; a coin reaches 50 %.")
    if "gold" in enough and row.gold.interval[1] < GOLD_BOUND:
        flags.append(f"Misses known answers: right in {row.gold}.")
    if "fast" in enough and row.fast.interval[0] > FAST_BOUND:
        flags.append(f"Answers faster than one can read: {row.fast}, with a median of {row.median_seconds:.1f} s.")
    return tuple(flags)


def _preferred(answers: AnswerTable) -> np.ndarray:
    """Response id (N,) that each answer prefers; -2 for a tie, -3 for both bad."""
    undecided = np.where(answers.choice == list(Choice).index(Choice.TIE), -2, -3)
    return np.select([answers.choice == _LEFT, answers.choice == _RIGHT], [answers.left, answers.right], undecided)


def _first_answers(answers: AnswerTable) -> AnswerTable:
    """Each person's first preference on each pair."""
    answers = answers.take(~np.isin(answers.selection_reason, _ATTENTION))
    _, first = np.unique(answers.user * (answers.pair.max(initial=0) + 1) + answers.pair, return_index=True)
    return answers.take(np.sort(first))


def _answer_counts(answers: AnswerTable) -> np.ndarray:
    """How many people gave each of the four answers (P, 4), of pairs that two people or more answered."""
    answers = _first_answers(answers)
    _, place = np.unique(answers.pair, return_inverse=True)
    preferred = _preferred(answers)
    value = np.select(
        [preferred == -2, preferred == -3, preferred == np.minimum(answers.left, answers.right)], [2, 3, 0], 1
    )
    counts = np.zeros((int(place.max(initial=-1)) + 1, 4))
    np.add.at(counts, (place, value), 1)
    return counts[counts.sum(1) >= 2]


def _disagreements(disagreement: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D_o, D_e), each (S,), of samples of pairs: disagreement (S, P), counts (S, P, 4)."""
    pooled = counts.sum(1)  # (S, 4)
    n = pooled.sum(1)
    pooled[:, :2] = pooled[:, :2].mean(1, keepdims=True)
    return disagreement.sum(1) / n, (n**2 - (pooled**2).sum(1)) / (n * (n - 1))


def _repeats(preferences: AnswerTable) -> dict[int, Share]:
    """Of pairs that a person answered again, how many they answered as the time before."""
    order = np.lexsort((np.arange(len(preferences)), preferences.pair, preferences.user))
    sorted_rows = preferences.take(order)
    again = (sorted_rows.user[1:] == sorted_rows.user[:-1]) & (sorted_rows.pair[1:] == sorted_rows.pair[:-1])
    preferred = _preferred(sorted_rows)
    same = _sums(sorted_rows.user[1:][again], (preferred[1:] == preferred[:-1])[again])
    return {user: Share(same[user], n) for user, n in _sums(sorted_rows.user[1:][again], None).items()}


def _with_majority(preferences: AnswerTable) -> dict[int, Share]:
    """Of a person's decided first answers, those that most others gave, where others have a majority."""
    answers = _first_answers(preferences)
    answers = answers.take(np.isin(answers.choice, (_LEFT, _RIGHT)))
    _, place = np.unique(answers.pair, return_inverse=True)
    first = _preferred(answers) == np.minimum(answers.left, answers.right)
    for_first = np.bincount(place, first, minlength=1)[place] - first  # votes of others
    for_second = np.bincount(place, ~first, minlength=1)[place] - ~first
    known = for_first != for_second
    hits = _sums(answers.user[known], (first == (for_first > for_second))[known])
    return {user: Share(hits[user], n) for user, n in _sums(answers.user[known], None).items()}


def _sums(users: np.ndarray, what: np.ndarray | None) -> dict[int, int]:
    """How many rows of each user there are, or for how many of them ``what`` holds."""
    ids, place = np.unique(users, return_inverse=True)
    counts = np.bincount(place, what, minlength=len(ids)).astype(int)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))
