"""The laws of the linear text reward: one solution, own labels against neighbours, reversal, draws and files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.optimize import minimize
from scipy.special import expit

from copl_core.features import FEATURE_NAMES
from copl_core.records import Comparisons, CoplError
from copl_core.reward.linear import LinearConfig, LinearReward, TextFeatures, own_numbers
from copl_core.reward.tag_directions import FittedTags, TagDirections
from copl_core.tags import Tags, tag_key

P, Q, R = 12, 5, 40


def a_reward(seed: int = 0, **changes) -> LinearReward:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(R, P + len(FEATURE_NAMES)))
    features = TextFeatures.of(phi, style=0.5, version=2)
    width = P + len(FEATURE_NAMES)
    reward = LinearReward(
        LinearConfig(own=2.0, style=0.5),
        features,
        common=rng.normal(size=width),
        from_graph=rng.normal(size=(Q, width)),
        user_mean=rng.normal(size=Q),
        user_scale=1.7,
        responses=features(phi).astype(np.float16).astype(np.float32),
        response_strength=rng.normal(size=R),
        position_bias=0.3,
        own=np.zeros(0),
        fitted=np.zeros(0, bool),
    )
    return dataclasses.replace(reward, **changes)


def labels_of(n: int, seed: int = 0, user: int = 0) -> Comparisons:
    rng = np.random.default_rng(seed)
    left, right = np.array([rng.choice(R, 2, replace=False) for _ in range(n)], int).reshape(n, 2).T
    return Comparisons.build(
        [user] * n, left, right, rng.choice([0.0, 0.5, 1.0], n), position_known=rng.random(n) < 0.5
    )


def with_tags(reward: LinearReward, seed: int = 0, n_labels: int = 0) -> LinearReward:
    """The same with directions of two tags, and these tags for every third label of its fit."""
    steps = np.random.default_rng(seed).normal(size=(2, len(reward.common))).astype(np.float32)
    directions = TagDirections(np.sort([tag_key("kinder"), tag_key("clearer")]), steps)
    read = FittedTags(directions, tags_of(n_labels), np.linspace(0, 1, len(tags_of(n_labels))))
    return dataclasses.replace(reward, read=read, config=dataclasses.replace(reward.config, reason=0.6))


def tags_of(n: int) -> Tags:
    return Tags.of((row, ("kinder", "clearer")[: 1 + row % 2]) for row in range(0, n, 3))


def loss(own, expected, x, offset, outcome, weight, variance):
    margin = offset + x @ (expected + own)
    return (weight * (np.logaddexp(0, margin) - outcome * margin)).sum() + own @ own / (2 * variance)


@pytest.mark.parametrize("tags", [False, True], ids=["labels", "labels with tags"])
@pytest.mark.parametrize("n", [1, 7, 60], ids=["one label", "fewer labels than features", "more labels than features"])
def test_the_weights_of_a_user_are_the_one_minimum_from_any_start(n, tags):
    reward, labels, vector = a_reward(), labels_of(n), np.random.default_rng(3).normal(size=Q)
    reward = with_tags(reward) if tags else reward
    weight = np.random.default_rng(4).uniform(0.5, 2, n)
    expected = reward.expected(vector[None])[0]
    found = reward.of_labels(vector, labels, weight, tags_of(n) if tags else None)
    x = (reward.responses[labels.left] - reward.responses[labels.right]).astype(float)
    offset = reward.response_strength[labels.left] - reward.response_strength[labels.right]
    terms = [(x, offset + reward.position_bias * labels.position_known, labels.outcome, weight)]
    for row in np.flatnonzero(labels.decided) if tags else ():
        of_label = tags_of(n).between(row, row + 1).key
        along = reward.read.directions.steps[np.searchsorted(reward.read.directions.keys, of_label)]
        one = np.ones(len(of_label))
        terms.append((along, 0 * one, one, 0.6 * weight[row] * one / max(1, len(one))))
    given = (expected, *map(np.concatenate, zip(*terms, strict=True)), reward.config.own)
    for start in (np.zeros(len(found)), np.random.default_rng(5).normal(scale=3, size=len(found))):
        best = minimize(loss, start, args=given, method="BFGS", options={"gtol": 1e-7})
        assert found - expected == pytest.approx(best.x, abs=2e-3)


def test_without_own_labels_a_user_is_expected_to_be_like_those_who_answer_alike():
    reward, vector = a_reward(), np.random.default_rng(1).normal(size=Q)
    none = labels_of(0)
    assert reward.of_labels(vector, none, np.zeros(0)) == pytest.approx(reward.expected(vector[None])[0])


@pytest.mark.parametrize("own", [LinearConfig().own, 2.0])
@pytest.mark.parametrize("whose", ["everybody", "neighbours"])
def test_own_labels_outweigh_what_is_expected_as_they_grow(whose, own):
    """A user who always prefers the response with more of one feature, though all others, or those who answer alike, do
    the opposite."""
    vector, opposite = np.random.default_rng(3).normal(size=Q), -np.eye(P + len(FEATURE_NAMES))[0]
    like_them = a_reward()._standardise(vector[None])[0]
    reward = a_reward(
        config=LinearConfig(own=own),
        common=opposite * (whose == "everybody"),
        from_graph=np.outer(like_them / (like_them @ like_them), opposite) * (whose == "neighbours"),
        response_strength=np.zeros(R),
    )
    rng, found = np.random.default_rng(0), []
    for n in (0, 4, 16, 64, 256):
        left, right = np.array([rng.choice(R, 2, replace=False) for _ in range(n)], int).reshape(n, 2).T
        more = reward.responses[left, 0] > reward.responses[right, 0]
        labels = Comparisons.build([0] * n, left, right, more.astype(float))
        found.append(reward.of_labels(vector, labels, np.ones(n))[0])
    assert found[0] == pytest.approx(-1) and found == sorted(found) and found[-1] > 0


def test_reversed_labels_turn_the_own_part_around():
    x = np.random.default_rng(0).normal(size=(9, 30))
    outcome, weight = np.random.default_rng(1).choice([0.0, 0.5, 1.0], 9), np.ones(9)
    one = own_numbers(x, np.zeros(9), outcome, weight, 0.7)
    assert own_numbers(x, np.zeros(9), 1 - outcome, weight, 0.7) == pytest.approx(-one, abs=1e-6)
    assert own_numbers(-x, np.zeros(9), 1 - outcome, weight, 0.7) @ -x == pytest.approx(one @ x, abs=1e-6)


def test_leaving_a_label_out_is_the_same_as_never_having_seen_it():
    """A label of weight zero has the number zero, and the others have those of a fit without it."""
    x = np.random.default_rng(0).normal(size=(8, 20))
    offset, outcome = np.random.default_rng(1).normal(size=8), np.random.default_rng(2).integers(0, 2, 8).astype(float)
    for out in range(8):
        weight = np.ones(8)
        weight[out] = 0
        rest = np.arange(8) != out
        found = own_numbers(x, offset, outcome, weight, 0.5)
        assert found[out] == 0
        assert found[rest] == pytest.approx(
            own_numbers(x[rest], offset[rest], outcome[rest], np.ones(7), 0.5), abs=1e-6
        )


@pytest.mark.parametrize(("n", "tags"), [(0, None), (6, None), (60, None), (60, tags_of(60))])
def test_draws_spread_around_the_mode_like_the_laplace_posterior(n, tags):
    reward, labels, vector = with_tags(a_reward()), labels_of(n), np.zeros(Q)
    weight = np.ones(n)
    drawn = reward.draws(vector, labels, weight, 4000, seed=1, tags=tags)
    mode = reward.of_labels(vector, labels, weight, tags)
    x = (reward.responses[labels.left] - reward.responses[labels.right]).astype(float)
    offset = reward.response_strength[labels.left] - reward.response_strength[labels.right]
    p = expit(x @ mode + offset + reward.position_bias * labels.position_known)
    covariance = np.linalg.inv(np.eye(len(mode)) / reward.config.own + (x * (p * (1 - p))[:, None]).T @ x)
    if tags is not None:
        read = reward.read.directions.among(tags, labels)
        steps = reward.read.directions.steps[reward.read.directions.columns(read.key)]
        p = expit(steps @ mode)
        curve = (steps * (0.6 * read.share * p * (1 - p))[:, None]).T @ steps
        covariance = np.linalg.inv(np.linalg.inv(covariance) + curve)
    assert drawn.mean(0) == pytest.approx(mode, abs=0.12)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.2)
    assert (reward.draws(vector, labels, weight, 3, seed=1) == reward.draws(vector, labels, weight, 3, seed=1)).all()


def test_a_user_of_the_fit_has_the_weights_that_their_labels_give():
    reward = a_reward()
    labels = labels_of(9, 1, user=0).joined(labels_of(5, 2, user=1)).joined(labels_of(70, 3, user=2))
    vectors, weight = np.random.default_rng(6).normal(size=(3, Q)), np.ones(84)
    own, fitted = np.zeros(84), np.array([True, False, True])
    for user in (0, 2):
        rows = np.flatnonzero(labels.user == user)
        expected = reward.expected(vectors[[user]])[0]
        own[rows] = reward.own_numbers(expected, labels.take(rows), weight[rows])
    reward = dataclasses.replace(reward, own=own, fitted=fitted)
    found = reward.of_fit(np.array([2, 1, 0]), vectors[[2, 1, 0]], labels, weight)
    for row, user in zip(found, (2, 1, 0), strict=True):
        theirs = labels.take(labels.user == user)
        assert row == pytest.approx(reward.of_labels(vectors[user], theirs, np.ones(len(theirs))), abs=1e-3)


def test_rewards_are_linear_in_the_features_and_a_pair_turned_around_has_the_opposite_margin():
    reward, rng = a_reward(), np.random.default_rng(0)
    phi, weights = rng.normal(size=(2, P + len(FEATURE_NAMES))), rng.normal(size=(3, P + len(FEATURE_NAMES)))
    one, other = reward.rewards(phi, weights).T
    again, first = reward.rewards(phi[::-1], weights).T
    assert (one - other) == pytest.approx(first - again)


def test_the_style_of_one_odd_text_is_limited():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(R, P + len(FEATURE_NAMES)))
    features = TextFeatures.of(phi, style=0.5, version=2)
    odd = phi[:1].copy()
    odd[:, -1] = 1e6
    assert np.abs(features(odd)[:, -1]).max() <= 4 * 0.5 / np.sqrt(len(FEATURE_NAMES)) + 1e-9
    assert TextFeatures.of(phi, style=0.0, version=2)(phi)[:, -len(FEATURE_NAMES) :] == pytest.approx(0)


def test_what_is_saved_is_loaded(tmp_path):
    reward = a_reward(own=np.random.default_rng(0).normal(size=9), fitted=np.array([True, False]))
    phi, vector, labels = np.random.default_rng(2).normal(size=(3, P + len(FEATURE_NAMES))), np.ones(Q), labels_of(6)
    for made in (reward, with_tags(reward, n_labels=9)):
        made.save(tmp_path / "linear")
        again = LinearReward.load(tmp_path / "linear")
        assert again.config == made.config and again.features.version == 2 and again.belongs_to(2, R, 9)
        assert (made.read is None) == (again.read is None)
        weights = [one.of_labels(vector, labels, np.ones(6), tags_of(6)) for one in (made, again)]
        assert again.rewards(phi, weights[1][None]) == pytest.approx(made.rewards(phi, weights[0][None]), abs=1e-5)
        users, one = np.array([0]), Comparisons.build(*np.zeros((3, 9)), np.ones(9))
        assert again.of_fit(users, vector[None], one, np.ones(9)) == pytest.approx(
            made.of_fit(users, vector[None], one, np.ones(9)), abs=1e-5
        )
        assert again.belongs_to(2, R, 6) is False
    of_more = dataclasses.replace(again.read, tags=tags_of(10))
    assert not dataclasses.replace(again, read=of_more).belongs_to(2, R, 9), "tags of labels that it does not have"


def test_a_file_of_a_fit_without_tags_is_what_it_was_before_there_were_any(tmp_path):
    a_reward(own=np.zeros(1), fitted=np.zeros(1, bool)).save(tmp_path)
    assert "reason" not in (tmp_path / "linear.json").read_text()
    assert not any(name.startswith("tags") for name in load_file(tmp_path / "linear.safetensors"))


def test_a_missing_or_foreign_file_and_another_encoder_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(CoplError, match="No linear text reward can be read"):
        LinearReward.load(tmp_path)
    reward = a_reward()
    reward.save(tmp_path)
    (tmp_path / "linear.json").write_text((tmp_path / "linear.json").read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(CoplError, match="format 9, this version reads 1 and 2"):
        LinearReward.load(tmp_path)
    with pytest.raises(CoplError, match="embed with the encoder"):
        reward.rewards(np.zeros((2, 3)), np.zeros((1, 3)))
