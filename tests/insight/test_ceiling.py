"""The ceiling of accuracy from repeated pairs: the truth of a world with known noise, and nothing without repeats."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.insight.ceiling import FEWEST_REPEATS, best_accuracy, ceiling
from copl_core.records import Choice
from copl_core.study_settings import AnswerTable, SelectionReason

LEFT, RIGHT, TIE = (list(Choice).index(choice) for choice in (Choice.LEFT, Choice.RIGHT, Choice.TIE))


def twice(n_users: int, n_pairs: int, noise: float, seed: int = 0, reason: int = -1) -> AnswerTable:
    """Everybody answers every pair twice, sides swapped; response 2i is preferred unless noise turns the answer."""
    rng = np.random.default_rng(seed)
    user, pair, again = (axis.ravel() for axis in np.mgrid[:n_users, :n_pairs, :2])
    left, right = 2 * pair + again, 2 * pair + 1 - again
    choice = np.where((left % 2 == 0) != (rng.random(len(user)) < noise), LEFT, RIGHT)
    order = np.argsort(again, kind="stable")
    n = len(user)
    columns = (user, pair, left, right, choice, np.full(n, -1), np.full(n, reason), np.full(n, -1), np.full(n, 9))
    return AnswerTable(*(column[order] for column in columns), np.ones(n, bool), np.ones(n, np.int64))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25])
def test_the_ceiling_is_what_the_best_predictor_reaches(noise):
    answers = twice(40, 50, noise)
    found = ceiling(answers)
    best = ((answers.choice == LEFT) == (answers.left % 2 == 0)).mean()  # of a predictor that knows every preference
    assert found.low <= best <= found.high and found.accuracy == pytest.approx(1 - noise, abs=0.02)
    assert found.n_repeats == 2000 and found.n_users == 40


def test_the_formula_inverts_the_agreement_of_two_noisy_answers():
    noise = np.linspace(0, 0.5, 11)
    assert best_accuracy((1 - noise) ** 2 + noise**2) == pytest.approx(1 - noise)
    assert best_accuracy(0.3) == 0.5


def test_repeats_that_all_agree_still_leave_room_for_mistakes():
    found = ceiling(twice(6, 6, 0.0))
    assert found.accuracy == found.high == 1 and 0.9 < found.low < 0.97


def test_few_repeats_few_people_and_checks_say_nothing():
    assert ceiling(twice(5, 5, 0.1)) is None and 5 * 5 < FEWEST_REPEATS
    assert ceiling(twice(4, 50, 0.1)) is None
    assert ceiling(twice(40, 50, 0.1, reason=list(SelectionReason).index(SelectionReason.GOLD))) is None
    assert ceiling(twice(0, 0, 0.1)) is None


def test_ties_are_no_evidence_of_inconsistency():
    answers = twice(40, 50, 0.0)
    answers.choice[: len(answers) // 4] = TIE
    found = ceiling(answers)
    assert found.accuracy == found.high == 1 and found.n_repeats == 1000
