from __future__ import annotations

import numpy as np
import pytest
import torch

from copl_core.preference.config import LOSSES
from copl_core.records import Comparisons
from copl_core.training.losses import (
    bradley_terry,
    flip_rate,
    preference_loss,
    rdpo,
    temperature_of,
)
from copl_core.training.metrics import measures


def test_the_loss_and_its_gradient_are_finite_at_any_margin():
    logits = torch.tensor([-1e4, -120.0, 0.0, 120.0, 1e4], requires_grad=True)
    loss = bradley_terry(logits, torch.ones(5))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1] == pytest.approx(-1)


def test_a_tie_is_least_surprising_where_neither_side_is_likelier():
    logits = torch.linspace(-2, 2, 5)
    assert bradley_terry(logits, torch.full((5,), 0.5)).argmin() == 2


def test_swapping_sides_and_outcome_leaves_the_loss():
    logits, outcome = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 0.0, 0.5])
    assert torch.allclose(bradley_terry(logits, outcome, 0.1), bradley_terry(-logits, 1 - outcome, 0.1))


def test_the_robust_loss_is_unbiased_under_label_noise():
    logits, flip = torch.tensor([0.7, -1.2]), 0.2
    expected = (1 - flip) * rdpo(logits, torch.ones(2), flip) + flip * rdpo(logits, torch.zeros(2), flip)
    assert torch.allclose(expected, bradley_terry(logits, torch.ones(2)), atol=1e-6)


def test_smoothing_is_lowest_at_the_odds_that_label_noise_leaves():
    logits, flip = torch.linspace(0, 4, 401), 0.2
    least = logits[preference_loss(logits, torch.ones(401), "smoothing", flip).argmin()]
    assert torch.sigmoid(least) == pytest.approx(1 - flip, abs=0.01)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_label_noise_every_loss_is_the_plain_one(loss):
    logits, outcome = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 0.0, 0.5])
    assert torch.allclose(preference_loss(logits, outcome, loss, 0.0), bradley_terry(logits, outcome), atol=1e-6)


def test_label_noise_is_estimated_from_repeated_pairs():
    user, pair = (
        np.repeat(np.arange(1000), 2),
        np.tile([[0, 1], [1, 0]], (1000, 1)),
    )  # positions swapped the second time
    truth = np.tile([1.0, 0.0], 1000)
    flipped = np.random.default_rng(0).random(2000) < 0.1
    labels = Comparisons.build(user, pair[:, 0], pair[:, 1], np.where(flipped, 1 - truth, truth))
    assert flip_rate(labels) == pytest.approx(0.1, abs=0.02)
    assert flip_rate(labels.take(np.arange(0, 2000, 2))) == 0


@pytest.mark.parametrize("pairs", [1, 3, 3000])
def test_repeats_that_all_disagree_leave_the_unbiased_loss_finite(pairs):
    user = np.repeat(np.arange(pairs), 2)
    labels = Comparisons.build(user, np.zeros(2 * pairs), np.ones(2 * pairs), np.tile([1, 0], pairs))
    flip = flip_rate(labels)
    assert 0 < flip <= 0.45
    assert flip < 0.15 or pairs > 3  # a few repeats are little evidence
    assert torch.isfinite(rdpo(torch.tensor([-3.0, 0.0, 3.0]), torch.ones(3), flip)).all()


def test_ties_are_left_out_of_every_figure():
    with_ties = measures(np.array([1.0, -1.0, 5.0]), np.array([1.0, 0.0, 0.5]))
    assert with_ties == measures(np.array([1.0, -1.0]), np.array([1.0, 0.0]))
    assert with_ties["n"] == 2


def test_flipped_labels_flip_the_accuracy():
    rng = np.random.default_rng(0)
    logits, outcome = rng.normal(size=200), rng.integers(2, size=200).astype(float)
    assert measures(logits, outcome)["accuracy"] == pytest.approx(1 - measures(logits, 1 - outcome)["accuracy"])


def test_knowing_nothing_is_half_right_and_perfectly_calibrated():
    figures = measures(np.zeros(10), np.tile([0.0, 1.0], 5))
    assert figures["accuracy"] == 0.5
    assert figures["log_loss"] == pytest.approx(np.log(2))
    assert figures["calibration_error"] == pytest.approx(0)


def test_the_right_temperature_undoes_a_stretch():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    outcome = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(float)
    assert temperature_of(3 * logits, outcome) == pytest.approx(3, rel=0.1)
    assert temperature_of(logits[:5], outcome[:5]) == 1.0
    weight = np.arange(len(logits)) < len(logits) / 2
    some = np.where(weight, 3 * logits, -logits)
    assert temperature_of(some, outcome, weight.astype(float)) == pytest.approx(3, rel=0.15)
