"""Posterior draws: around the user's vector, as wide as the prior without labels, and narrower with every label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from copl_core.preference.adapt import Prior, adapt
from copl_core.preference.posterior import draws
from copl_core.records import Comparisons
from tests.worlds import graph_state


def some_labels(state, count: int) -> Comparisons:
    left = np.arange(count) % (len(state.response_ids) - 1)
    return Comparisons.build(np.zeros(count), left, left + 1, np.ones(count))


def test_draws_are_centred_on_the_user_and_narrow_with_labels():
    state = graph_state(40, 12)
    prior, spread = Prior.of(state), []
    for count in (0, 4, 40):
        labels = some_labels(state, count)
        vector = adapt(state, labels, prior=prior).vector if count else state.population
        drawn = draws(state, prior, labels, vector, 4000)
        assert np.abs(drawn.mean(0) - vector).max() < 0.15
        spread.append(float(drawn.var(0).sum()))
    assert spread[0] > spread[1] > spread[2]
    assert np.isclose(spread[0], (prior.root[:-1] ** 2).sum(), rtol=0.1)  # without labels: as wide as the prior


def test_strong_labels_narrow_the_posterior():
    state = graph_state(40, 12)
    prior, labels = Prior.of(state), some_labels(state, 4)
    strong = replace(labels, strength=np.full(4, 3, np.float32))
    usual, sure, thrice = (
        draws(state, prior, given, state.population, 4000).var(0).sum()
        for given in (labels, strong, labels.take(np.tile(np.arange(4), 3)))
    )
    assert sure < 0.95 * usual
    assert np.isclose(sure, thrice, rtol=1e-3)


def test_the_same_arguments_give_the_same_draws():
    state = graph_state(10, 6)
    prior, labels = Prior.of(state), some_labels(state, 3)
    one, two = (draws(state, prior, labels, state.population, 5) for _ in range(2))
    assert np.array_equal(one, two) and draws(state, prior, labels, state.population, 0).shape == (0, one.shape[1])
