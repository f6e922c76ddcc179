"""Noise for counts: its distribution is the one that the privacy of the counts rests on."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.noise import best_auc, deviation, two_sided_geometric


@pytest.mark.parametrize(("epsilon", "sensitivity"), [(1.0, 1), (0.5, 4), (2.0, 3)])
def test_two_counts_that_one_person_tells_apart_are_about_as_likely(epsilon, sensitivity):
    """P(noise = k) against P(noise = k − Δ): the ratio is exp(ε) at most, which is differential privacy."""
    n = 400_000
    found = Counter(two_sided_geometric(n, epsilon, sensitivity, Random(0)))
    for k in range(-2 * sensitivity, 3 * sensitivity):
        if min(found[k], found[k - sensitivity]) > 2000:
            ratio = found[k] / found[k - sensitivity]
            slack = 4 * math.sqrt(1 / found[k] + 1 / found[k - sensitivity])
            assert math.exp(-epsilon) - slack < ratio < math.exp(epsilon) * (1 + slack)


@given(st.floats(0.05, 5), st.integers(1, 20))
def test_the_deviation_is_that_of_the_draws(epsilon, sensitivity):
    drawn = np.array(two_sided_geometric(4000, epsilon, sensitivity, Random(1)))
    spread = deviation(epsilon, sensitivity)
    assert abs(drawn.mean()) < 5 * spread / math.sqrt(len(drawn))
    assert drawn.std() == pytest.approx(spread, rel=0.15, abs=0.05)


def test_two_draws_of_the_operating_system_differ():
    assert two_sided_geometric(50, 0.1, 10) != two_sided_geometric(50, 0.1, 10)


def test_the_best_attack_on_nothing_is_chance_and_grows_with_epsilon():
    assert best_auc(0) == 0.5 and best_auc(1) == pytest.approx(0.731, abs=1e-3)
    assert best_auc(1) < best_auc(2) < best_auc(10) < 1
