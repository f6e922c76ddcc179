"""Circular triads: a cyclic world has more than Bradley–Terry makes by noise, and a Bradley–Terry world has not."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.special import expit

from copl_core.insight.triads import TriadCounts, count_triads, find_triads, low_wins_probability
from copl_core.records import Comparisons, TrainingData
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK

SIZE = 3  # responses of a prompt


def world(seed: int, circling: float, n_users: int = 30, n_prompts: int = 20, per_user: int = 12) -> TrainingData:
    """Labels by Bradley–Terry of two camps, or with margins ``circling`` around each prompt's three responses."""
    rng = np.random.default_rng(seed)
    utility = rng.normal(size=(2, SIZE * n_prompts))
    rows = []
    for user in range(n_users):
        for prompt in rng.choice(n_prompts, per_user, replace=False).tolist():
            for a, b in combinations(range(SIZE), 2):
                left, right = SIZE * prompt + a, SIZE * prompt + b
                margin = utility[user % 2, left] - utility[user % 2, right]
                if circling:
                    margin = circling if b - a == 1 else -circling
                wins = rng.random() < expit(margin)
                rows.append((user, left, right, wins) if rng.random() < 0.5 else (user, right, left, not wins))
    labels = Comparisons.build(*np.array(rows, float).T)
    n = SIZE * n_prompts
    texts = tuple(f"Answer {i}." for i in range(n))
    prompts = tuple(f"Question {i}?" for i in range(n_prompts))
    return TrainingData(np.arange(n_users), np.arange(n), np.repeat(np.arange(n_prompts), SIZE), prompts, texts, labels)


def counted(data: TrainingData) -> TriadCounts:
    phi = np.random.default_rng(0).normal(size=(data.n_responses, 6)).astype(np.float32)
    state = fit_graph(data, phi, QUICK, seed=0)
    found = find_triads(state.labels, data.n_responses)
    return count_triads(found, low_wins_probability(state, found))


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_by_scores_have_no_more_circles_than_noise_makes(seed):
    counts = counted(world(seed, 0.0))
    total = counts.summary()
    assert (total.n_users, total.n_triads) == (30, 30 * 12)
    assert total.circular > 0 and not total.more and total.high < total.n_triads / 3
    assert (counts.chance <= 0.025).sum() <= 3


def test_preferences_that_go_in_circles_are_found_in_all_and_in_single_people():
    counts = counted(world(0, 2.0))
    total = counts.summary()
    assert total.more and total.circular > 1.5 * total.high
    assert (counts.chance <= 0.025).mean() > 0.6
    half = counts.summary(counts.user % 2 == 0)
    assert half.more and half.n_triads == total.n_triads / 2


def some_labels(seed: int = 0) -> Comparisons:
    """Random labels with ties, repeats and two users who share responses."""
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 7, 60)
    return Comparisons.build(
        rng.integers(0, 2, 60), left, (left + rng.integers(1, 7, 60)) % 7, rng.choice([0, 1, 0.5], 60)
    )


def by_hand(labels: Comparisons) -> tuple[int, int]:
    """Triads and circular triads, by the definition."""
    first: dict[tuple[int, int, int], int] = {}
    for user, left, right, outcome in zip(labels.user, labels.left, labels.right, labels.outcome, strict=True):
        if outcome != 0.5:
            first.setdefault((user, min(left, right), max(left, right)), left if outcome == 1 else right)
    wins = {(user, won, a + b - won) for (user, a, b), won in first.items()}
    triads = circles = 0
    for user in (0, 1):
        for three in combinations(range(7), 3):
            known = all((user, a, b) in first for a, b in combinations(three, 2))
            ways = [all((user, *edge) in wins for edge in ((a, b), (b, c), (c, a))) for a, b, c in permutations(three)]
            triads, circles = triads + known, circles + any(ways)
    return triads, circles


@pytest.mark.parametrize("seed", range(3))
def test_triads_are_those_of_the_definition_and_the_first_of_several_labels_counts(seed):
    labels = some_labels(seed)
    found = find_triads(labels, 7)
    assert (len(found.edges), int(found.circular(found.low_wins).sum())) == by_hand(labels)
    assert found.n_found == len(found.edges) > 0


def test_swapped_sides_and_turned_outcomes_leave_the_circles():
    labels = some_labels()
    as_given = find_triads(labels, 7)
    for other in (
        Comparisons.build(labels.user, labels.right, labels.left, 1 - labels.outcome),
        Comparisons.build(labels.user, labels.left, labels.right, 1 - labels.outcome),
    ):
        found = find_triads(other, 7)
        assert found.circular(found.low_wins).tolist() == as_given.circular(as_given.low_wins).tolist()


def test_fair_coins_make_a_quarter_of_the_triads_circular_and_certain_answers_none():
    found = find_triads(world(0, 0.0).labels, 60)
    coins = count_triads(found, np.full(len(found.user), 0.5))
    assert coins.expected.sum() == len(found.edges) / 4
    assert coins.simulated.sum(1).mean() == pytest.approx(len(found.edges) / 4, rel=0.03)
    certain = count_triads(found, np.ones(len(found.user)))  # the lower row always wins: a ranking
    assert not certain.expected.any() and not certain.simulated.any()


def test_of_many_triads_a_sample_is_counted_and_says_of_how_many():
    labels = world(0, 0.0).labels
    found = find_triads(labels, 60, most=100)
    assert len(found.edges) == 100 and found.n_found == 360


def test_without_triads_there_is_nothing_to_count():
    found = find_triads(some_labels().take(np.zeros(0, int)), 7)
    total = count_triads(found, np.zeros(0)).summary()
    assert (total.n_users, total.n_triads, total.circular, total.high) == (0, 0, 0, 0) and not total.more
