"""Metrics, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from copl_core.training.metrics import calibration_error, correct, interval, log_losses, measures


def test_figures_worked_out_by_hand():
    # P(left) = ¾, ¼, ½ and ¾ again; the first two are right, the coin is half right, the last is wrong.
    odds = math.log(3)
    found = measures(np.array([odds, -odds, 0.0, odds]), np.array([1, 0, 1, 0]))
    assert found["accuracy"] == pytest.approx(2.5 / 4)
    assert found["log_loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(2) + math.log(4)) / 4)
    # by bins of P(left): two of ¾ against ½ observed, one of ¼ against 0, one of ½ against 1
    assert found["calibration_error"] == pytest.approx((2 * 0.25 + 0.25 + 0.5) / 4)
    assert found["n"] == 4


def test_ties_are_left_out():
    assert measures(np.array([2.0, 9.0]), np.array([1, 0.5])) == measures(np.array([2.0]), np.array([1]))


def test_swapping_sides_changes_no_figure():
    rng = np.random.default_rng(0)
    logits, outcome = rng.normal(scale=2, size=400), rng.integers(0, 2, 400).astype(float)
    one, other = measures(logits, outcome), measures(-logits, 1 - outcome)
    assert {name: other[name] for name in one} == pytest.approx(one)


def test_everything_is_finite_at_a_thousand():
    logits = np.array([1000.0, -1000.0, 1000.0, -1000.0])
    found = measures(logits, np.array([1, 0, 0, 1]))
    assert all(np.isfinite(list(found.values())))
    assert found["accuracy"] == 0.5 and found["log_loss"] == pytest.approx(500)
    assert log_losses(np.array([1000.0]), np.array([1.0])).tolist() == [0.0]


def test_a_perfectly_calibrated_coin_has_no_error_and_an_overconfident_one_has_it_all():
    outcome = np.array([1.0, 0.0] * 50)
    assert calibration_error(np.zeros(100), outcome) == pytest.approx(0)
    assert calibration_error(np.full(100, 50.0), outcome) == pytest.approx(0.5)


def test_half_right_where_nothing_is_said():
    assert correct(np.array([0.0, 1.0, -1.0]), np.array([1.0, 1.0, 1.0])).tolist() == [0.5, 1.0, 0.0]


def test_no_label_gives_no_figure_and_n_0():
    found = measures(np.zeros(0), np.zeros(0))
    assert found["n"] == 0 and math.isnan(found["accuracy"]) and math.isnan(found["log_loss"])


def test_an_interval_is_wider_where_the_labels_of_one_person_go_together():
    hits = np.repeat(np.arange(20) % 2, 30).astype(float)
    user, label = np.repeat(np.arange(20), 30), np.arange(600)
    (low, high), (inner_low, inner_high) = interval(hits, user, 0), interval(hits, label, 0)
    assert low < inner_low < 0.5 < inner_high < high
    assert interval(np.ones(600), user, 0) == (1, 1)


def test_of_one_person_an_interval_is_over_their_labels():
    hits = np.repeat([0.0, 1.0], 30)
    low, high = interval(hits, np.zeros(60), 0)
    assert low < 0.5 < high
