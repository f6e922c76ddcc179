"""What counts with noise tell: no more than their ε allows, however often they are read."""

from __future__ import annotations

import numpy as np

from copl_core.evaluation import shared_counts
from copl_core.evaluation.attacks import auc
from copl_core.evaluation.shared_counts import ALWAYS, DAYS, EPSILON, ONCE, guesses
from copl_core.noise import best_auc
from copl_core.study import shared


def test_the_attacks_are_on_counts_as_the_studio_makes_them():
    assert shared_counts.ANSWERS_A_DAY == shared.ANSWERS_A_DAY
    assert shared._parts(1.0, True)[1] == shared_counts.OF_SOURCES


def test_no_attack_finds_more_than_the_sum_of_the_days_allows():
    outcome = np.random.default_rng(0).random(6000) < 0.5
    found = {(seen, attack): auc(guess, outcome) for seen, attack, guess in guesses(outcome, 0)}
    assert found["exact", "one answer"] == 1.0
    one_day = found[ONCE, "a person's whole day, 10 readings"]
    assert 0.48 < found[ONCE, "one answer"] < 0.56 < one_day < best_auc(EPSILON)
    assert found[ALWAYS, "a person's whole day, 10 readings"] > one_day + 0.1, "noise that is drawn again averages out"
    assert one_day + 0.1 < found[ONCE, f"a person's {DAYS} days"] < best_auc(DAYS * EPSILON)
