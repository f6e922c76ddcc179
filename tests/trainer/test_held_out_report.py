"""Does personalisation pay?  The gain is seen where users differ, and not where they agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from copl_core.records import Comparisons, TrainingData
from copl_core.trainer.held_out_report import report
from copl_core.training.baselines import fit_side_length


def study(differ: bool, seed: int = 0) -> tuple[TrainingData, Comparisons, np.ndarray]:
    """(data, test labels, true log-odds of the test labels) of 40 users on 12 responses; half of them may disagree."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(-2, 2, 12)
    sign = np.where(np.arange(40) % 2 == 0, 1.0, -1.0 if differ else 1.0)

    def labels(n: int) -> tuple[Comparisons, np.ndarray]:
        user, left = rng.integers(40, size=n), rng.integers(12, size=n)
        right = (left + rng.integers(1, 12, size=n)) % 12
        logits = sign[user] * (strength[left] - strength[right])
        return Comparisons.build(user, left, right, rng.random(n) < expit(logits)), logits

    training, (test, truth) = labels(1200)[0], labels(400)
    texts = tuple(f"response {i} " * (i % 3 + 1) for i in range(12))
    return TrainingData(np.arange(40), np.arange(12), np.zeros(12, np.int64), ("why",), texts, training), test, truth


def habits(seed: int = 0) -> tuple[TrainingData, Comparisons, np.ndarray]:
    """(data, test labels, true log-odds) of 40 users of whom half like long responses and half short ones."""
    rng = np.random.default_rng(seed)
    length = np.log([20 * (i + 1) for i in range(12)])
    sign = np.where(np.arange(40) % 2 == 0, 2.0, -2.0)

    def labels(n: int) -> tuple[Comparisons, np.ndarray]:
        user, left = rng.integers(40, size=n), rng.integers(12, size=n)
        right = (left + rng.integers(1, 12, size=n)) % 12
        logits = sign[user] * (length[left] - length[right])
        return Comparisons.build(user, left, right, rng.random(n) < expit(logits)), logits

    training, (test, truth) = labels(1200)[0], labels(400)
    texts = tuple("word " * 4 * (i + 1) for i in range(12))
    return TrainingData(np.arange(40), np.arange(12), np.zeros(12, np.int64), ("why",), texts, training), test, truth


@pytest.mark.parametrize("differ", [True, False], ids=["people differ", "people agree"])
def test_the_gain_is_seen_where_people_differ_and_only_there(differ):
    data, test, truth = study(differ)
    by_method, gain = report(data, test, {"copl": truth}, seed=0)
    assert set(by_method) == {"copl", "global", "side-length"} and gain["n"] == 400 and gain["people"] == 40
    assert gain["accuracy"] == pytest.approx(by_method["copl"]["accuracy"] - by_method["global"]["accuracy"])
    assert gain["log_loss"] == pytest.approx(by_method["global"]["log_loss"] - by_method["copl"]["log_loss"])
    low, high = gain["accuracy_interval"]
    assert low <= gain["accuracy"] <= high
    assert (low > 0.1) if differ else (low < 0 < high or abs(gain["accuracy"]) < 0.02)


def test_the_gain_that_counts_is_the_one_over_the_more_accurate_baseline():
    """Everybody just prefers longer responses, each by their own strength: habits explain it, tastes add nothing."""
    data, test, _ = habits()
    truth = fit_side_length(data, list(data.responses), 0).logits(test)
    by_method, gain = report(data, test, {"copl": truth}, seed=0)
    assert by_method["side-length"]["accuracy"] > by_method["global"]["accuracy"] + 0.1
    assert gain["over"] == "global" and gain["accuracy"] > 0.1
    assert gain["strongest"]["over"] == "side-length" and gain["strongest"]["accuracy"] == pytest.approx(0)
    assert set(gain["strongest"]) == set(gain) - {"strongest"}


def test_with_nothing_held_out_nothing_is_claimed():
    data, test, truth = study(True)
    ties = Comparisons.build(test.user, test.left, test.right, np.full(len(test), 0.5))
    assert report(data, ties, {"copl": truth}, seed=0) == ({}, None)
