"""Users differ in what they prefer about texts, and what goes together among users is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.evaluation.random_effects import RandomEffects, fit_random_effects, text_features
from copl_core.records import Comparisons, TrainingData

USERS, TEXTS, STYLES = 24, 40, 30
NO_LABELS = Comparisons.build([], [], [], [])


@pytest.fixture(scope="module")
def texts() -> np.ndarray:
    """φ of texts that differ in two style features alone; ten more than are labelled."""
    phi = np.zeros((TEXTS + 10, STYLES))
    phi[:, :2] = np.random.default_rng(0).normal(size=(TEXTS + 10, 2))
    return phi


@pytest.fixture(scope="module")
def two_camps(texts) -> TrainingData:
    """Even users like both features, odd ones neither: who likes one likes the other."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(USERS), 25)
    left, right = rng.integers(TEXTS // 2, size=len(user)), TEXTS // 2 + rng.integers(TEXTS // 2, size=len(user))
    outcome = prefers_left(texts, user, left, right)
    return TrainingData(
        np.arange(USERS),
        np.arange(TEXTS),
        np.zeros(TEXTS, np.int64),
        ("?",),
        tuple(map(str, range(TEXTS))),
        Comparisons.build(user, left, right, outcome),
    )


def prefers_left(texts, user, left, right) -> np.ndarray:
    liked = np.where(user % 2 == 0, 1, -1)
    return (liked * (texts[left, :2] - texts[right, :2]).sum(1) > 0).astype(float)


def pairs_of_new_texts(user: int) -> Comparisons:
    left, right = np.meshgrid(np.arange(TEXTS, TEXTS + 5), np.arange(TEXTS + 5, TEXTS + 10))
    return Comparisons.build(np.full(left.size, user), left.ravel(), right.ravel(), np.zeros(left.size))


def right_share(model: RandomEffects, texts, test: Comparisons, context: Comparisons = NO_LABELS) -> float:
    truth = prefers_left(texts, test.user, test.left, test.right)
    return float(((model.logits(test, context) > 0) == (truth > 0.5)).mean())


def test_unseen_texts_are_predicted_from_their_features(two_camps, texts):
    model = fit_random_effects(two_camps, texts)
    assert right_share(model, texts, pairs_of_new_texts(0)) > 0.85
    assert right_share(model, texts, pairs_of_new_texts(1)) > 0.85


def test_a_new_user_is_known_by_a_few_labels_and_is_between_the_camps_without(two_camps, texts):
    model = fit_random_effects(two_camps, texts)
    test = pairs_of_new_texts(USERS)
    given = Comparisons.build(
        np.full(6, USERS),
        np.arange(6),
        np.arange(20, 26),
        prefers_left(texts, np.full(6, USERS), np.arange(6), np.arange(20, 26)),
    )
    assert right_share(model, texts, test, given) > 0.8
    assert np.abs(model.logits(test, NO_LABELS)).mean() < 0.3 * np.abs(model.logits(test, given)).mean()


def test_what_goes_together_among_users_is_learned(two_camps, texts):
    precision = fit_random_effects(two_camps, texts).precision
    spread = np.linalg.inv(precision)
    assert spread[0, 1] / np.sqrt(spread[0, 0] * spread[1, 1]) > 0.5


def test_swapping_the_sides_of_every_label_flips_the_side_and_nothing_else(two_camps, texts):
    labels = two_camps.labels
    swapped = replace(labels, left=labels.right, right=labels.left, outcome=1 - labels.outcome)
    one, other = fit_random_effects(two_camps, texts), fit_random_effects(two_camps.with_labels(swapped), texts)
    np.testing.assert_allclose(one.users[:, :-1], other.users[:, :-1], atol=1e-6)
    np.testing.assert_allclose(one.users[:, -1], -other.users[:, -1], atol=1e-6)


def test_features_are_scaled_by_the_known_texts_alone(texts):
    phi = np.column_stack([np.random.default_rng(2).normal(size=(TEXTS + 10, 8)), texts])
    one = text_features(phi, TEXTS)
    other = text_features(np.concatenate([phi[:TEXTS], 100 * phi[TEXTS:]]), TEXTS)
    np.testing.assert_allclose(one[:TEXTS], other[:TEXTS])
    assert one.shape == (TEXTS + 10, 2 + 8)
