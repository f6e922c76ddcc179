"""Disagreement between groups, apart from the noise within people."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.controversy import measure
from copl_core.insight.controversy import concatenate, decompose_variance, win_rates
from copl_core.preference.config import GraphConfig

QUICK = GraphConfig.build(dim=16, n_layers=1, members=3, max_steps=100)
GROUPS = np.array([0, 0, 0, 1, 1, 1])


def test_a_pair_that_splits_the_groups_ranks_above_one_on_which_everyone_is_torn():
    split = np.where(GROUPS == 0, 0.9, 0.1)
    torn = np.full(6, 0.5)
    taste = np.array([0.9, 0.1, 0.5] * 2)  # people differ, groups do not
    united = np.full(6, 0.95)
    found = decompose_variance(np.column_stack([torn, taste, united, split]), GROUPS)
    assert np.argmax(found.between) == 3
    assert found.between[:3] == pytest.approx([0, 0, 0])
    assert found.between[3] == pytest.approx(0.4**2)
    assert found.within == pytest.approx([0, taste[:3].var(), 0, 0])
    assert found.aleatoric[0] == pytest.approx(0.25)
    assert found.by_group[3] == pytest.approx([0.9, 0.1])


@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 10_000))
def test_the_parts_of_one_member_sum_to_the_whole(n_groups, n_users, seed):
    rng = np.random.default_rng(seed)
    p, group = rng.random((n_users, 4)), rng.integers(0, n_groups, n_users)
    found = decompose_variance(p, group)
    assert found.between + found.within == pytest.approx(p.var(0))  # law of total variance
    answers = p.mean(0) * (1 - p.mean(0))  # variance of one answer by somebody drawn at random
    assert found.between + found.within + found.aleatoric == pytest.approx(answers)
    assert (found.between >= 0).all() and (found.between <= 0.25).all() and not found.epistemic.any()


def test_where_members_differ_epistemic_variance_is_the_fourth_part_of_the_whole():
    rng = np.random.default_rng(0)
    apart = rng.random((6, 5))  # people differ more than members do
    p = np.clip(apart + rng.normal(0, 0.05, (4, 6, 5)), 0, 1)
    found = decompose_variance(p, GROUPS)
    whole = p.mean((0, 1)) * (1 - p.mean((0, 1)))
    assert found.between + found.within + found.aleatoric + found.epistemic == pytest.approx(whole)
    alike = decompose_variance(np.repeat(apart[None], 4, 0), GROUPS)
    assert alike.epistemic == pytest.approx(np.zeros(5), abs=1e-12)
    assert alike.between == pytest.approx(decompose_variance(apart, GROUPS).between)
    assert (found.epistemic > 0).all() and (found.ensemble_std > 0).all()


def test_groups_that_differ_only_by_the_members_errors_are_not_divided():
    """A mean over members keeps a K-th of their errors, and the plain variance between groups calls that division."""
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 0.2, (4, 2, 2000))  # of each member, for each of two groups
    p = np.repeat(0.5 + errors, 3, axis=1)  # (4, 6, 2000): people of a group are alike
    naive, found = decompose_variance(p.mean(0), GROUPS), decompose_variance(p, GROUPS)
    assert naive.between.mean() == pytest.approx(0.2**2 / 4 / 2, rel=0.1)
    assert found.between.mean() < 0.6 * naive.between.mean() and np.median(found.between) == 0
    assert found.epistemic.mean() > 5 * found.between.mean()


def test_consensus_is_every_group_sure_of_the_same_and_not_everybody_torn():
    p = np.column_stack([np.full(6, 0.5), np.full(6, 0.1), np.where(GROUPS == 0, 0.9, 0.1), np.full(6, 0.8)])
    found = decompose_variance(p, GROUPS)
    assert found.consensus == pytest.approx([0.5, 0.9, 0.5, 0.8])
    assert found.order(consensus=True)[:2].tolist() == [1, 3] and found.order()[0] == 2


def test_groups_are_split_only_where_the_members_are_sure_of_both_sides():
    sure = np.where(GROUPS == 0, 0.8, 0.2)
    p = np.repeat(np.column_stack([sure, sure, np.full(6, 0.8)])[None], 3, 0)
    p[:, 3:, 1] += np.array([-0.19, 0.0, 0.4])[:, None]  # the members do not agree on the second group
    assert decompose_variance(p, GROUPS).split.tolist() == [True, False, False]
    assert decompose_variance(p[0], GROUPS).split.tolist() == [True, True, False]  # one member cannot show uncertainty


def test_a_sample_stands_for_groups_of_other_sizes():
    p = np.random.default_rng(0).random((6, 3))
    many = decompose_variance(np.vstack([p, np.repeat(p[:3], 2, 0)]), np.append(GROUPS, [0] * 6))
    few = decompose_variance(p, GROUPS, share=np.array([0.75, 0.25]))
    for name in ("between", "within", "aleatoric", "by_group"):
        assert getattr(few, name) == pytest.approx(getattr(many, name)), name


def test_a_response_wins_by_the_pairs_it_is_in():
    p = np.array([[[0.9, 0.6, 0.2]]])  # 7 over 8, 7 over 9, 8 over 9
    ids, found = win_rates(p, np.array([[7, 8], [7, 9], [8, 9]]))
    assert ids.tolist() == [7, 8, 9]
    assert found[0, 0] == pytest.approx([(0.9 + 0.6) / 2, (0.1 + 0.2) / 2, (0.4 + 0.8) / 2])


def test_controversy_finds_the_controversial_pairs_of_a_synthetic_world_and_not_the_noisy_common_ones():
    found = measure(users=160, prompts=80, labels=40, seed=0, config=QUICK)
    assert found["all common"]["between groups"] > 0.95
    assert found["noisy common"]["between groups"] > 0.95
    assert found["noisy common"]["observed votes"] < 0.8  # a plain split of the votes is fooled


def test_people_without_a_group_do_not_count():
    p = np.random.default_rng(0).random((6, 3))
    with_others = decompose_variance(np.vstack([p, np.ones((2, 3))]), np.append(GROUPS, [-1, -1]))
    assert with_others.between == pytest.approx(decompose_variance(p, GROUPS).between)
    assert with_others.by_group.shape == (3, 2)


def test_renaming_groups_and_swapping_responses_changes_no_variance():
    p = np.random.default_rng(0).random((6, 3))
    one, renamed, swapped = (
        decompose_variance(p, GROUPS),
        decompose_variance(p, 7 - GROUPS),
        decompose_variance(1 - p, GROUPS),
    )
    assert renamed.between == pytest.approx(one.between) and renamed.groups.tolist() == [6, 7]
    assert swapped.between == pytest.approx(one.between)
    assert swapped.by_group == pytest.approx(1 - one.by_group)


def test_nobody_in_a_group_and_no_pairs_give_empty_answers():
    nobody = decompose_variance(np.ones((2, 3)), np.array([-1, -1]))
    assert nobody.between.tolist() == [0, 0, 0] and nobody.by_group.shape == (3, 0)
    assert decompose_variance(np.ones((6, 0)), GROUPS).between.shape == (0,)


def test_pairs_in_pieces_give_the_same_answer():
    p = np.random.default_rng(0).random((6, 7))
    whole, pieces = (
        decompose_variance(p, GROUPS),
        concatenate([decompose_variance(p[:, :3], GROUPS), decompose_variance(p[:, 3:], GROUPS)]),
    )
    for name in ("between", "within", "aleatoric", "epistemic", "by_group", "ensemble_std", "groups"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))
