from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from copl_core.preference.acquire import informative
from copl_core.preference.adapt import adapt
from copl_core.records import Comparisons
from tests.preference.camps import camps

PAIRS = np.stack([2 * np.arange(24), 2 * np.arange(24) + 1], 1)  # the camps disagree on each


def test_a_label_is_informative_if_camps_disagree_and_not_if_all_agree(two_camps):
    weights = np.ones(20)
    disputed = informative(two_camps, weights, PAIRS)
    alike = replace(two_camps, user_vectors=np.tile(two_camps.user_vectors[:1], (20, 1)))
    assert (disputed > 0.05).mean() > 0.8
    np.testing.assert_allclose(informative(alike, weights, PAIRS), 0, atol=1e-5)


def test_a_user_known_to_be_like_one_other_gives_no_information(two_camps):
    np.testing.assert_allclose(informative(two_camps, np.eye(20)[4], PAIRS), 0, atol=1e-5)


def test_a_pair_is_worth_the_same_whichever_response_comes_first(two_camps):
    weights = np.ones(20)
    np.testing.assert_allclose(
        informative(two_camps, weights, PAIRS), informative(two_camps, weights, PAIRS[:, ::-1]), atol=1e-5
    )


def test_no_label_is_worth_more_than_a_bit(two_camps):
    worth = informative(two_camps, np.ones(20), PAIRS)
    assert (worth >= 0).all()
    assert (worth <= np.log(2) + 1e-6).all()


def test_labels_make_the_next_answer_less_surprising(two_camps):
    newcomer = adapt(two_camps, Comparisons.build([], [], [], []))
    left = 2 * np.arange(8)
    known = adapt(two_camps, Comparisons.build(np.zeros(8), left, left + 1, np.ones(8)))
    assert informative(two_camps, known, PAIRS).mean() < informative(two_camps, newcomer, PAIRS).mean()


def test_two_thousand_candidates_are_weighed_between_two_clicks(two_camps):
    rng = np.random.default_rng(0)
    wide = replace(
        two_camps,
        user_ids=np.arange(500),
        n_labels=np.ones(500, np.int64),
        user_vectors=rng.normal(size=(500, 128)).astype(np.float32),
        response_vectors=rng.normal(size=(3000, 128)).astype(np.float32),
        response_bias=np.zeros(3000, np.float32),
        labels=camps().labels,
    )
    pairs = rng.integers(3000, size=(2000, 2))
    informative(wide, np.ones(500), pairs)
    started = time.process_time()
    informative(wide, np.ones(500), pairs)
    assert time.process_time() - started < 0.25  # 30 ms on one idle core


def test_no_candidate_gives_no_score(two_camps):
    assert informative(two_camps, np.ones(20), np.zeros((0, 2), np.int64)).shape == (0,)
