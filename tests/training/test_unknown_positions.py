"""A label whose position on screen is unknown meets no position term: which response is called left changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.preference.adapt import Prior, adapt
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, TrainingData
from copl_core.training.baselines import fit_global, fit_mf, fit_side_length
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, all_pairs, camp_phi, camps

TEXTS = [f"Answer {i}." for i in range(48)]
SHORT = QUICK.with_settings(max_steps=30, members=1)
FITS = {"global": fit_global, "side-length": fit_side_length, "mf": fit_mf}


def winner_first(labels: Comparisons, known: bool = False) -> Comparisons:
    """The same labels with the preferred response called left."""
    swap = labels.outcome < 0.5
    return replace(
        labels,
        left=np.where(swap, labels.right, labels.left),
        right=np.where(swap, labels.left, labels.right),
        outcome=np.where(swap, 1 - labels.outcome, labels.outcome).astype(np.float32),
        position_known=np.full(len(labels), known),
    )


def unknown(labels: Comparisons) -> Comparisons:
    return replace(labels, position_known=np.zeros(len(labels), bool))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return camps(noise=0.2)


@pytest.fixture(scope="module")
def fitted(data) -> GraphState:
    return fit_graph(data.with_labels(winner_first(data.labels)), camp_phi(), SHORT, seed=0)


def test_the_graph_learns_no_position_bias(fitted):
    assert fitted.position_bias == 0 and not fitted.user_position_bias.any()


def test_the_graph_and_its_own_figures_are_those_of_any_order(data, fitted):
    drawn = fit_graph(data.with_labels(unknown(data.labels)), camp_phi(), SHORT, seed=0)
    assert fitted.metrics["accuracy"] == pytest.approx(drawn.metrics["accuracy"], abs=0.01)
    pairs = all_pairs(24, 3)
    np.testing.assert_allclose(fitted.margins(pairs), drawn.margins(pairs), atol=0.05)


def test_a_bias_that_other_labels_taught_moves_no_label_with_an_unknown_position(data):
    known = np.arange(len(data.labels)) % 2 == 0
    labels = winner_first(data.labels)
    state = fit_graph(data.with_labels(replace(labels, position_known=known)), camp_phi(), SHORT, seed=0)
    assert state.position_bias > 0.1
    added = state.label_log_odds(labels.take(~known)) - state.margins(labels.take(~known))
    assert not added.any()


def test_a_new_user_is_placed_without_a_position_bias(fitted):
    biased = replace(fitted, position_bias=1.0, user_position_bias=np.linspace(-2, 2, 20, dtype=np.float32))
    prior, labels = Prior.of(biased), all_pairs(24, 0)
    placed = adapt(biased, winner_first(labels), prior=prior).vector
    other = replace(unknown(labels), left=labels.right, right=labels.left, outcome=1 - labels.outcome)
    np.testing.assert_allclose(placed, adapt(biased, other, prior=prior).vector, atol=1e-4)
    assert np.abs(placed - adapt(biased, winner_first(labels, known=True), prior=prior).vector).max() > 0.01


@pytest.mark.parametrize("name", FITS)
def test_the_baselines_are_those_of_any_order(data, name):
    test = unknown(all_pairs(24, 3))
    one, other = (
        FITS[name](data.with_labels(order(data.labels)), TEXTS, 0).logits(test) for order in (winner_first, unknown)
    )
    np.testing.assert_allclose(one, other, atol=0.1)


@pytest.mark.parametrize("name", FITS)
def test_a_baseline_without_known_positions_adds_nothing_to_those_of_the_test(data, name):
    model = FITS[name](data.with_labels(winner_first(data.labels)), TEXTS, 0)
    known, not_known = all_pairs(24, 3), unknown(all_pairs(24, 3))
    np.testing.assert_allclose(model.logits(known), model.logits(not_known), atol=1e-3)
