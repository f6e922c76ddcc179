"""The probability of being in a group: high for those who are, low for those who answer at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.insight.membership import membership
from copl_core.records import Comparisons
from tests.worlds import graph_state

CLEAR = 0.6


def world(n_groups: int, seed: int = 0, *, decided: float = 1.5):
    """(state, group (U,)): the users of a group agree on each response up to a noise of their own."""
    rng = np.random.default_rng(seed)
    n_users, n_responses, dim = 30 * n_groups, 120, 8
    group = np.arange(n_users) % n_groups
    centres = rng.normal(size=(n_groups, dim))
    vectors = centres[group] + rng.normal(scale=0.4, size=(n_users, dim))
    state = replace(
        graph_state(n_users, n_responses),
        user_vectors=vectors.astype(np.float32),
        response_vectors=(rng.normal(size=(n_responses, dim)) * decided / np.sqrt(2 * dim)).astype(np.float32),
        response_bias=np.zeros(n_responses, np.float32),
        n_labels=np.full(n_users, 20),
    )
    return state, group


def answers(state, n: int, rng: np.random.Generator, user: int | None) -> Comparisons:
    """Labels on ``n`` pairs: as a user of the graph is predicted to answer, or at random."""
    left = rng.choice(60, n, replace=False) * 2
    odds = np.zeros(n) if user is None else state.log_odds(state.user_vectors[user], left, left + 1)
    return Comparisons.build(np.zeros(n), left, left + 1, (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(float))


@pytest.mark.parametrize("n_groups", [2, 4, 6])
@pytest.mark.parametrize("n", [5, 10, 20, 40])
def test_somebody_who_answers_at_random_is_seldom_called_a_member(n_groups, n):
    state, group = world(n_groups)
    rng = np.random.default_rng(n)
    found = [max(membership(state, group, answers(state, n, rng, None)).values()) for _ in range(200)]
    assert np.mean(np.array(found) > CLEAR) <= 0.12 and np.mean(np.array(found) > 0.9) <= 0.02
    if n == 40:
        assert np.median(found) < 0.2


@pytest.mark.parametrize("n_groups", [2, 4])
def test_of_the_people_with_a_probability_at_least_as_many_are_members(n_groups):
    """Calibrated, or modest: no band of probabilities is right less often than it says."""
    state, group = world(n_groups)
    rng = np.random.default_rng(0)
    stated, right = [], []
    for user in range(len(group)):
        for n in (5, 10, 20, 40):
            found = membership(state, group, answers(state, n, rng, user), own_row=user)
            best = max(found, key=found.get)
            stated.append(found[best])
            right.append(best == group[user])
    stated, right = np.array(stated), np.array(right)
    for low in (0.4, 0.6, 0.8):
        band = (stated >= low) & (stated < low + 0.2)
        assert right[band].mean() > stated[band].mean() - 0.1
    assert stated[3::4].mean() > 0.65  # with 40 labels


def test_more_labels_of_a_member_make_it_more_probable():
    state, group = world(3)
    rng = np.random.default_rng(1)
    means = [
        np.mean([membership(state, group, answers(state, n, rng, u), own_row=u)[group[u]] for u in range(60)])
        for n in (2, 8, 32)
    ]
    assert means == sorted(means) and means[2] > means[0] + 0.3


def test_probabilities_with_that_of_no_group_sum_to_one_and_nothing_is_known_without_labels():
    state, group = world(3)
    rng = np.random.default_rng(2)
    none = membership(state, group, answers(state, 0, rng, None))
    assert sorted(none) == [0, 1, 2] and sum(none.values()) == pytest.approx(0.6)
    assert 0 < sum(membership(state, group, answers(state, 9, rng, 0)).values()) < 1
    assert membership(state, group * 0 - 1, answers(state, 9, rng, 0)) == {}


def test_swapped_sides_and_ties_change_nothing():
    state, group = world(3)
    labels = answers(state, 9, np.random.default_rng(3), 0)
    swapped = Comparisons.build(labels.user, labels.right, labels.left, 1 - labels.outcome)
    tie = Comparisons.build([0], [4], [5], [0.5])
    for other in (swapped, labels.joined(tie)):
        assert membership(state, group, other) == pytest.approx(membership(state, group, labels), abs=1e-5)


def test_ones_own_row_is_no_evidence_for_ones_own_group():
    """A user alone in a group would otherwise be sure of it."""
    state, group = world(2)
    group = group.copy()
    group[0] = 2
    labels = answers(state, 20, np.random.default_rng(4), 0)
    assert 2 not in membership(state, group, labels, own_row=0) and 2 in membership(state, group, labels)
