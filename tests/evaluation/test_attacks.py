"""Attacks: what memorises is found, what does not is not, and intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.evaluation.attacks import Figure, auc, figure, found_at, likelihood_ratio, summed

PEOPLE = np.repeat(np.arange(40), 10)


def statistics(gap: float, seed: int, fits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(values (fits, N) of labels of different difficulty, which were learned): those are higher by ``gap``."""
    rng = np.random.default_rng(seed)
    known = rng.random((fits, len(PEOPLE))) < 0.5
    difficulty = np.random.default_rng(99).normal(size=len(PEOPLE)) * 3
    return difficulty + gap * known + rng.normal(size=known.shape), known


def attacked(gap: float, seed: int) -> Figure:
    values, member = statistics(gap, seed, fits=3)
    scores = likelihood_ratio(values, *statistics(gap, 1000 + seed, fits=16))
    return figure(scores.ravel(), member.ravel(), np.tile(PEOPLE, 3))


def test_what_memorises_is_found_and_what_learns_nothing_is_chance():
    found = attacked(6.0, 0)
    assert found.auc > 0.99 and found.found > 0.9 and found.above_chance
    chance = [attacked(0.0, seed) for seed in range(10)]
    assert np.mean([one.auc for one in chance]) == pytest.approx(0.5, abs=0.02)
    assert sum(one.low <= 0.5 <= one.high for one in chance) >= 8


def test_the_ratio_knows_which_labels_are_hard_and_the_plain_score_does_not():
    values, member = statistics(2.0, 0, fits=3)
    ratio = likelihood_ratio(values, *statistics(2.0, 1, fits=16))
    assert auc(ratio.ravel(), member.ravel()) > auc(values.ravel(), member.ravel()) + 0.1


def test_a_unit_that_no_shadow_learned_or_left_out_still_has_a_finite_score():
    values, known = statistics(2.0, 1)
    known[:, 0], known[:, 1] = True, False
    assert np.isfinite(likelihood_ratio(values, values, known)).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_the_share_of_pairs_in_the_right_order_with_ties_half(seed):
    rng = np.random.default_rng(seed)
    score, member = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    above = score[member][:, None] - score[~member]
    assert auc(score, member) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert auc(-score, member) == pytest.approx(1 - auc(score, member))


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(0)
    score, member, weight = rng.normal(size=30), rng.random(30) < 0.5, rng.integers(0, 4, 30)
    assert auc(score, member, weight) == pytest.approx(auc(np.repeat(score, weight), np.repeat(member, weight)))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth = 0.7602  # Φ(1/√2), two normal distributions one standard deviation apart
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        member = rng.random(200) < 0.5
        one = figure(rng.normal(size=200) + member, member, np.arange(200), seed)
        covered += one.low <= truth <= one.high
    assert 33 <= covered <= 40


def test_people_whose_labels_agree_make_the_interval_wider():
    rng = np.random.default_rng(0)
    member = np.repeat(rng.random(40) < 0.5, 10)
    score = np.repeat(rng.normal(size=40), 10) + member
    by_label, by_person = (figure(score, member, rows) for rows in (np.arange(400), PEOPLE))
    assert by_person.high - by_person.low > 1.5 * (by_label.high - by_label.low)


def test_without_false_alarms_nobody_is_found_below_the_highest_of_the_others():
    score, member = np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, True])
    assert found_at(score, member) == 0.5
    assert np.isnan(found_at(score, np.zeros(4, bool))) and np.isnan(auc(score, np.ones(4, bool)))


def test_scores_of_labels_add_up_by_person():
    assert summed(np.array([[1.0, 2.0, 4.0]]), np.array([0, 2, 2]), 3).tolist() == [[1.0, 0.0, 6.0]]
