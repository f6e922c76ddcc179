"""Does personalisation pay?  It must be seen where people differ, and must not be where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.records import Comparisons, TrainingData
from copl_core.trainer.held_out_report import standing


def world(differ: bool, seed: int = 0) -> tuple[TrainingData, Comparisons, np.ndarray]:
    """(data, asked labels, true log-odds of the asked) of 40 people on 12 responses; half of them may disagree."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(-2, 2, 12)
    sign = np.where(np.arange(40) % 2 == 0, 1.0, -1.0 if differ else 1.0)

    def labels(n: int) -> tuple[Comparisons, np.ndarray]:
        user, left = rng.integers(40, size=n), rng.integers(12, size=n)
        right = (left + rng.integers(1, 12, size=n)) % 12
        logits = sign[user] * (strength[left] - strength[right])
        return Comparisons.build(user, left, right, rng.random(n) < 1 / (1 + np.exp(-logits))), logits

    learned, (asked, truth) = labels(1200)[0], labels(400)
    texts = tuple(f"response {i} " * (i % 3 + 1) for i in range(12))
    return TrainingData(np.arange(40), np.arange(12), np.zeros(12, np.int64), ("why",), texts, learned), asked, truth


@pytest.mark.parametrize("differ", [True, False], ids=["people differ", "people agree"])
def test_the_gain_is_seen_where_people_differ_and_only_there(differ):
    data, asked, truth = world(differ)
    told, gain = standing(data, asked, {"copl": truth}, seed=0)
    assert set(told) == {"copl", "global", "side-length"} and gain["n"] == 400 and gain["people"] == 40
    assert gain["accuracy"] == pytest.approx(told["copl"]["accuracy"] - told["global"]["accuracy"])
    assert gain["log_loss"] == pytest.approx(told["global"]["log_loss"] - told["copl"]["log_loss"])
    low, high = gain["accuracy_interval"]
    assert low <= gain["accuracy"] <= high
    assert (low > 0.1) if differ else (low < 0 < high or abs(gain["accuracy"]) < 0.02)


def test_with_nothing_held_out_nothing_is_claimed():
    data, asked, truth = world(True)
    ties = Comparisons.build(asked.user, asked.left, asked.right, np.full(len(asked), 0.5))
    assert standing(data, ties, {"copl": truth}, seed=0) == ({}, None)
