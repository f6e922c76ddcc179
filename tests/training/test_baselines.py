from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.records import Comparisons
from copl_core.training import baselines
from copl_core.training.baselines import fit_global, fit_mf, fit_side_length
from copl_core.training.split import ValidationSplit
from tests.preference.camps import all_pairs, camps

TEXTS = [f"Answer {i}." for i in range(48)]
FITS = {"global": fit_global, "side-length": fit_side_length, "mf": fit_mf}


@pytest.mark.parametrize("name", ["global"])
def test_global_predicts_the_same_for_all_users(name):
    model = FITS[name](camps(), TEXTS, 0)
    np.testing.assert_array_equal(model.logits(all_pairs(24, 0)), model.logits(all_pairs(24, 1)))


def test_factorisation_finds_the_camps_that_global_cannot():
    labels = camps(per_user=18).labels
    right = {}
    for name, fit in FITS.items():
        logits = fit(camps(per_user=18), TEXTS, 0).logits(labels)
        right[name] = ((logits > 0) == (labels.outcome > 0.5)).mean()
    assert right["mf"] > right["global"] + 0.2


def test_users_who_always_take_the_left_are_predicted_by_side_length_alone():
    rng = np.random.default_rng(0)
    left = 2 * rng.integers(24, size=400)
    user = rng.integers(2, size=400)
    labels = Comparisons.build(user, left, left + 1, (user == 0).astype(float))  # user 0 takes left, user 1 right
    data = replace(camps(n_users=2, per_user=2), labels=labels)
    right = {
        name: (((FITS[name](data, TEXTS, 0).logits(labels)) > 0) == (user == 0)).mean()
        for name in ("global", "side-length")
    }
    assert right["side-length"] == 1
    assert right["global"] < 0.7


def test_longer_responses_are_predicted_where_users_prefer_them_even_unseen_ones():
    texts = ["word " * (2 + 8 * (i % 2)) for i in range(50)]
    labels = all_pairs(24, 0)
    data = replace(camps(n_users=1, per_user=1), labels=replace(labels, outcome=np.zeros(24, np.float32)))
    unseen = Comparisons.build([0], [48], [49], [0.0])
    assert fit_global(data, texts, 0).logits(unseen)[0] < 0


def test_a_new_user_is_fitted_to_their_context_and_unknown_without():
    model = fit_mf(camps(per_user=18), TEXTS, 0)
    test = all_pairs(24, user=20)
    even, odd = (
        model.logits(
            test, Comparisons.build(np.full(12, 20), 2 * np.arange(12), 2 * np.arange(12) + 1, np.full(12, outcome))
        )
        for outcome in (1.0, 0.0)
    )
    assert (even > odd).mean() > 0.8
    np.testing.assert_array_equal(model.logits(test), model.logits(test, Comparisons.build([], [], [], [])))


def test_a_seed_makes_a_fit():
    test = all_pairs(24, 3)
    np.testing.assert_array_equal(fit_mf(camps(), TEXTS, 5).logits(test), fit_mf(camps(), TEXTS, 5).logits(test))


def test_global_has_nothing_to_choose_and_is_fitted_once(monkeypatch):
    fits, plain = [], baselines._fit
    monkeypatch.setattr(baselines, "_fit", lambda *given, **named: fits.append(given) or plain(*given, **named))
    fit_global(camps(), TEXTS, 0)
    assert len(fits) == 1


def test_the_prior_precision_is_chosen_on_the_validation_split():
    """The validation labels agree with the training labels, or are drawn by a coin."""
    data = camps(per_user=18)
    labels = data.labels
    coin = np.random.default_rng(0).integers(2, size=len(labels)).astype(np.float32)
    chosen = {}
    for name, outcome in (("true", labels.outcome), ("coin", coin)):
        test, weight = replace(labels, outcome=outcome), np.full(len(labels), 1 / len(labels))
        validation = ValidationSplit(data, test, labels.take([]), weight, np.arange(20), np.arange(len(TEXTS)))
        chosen[name] = fit_mf(data, TEXTS, 0, validation).precision
    assert chosen["true"] == min(baselines.PRECISIONS) and chosen["coin"] == max(baselines.PRECISIONS)
