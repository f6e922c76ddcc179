"""Disagreement between groups, apart from the noise within people."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.insight.controversy import divide, together

GROUPS = np.array([0, 0, 0, 1, 1, 1])


def test_a_pair_that_splits_the_groups_ranks_above_one_on_which_everyone_is_torn():
    split = np.where(GROUPS == 0, 0.9, 0.1)
    torn = np.full(6, 0.5)
    taste = np.array([0.9, 0.1, 0.5] * 2)  # people differ, groups do not
    agreed = np.full(6, 0.95)
    found = divide(np.column_stack([torn, taste, agreed, split]), GROUPS)
    assert np.argmax(found.between) == 3
    assert found.between[:3] == pytest.approx([0, 0, 0])
    assert found.between[3] == pytest.approx(0.4**2)
    assert found.within == pytest.approx([0, taste[:3].var(), 0, 0])
    assert found.noise[0] == pytest.approx(0.25)
    assert found.by_group[3] == pytest.approx([0.9, 0.1])


@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 10_000))
def test_the_parts_sum_to_the_whole(n_groups, n_users, seed):
    rng = np.random.default_rng(seed)
    p, group = rng.random((n_users, 4)), rng.integers(0, n_groups, n_users)
    found = divide(p, group)
    assert found.between + found.within == pytest.approx(p.var(0))  # law of total variance
    answers = p.mean(0) * (1 - p.mean(0))  # variance of one answer by somebody drawn at random
    assert found.between + found.within + found.noise == pytest.approx(answers)
    assert (found.between >= 0).all() and (found.between <= 0.25).all()


def test_people_without_a_group_do_not_count():
    p = np.random.default_rng(0).random((6, 3))
    with_strangers = divide(np.vstack([p, np.ones((2, 3))]), np.append(GROUPS, [-1, -1]))
    assert with_strangers.between == pytest.approx(divide(p, GROUPS).between)
    assert with_strangers.by_group.shape == (3, 2)


def test_renaming_groups_and_swapping_responses_changes_no_variance():
    p = np.random.default_rng(0).random((6, 3))
    one, renamed, swapped = divide(p, GROUPS), divide(p, 7 - GROUPS), divide(1 - p, GROUPS)
    assert renamed.between == pytest.approx(one.between) and renamed.groups.tolist() == [6, 7]
    assert swapped.between == pytest.approx(one.between)
    assert swapped.by_group == pytest.approx(1 - one.by_group)


def test_nobody_in_a_group_and_no_pairs_give_empty_answers():
    nobody = divide(np.ones((2, 3)), np.array([-1, -1]))
    assert nobody.between.tolist() == [0, 0, 0] and nobody.by_group.shape == (3, 0)
    assert divide(np.ones((6, 0)), GROUPS).between.shape == (0,)


def test_pairs_looked_at_in_pieces_give_the_same_answer():
    p = np.random.default_rng(0).random((6, 7))
    whole, pieces = divide(p, GROUPS), together([divide(p[:, :3], GROUPS), divide(p[:, 3:], GROUPS)])
    for name in ("between", "within", "noise", "by_group", "groups"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))
