from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic import Protocol, make_world
from copl_core.records import CoplError
from copl_core.training.losses import flip_rate

SMALL = Protocol(groups=4, users=60, prompts=50, labels=6, test=4)


def pairs_of(labels) -> np.ndarray:
    """User and pair (N,) as one number, in either position."""
    low, high = np.minimum(labels.left, labels.right), np.maximum(labels.left, labels.right)
    return (labels.user * 10_000 + low) * 10_000 + high


def test_a_seed_makes_a_world_and_another_seed_another():
    one, again, other = (make_world(SMALL, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.data.labels.left, again.data.labels.left)
    np.testing.assert_array_equal(one.phi, again.phi)
    assert not np.array_equal(one.data.labels.left, other.data.labels.left)


@pytest.mark.parametrize("responses", [2, 4])
@pytest.mark.parametrize("prompts", [50, 2000])
def test_test_pairs_are_new_to_their_user_and_no_pair_repeats(responses, prompts):
    world = make_world(replace(SMALL, responses=responses, prompts=prompts), 0)
    pairs = np.concatenate([pairs_of(world.data.labels), pairs_of(world.test)])
    assert len(np.unique(pairs)) == len(pairs) == 60 * 10
    prompt = world.data.response_prompt
    assert (prompt[world.data.labels.left] == prompt[world.data.labels.right]).all()


def test_without_noise_every_label_is_the_truth_of_its_group():
    world = make_world(SMALL, 0)
    for labels in (world.data.labels, world.test):
        truth = world.utility[world.group[labels.user]]
        row = np.arange(len(labels))
        assert ((truth[row, labels.left] > truth[row, labels.right]) == (labels.outcome == 1)).all()


def test_noise_turns_its_share_of_labels_and_none_of_the_truth():
    clean, noisy = (make_world(replace(SMALL, users=2000, noise=noise), 0) for noise in (0.0, 0.2))
    assert (clean.data.labels.outcome != noisy.data.labels.outcome).mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(clean.test.outcome, noisy.test.outcome)


def test_repeats_label_the_same_pair_again_and_agree_but_for_noise():
    world = make_world(replace(SMALL, users=2000, repeats=3, noise=0.2), 0)
    user, per_user = pairs_of(world.data.labels), np.bincount(world.data.labels.user)
    assert set(per_user) == {9}
    assert len(np.unique(user)) == 2000 * 6
    assert flip_rate(world.data.labels) == pytest.approx(0.2, abs=0.02)
    assert flip_rate(make_world(replace(SMALL, repeats=3), 0).data.labels) == 0
    assert flip_rate(make_world(SMALL, 0).data.labels) == 0


def test_a_pair_is_common_where_all_groups_agree():
    alike = make_world(replace(SMALL, divergence=0.0), 0)
    assert not alike.controversial.any()
    apart = make_world(replace(SMALL, users=2000, prompts=500, divergence=1.0), 0)
    assert apart.controversial.mean() == pytest.approx(1 - 2 / 16, abs=0.05)


def test_half_the_labels_of_avg_users_may_be_missing_but_the_mean_stands():
    world = make_world(Protocol.uf_p(2, "AVG", users=3000), 0)
    per_user = np.bincount(world.data.labels.user, minlength=3000)
    assert (per_user.min(), per_user.max()) == (1, 15)
    assert per_user.mean() == pytest.approx(8, abs=0.3)
    assert set(np.bincount(make_world(Protocol.uf_p(4, users=40), 0).data.labels.user)) == {16}


def test_imbalance_is_the_ratio_of_the_largest_group_to_the_smallest():
    size = np.bincount(make_world(replace(SMALL, groups=2, users=1100, imbalance=10.0), 0).group)
    assert size.tolist() == [1000, 100]
    assert np.bincount(make_world(SMALL, 0).group).tolist() == [15] * 4


@pytest.mark.parametrize(
    "users, groups, imbalance, expected",
    [(100, 4, 1000.0, [89, 9, 1, 1]), (4, 4, 1e9, [1] * 4), (10, 3, 1e9, [8, 1, 1])],
)
def test_no_group_is_empty_however_small_its_share(users, groups, imbalance, expected):
    world = make_world(replace(SMALL, users=users, groups=groups, imbalance=imbalance), 0)
    assert np.bincount(world.group, minlength=groups).tolist() == expected


@pytest.mark.parametrize("groups, users, imbalance", [(1, 7, 5.0), (3, 61, 1.0), (4, 250, 17.3), (7, 1000, 60.0)])
def test_groups_that_had_users_keep_their_very_users(groups, users, imbalance):
    world = make_world(replace(SMALL, users=users, groups=groups, imbalance=imbalance, test=0), 5)
    rng = np.random.default_rng(5)
    rng.standard_normal(100, np.float32), rng.standard_normal((groups, 100), np.float32)  # the utilities
    size = imbalance ** np.linspace(1, 0, groups)
    ends = np.round(np.cumsum(size) / size.sum() * users).astype(np.int64)
    expected = rng.permutation(np.searchsorted(ends, np.arange(users), side="right"))
    assert len(np.unique(expected)) == groups
    np.testing.assert_array_equal(world.group, expected)
    assert world.group.dtype == expected.dtype


def test_informative_texts_predict_the_utilities_and_random_ones_do_not():
    for text, least, most in (("random", 0, 0.3), ("informative", 0.8, 1)):
        world = make_world(replace(SMALL, prompts=500, text=text), 0)
        x = np.column_stack([world.phi, np.ones(1000)])
        predicted = x @ np.linalg.lstsq(x, world.utility[0], rcond=None)[0]
        assert least <= np.corrcoef(predicted, world.utility[0])[0, 1] <= most


def test_figures_know_the_truth_and_its_opposite():
    world = make_world(SMALL, 0)
    truth = world.test.outcome - 0.5
    assert set(world.figures(truth).values()) == {1.0}
    assert set(world.figures(-truth).values()) == {0.0}
    assert world.figures(np.zeros(len(truth)))["worst_group"] == 0.5


def test_a_world_without_test_pairs_has_no_figures():
    world = make_world(replace(SMALL, test=0), 0)
    assert len(world.test) == 0
    assert all(np.isnan(figure) for figure in world.figures(np.zeros(0)).values())


def test_an_imbalance_without_end_is_refused_in_a_sentence():
    with pytest.raises(CoplError, match="imbalance is inf: a finite number from 1 is needed"):
        replace(SMALL, imbalance=float("inf"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": 0},
        {"users": 2},
        {"labels": 1.5},
        {"divergence": 2},
        {"imbalance": 0.5},
        {"spread": "SOME"},
        {"text": "none"},
        {"labels": 49},
    ],
)
def test_a_protocol_is_checked_at_birth(wrong):
    with pytest.raises(CoplError):
        replace(SMALL, **wrong)
