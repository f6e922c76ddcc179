"""Features found in the texts: planted ones are found, and measured by what they predict."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.insight.found_features import (
    Dictionary,
    examples,
    find,
    gain,
    gain_over_counted,
    held_out_log_odds,
)
from copl_core.records import Comparisons, TrainingData
from copl_core.training.found_fit import nested_splits

WIDTH, PLANTED = 40, 6


@pytest.fixture(scope="module")
def planted():
    """(directions (6, P), sparse codes (N, 6), differences (N, P)): two features at a time, and a little noise."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, PLANTED)))[0].T
    codes = np.zeros((600, PLANTED))
    for row in codes:
        row[rng.choice(PLANTED, 2, replace=False)] = rng.choice([-1, 1], 2) * rng.uniform(1, 2, 2)
    return directions, codes, codes @ directions + 0.05 * rng.normal(size=(600, WIDTH))


def test_planted_features_are_found_up_to_their_sign(planted):
    directions, codes, differences = planted
    found = find(differences, PLANTED, per_pair=2)
    alike = np.abs(found.directions @ directions.T)
    assert (alike.max(0) > 0.99).all() and sorted(alike.argmax(1)) == list(range(PLANTED))
    assert found.explained(differences) > 0.97
    sign = np.sign(np.take_along_axis(found.directions @ directions.T, alike.argmax(1)[:, None], 1)[:, 0])
    np.testing.assert_allclose(found.codes(differences) * sign, codes[:, alike.argmax(1)], atol=0.3)


def test_swapped_responses_have_exactly_the_negative_code_of_few_numbers(planted):
    found = find(planted[2], 10, per_pair=3)
    codes = found.codes(planted[2])
    np.testing.assert_array_equal(found.codes(-planted[2]), -codes)
    assert ((codes != 0).sum(1) <= 3).all()
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1)


def test_the_same_differences_give_the_same_features(planted):
    np.testing.assert_array_equal(find(planted[2], 8).directions, find(planted[2], 8).directions)


def test_equal_texts_alone_are_refused():
    with pytest.raises(ValueError, match="at least one is needed"):
        find(np.zeros((5, 3)))


def world(by_counted: bool, seed: int = 0):
    """Users of two tastes, by a direction of the encoder or by a counted feature."""
    rng = np.random.default_rng(seed)
    n_users, n_responses, per_user = 40, 200, 30
    encoder, counted = 0.3 * rng.normal(size=(n_responses, 20)), rng.normal(size=(n_responses, 4))
    encoder[:, 0] += rng.choice([-1, 1], n_responses)
    user = np.repeat(np.arange(n_users), per_user)
    left = np.concatenate([rng.permutation(n_responses)[:per_user] for _ in range(n_users)])
    right = (left + rng.integers(1, n_responses, len(left))) % n_responses
    value = counted[:, 0] if by_counted else encoder[:, 0]
    margin = np.where(user % 2, 1, -1) * 3 * (value[left] - value[right])
    labels = Comparisons.build(user, left, right, (rng.random(len(user)) < 1 / (1 + np.exp(-margin))).astype(float))
    ids = np.arange(n_responses)
    data = TrainingData(np.arange(n_users), ids, ids * 0, ("?",), tuple(map(str, ids)), labels)
    return data, encoder, counted


def test_found_features_gain_where_the_encoder_holds_the_taste_and_not_where_a_counted_feature_does():
    for by_counted in (False, True):
        data, encoder, counted = world(by_counted)
        found = gain_over_counted(counted, encoder, data.labels, data.n_users, nested_splits(data, 2))
        assert found.certain is not by_counted
        if not by_counted:
            assert found.after - found.before > 0.15


def test_what_is_learned_reads_no_held_out_label():
    data, encoder, _ = world(False)
    split, apart = nested_splits(data, 1)[0], encoder[data.labels.left] - encoder[data.labels.right]
    before = held_out_log_odds(apart, data.labels, data.n_users, split)
    outcome = np.where(split.test, 1 - data.labels.outcome, data.labels.outcome)
    turned = Comparisons.build(data.labels.user, data.labels.left, data.labels.right, outcome)
    np.testing.assert_array_equal(held_out_log_odds(apart, turned, data.n_users, split), before)


def test_splits_share_no_response_of_a_user():
    data, *_ = world(False)
    edges = np.stack([data.labels.user * 1000 + data.labels.left, data.labels.user * 1000 + data.labels.right])
    for split in nested_splits(data, 2):
        for one, other in ((split.learned, split.test), (split.inner_learned, split.inner_test)):
            assert one.any() and other.any()
            assert not np.isin(edges[:, one], edges[:, other]).any()
        assert not (split.inner_learned | split.inner_test)[~split.learned].any()


def test_a_gain_of_equal_predictions_is_zero():
    labels = Comparisons.build([0, 0, 1], [0, 1, 2], [3, 4, 5], [1, 0, 1])
    same = gain(np.array([1.0, 2.0, -1.0]), np.array([1.0, 2.0, -1.0]), labels)
    assert (same.low, same.high, same.n) == (0, 0, 3) and not same.certain


def test_examples_are_of_different_prompts_strongest_first():
    pairs = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])
    codes = np.array([[1.0, 0.0], [-3.0, 0.0], [2.0, 0.5], [-9.0, 0.0]])
    prompt = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    assert examples(codes, pairs, prompt, most=2).tolist() == [[[7, 6], [3, 2]], [[4, 5], [-1, -1]]]
    assert examples(codes, pairs, prompt, most=9)[0].tolist() == [[7, 6], [3, 2], [4, 5]] + [[-1, -1]] * 6


def test_codes_are_those_of_matching_pursuit_on_the_rest(planted):
    found = find(planted[2], 10, per_pair=3)
    rest, codes, row = planted[2].copy(), np.zeros((len(planted[2]), 10)), np.arange(len(planted[2]))
    for _ in range(3):
        along = rest @ found.directions.T
        best = np.abs(along).argmax(1)
        codes[row, best] += along[row, best]
        rest -= along[row, best, None] * found.directions[best]
    np.testing.assert_allclose(found.codes(planted[2]), codes, atol=1e-9)


def test_codes_of_more_numbers_than_features_are_those_of_all_features():
    found = Dictionary(np.eye(3), per_pair=9)
    np.testing.assert_allclose(found.codes(np.array([[1.0, -2.0, 3.0]])), [[1, -2, 3]])
