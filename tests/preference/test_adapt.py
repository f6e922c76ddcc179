from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from copl_core.preference import adapt as adapting
from copl_core.preference.adapt import RULES, Prior, adapt, neighbours
from copl_core.records import Comparisons
from tests.preference.camps import all_pairs, camps

NO_LABELS = Comparisons.build([], [], [], [])


def says(camp: int, n: int) -> Comparisons:
    """n labels of somebody of a camp (0: even, 1: odd), sides taking turns."""
    left = 2 * np.arange(n) + np.arange(n) % 2
    right = 2 * np.arange(n) + 1 - np.arange(n) % 2
    return Comparisons.build(np.zeros(n), left, right, (left % 2 == camp).astype(float))


@pytest.mark.parametrize("rule", RULES)
def test_somebody_without_labels_stands_at_the_population_mean(two_camps, rule):
    place = adapt(two_camps, NO_LABELS, rule=rule)
    assert (place.source, place.n_neighbours, place.spread) == ("population mean", 0, 1.0)
    np.testing.assert_array_equal(place.vector, two_camps.population)


def test_labels_that_nobody_shares_leave_one_at_the_population_mean(two_camps):
    alone = replace(two_camps, labels=two_camps.labels.take(two_camps.labels.left > 3))
    place = adapt(alone, Comparisons.build([0], [0], [2], [1]))
    assert place.source == "population mean"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("camp", [0, 1])
def test_a_newcomer_is_understood_from_eight_labels(two_camps, rule, camp):
    place = adapt(two_camps, says(camp, 8), rule=rule)
    asked = all_pairs(24, user=0)
    even = two_camps.margins(asked, np.tile(place.vector, (24, 1))) > 0
    assert (even == (camp == 0)).mean() > 0.9
    assert place.source == "neighbours"


def test_the_neighbours_that_weigh_most_are_of_ones_own_camp(two_camps):
    place = adapt(two_camps, says(1, 8))
    assert (place.user_ids[:5] % 2 == 1).all()
    assert place.weights.sum() == pytest.approx(1)
    assert (np.diff(place.weights) <= 1e-12).all()


def test_nobody_is_a_neighbour_of_their_own(two_camps):
    own = int(two_camps.user_ids[1])
    with_own, without = adapt(two_camps, says(1, 8)), adapt(two_camps, says(1, 8), besides=own)
    assert own in with_own.user_ids and own not in without.user_ids
    assert without.n_neighbours == with_own.n_neighbours - 1 and without.weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(without.vector, with_own.vector)  # what their labels say of them is the same


@pytest.mark.parametrize("rule", RULES)
def test_labels_that_only_oneself_shares_say_who_one_is_and_name_no_neighbour(two_camps, rule):
    own = two_camps.labels.user == 1
    alone = replace(two_camps, labels=two_camps.labels.take(own))
    place = adapt(alone, says(1, 8), rule=rule, besides=int(two_camps.user_ids[1]))
    assert (place.n_neighbours, len(place.user_ids), len(place.weights)) == (0, 0, 0)
    assert np.isfinite(place.vector).all()
    assert (place.vector != two_camps.population).any() == (rule == "map")


def test_more_labels_settle_the_vector_and_sharpen_the_posterior(two_camps):
    places = [adapt(two_camps, says(0, n), rule="sharpening") for n in (1, 4, 8, 16)]
    spreads = [place.spread for place in places]
    own_camp = [place.weights[place.user_ids % 2 == 0].sum() for place in places]
    assert spreads == sorted(spreads, reverse=True)
    assert 0 < spreads[-1] < spreads[0] < 1
    assert own_camp[0] < own_camp[-1]


def test_the_published_posterior_does_not_sharpen_where_ours_does(two_camps):
    once = says(0, 4)
    thrice = once.take(np.tile(np.arange(4), 3))
    published = [adapt(two_camps, labels, rule="published").weights for labels in (once, thrice)]
    np.testing.assert_allclose(published[0], published[1], atol=1e-5)
    ours = [adapt(two_camps, labels, rule="sharpening").weights for labels in (once, thrice)]
    assert ours[1].max() > ours[0].max()


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_labels_does_not_matter(two_camps, rule):
    labels = says(0, 8)
    one, other = adapt(two_camps, labels, rule=rule), adapt(two_camps, labels.take(np.arange(8)[::-1]), rule=rule)
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


@pytest.mark.parametrize("rule", ["sharpening", "published"])
def test_swapping_the_sides_does_not_matter(two_camps, rule):
    labels = says(1, 8)
    mirrored = replace(labels, left=labels.right, right=labels.left, outcome=1 - labels.outcome)
    np.testing.assert_allclose(
        adapt(two_camps, labels, rule=rule).vector, adapt(two_camps, mirrored, rule=rule).vector, atol=1e-5
    )


def test_neighbours_share_a_response_of_either_sign(two_camps):
    shown = Comparisons.build([0], [0], [1], [1])
    expected = np.unique(camps().labels.user[camps().labels.left < 2])
    np.testing.assert_array_equal(neighbours(two_camps, shown), expected)
    preferred = neighbours(two_camps, shown, preferred_only=True)
    assert set(preferred) < set(expected)
    assert (preferred % 2 == 0).mean() > 0.7


def test_ties_alone_still_place_somebody(two_camps):
    ties = replace(says(0, 6), outcome=np.full(6, 0.5, np.float32))
    place = adapt(two_camps, ties)
    assert np.isfinite(place.vector).all()
    assert place.spread < 1


def test_an_unknown_rule_is_refused(two_camps):
    with pytest.raises(ValueError, match="sharpening"):
        adapt(two_camps, says(0, 2), rule="guess")


@pytest.mark.parametrize("n", [1, 5, 11, 12, 13, 40])
def test_equations_by_label_and_by_coordinate_have_the_same_solution(n):
    rng = np.random.default_rng(n)
    x, offset, outcome = rng.normal(size=(n, 12)), rng.normal(size=n), rng.integers(0, 3, n) / 2
    told = x, offset, np.where(outcome == 0.5, 0.5, 1.0), outcome, np.linspace(2, 0.1, 12), 30
    (z, learned), (again, as_much) = adapting._primal(*told), adapting._dual(*told)
    np.testing.assert_allclose(z, again, atol=1e-6)
    assert learned == pytest.approx(as_much, rel=1e-6) and 0 < learned < told[4].sum()


@pytest.mark.parametrize("by", ["_primal", "_dual"])
@pytest.mark.parametrize("sharpness", [1, 10, 30])
@pytest.mark.parametrize("slips", [0.0, 0.2])
def test_however_sharp_the_margins_no_vector_explains_labels_better(by, sharpness, slips):
    rng = np.random.default_rng(sharpness)
    for n in (4, 20, 60):
        x, offset = sharpness * rng.normal(size=(n, 12)), sharpness * rng.normal(size=n)
        outcome = ((offset + x @ rng.normal(size=12) > 0) != (rng.random(n) < slips)).astype(float)
        outcome[0], weight = 0.5, rng.choice([0.5, 1.0, 1.5], n)

        def loss(z, x=x, offset=offset, outcome=outcome, weight=weight):
            margin = offset + x @ z
            p = 1 / (1 + np.exp(-np.clip(margin, -500, 500)))
            return weight @ (np.logaddexp(0, margin) - outcome * margin) + z @ z / 2, x.T @ (weight * (p - outcome)) + z

        best = minimize(
            loss,
            np.zeros(12),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9},
        )
        z, _ = getattr(adapting, by)(x, offset, weight, outcome, np.ones(12), 40)
        assert loss(z)[0] <= best.fun + 1e-8
        np.testing.assert_allclose(z, best.x, atol=1e-4)


@pytest.mark.parametrize("rule", ["map", "sharpening"])
def test_a_label_of_strength_two_counts_as_much_as_two(two_camps, rule):
    labels = says(0, 6)
    labels.outcome[4] = 0.5
    strong = replace(labels, strength=np.array([1, 2, 1, 1, 2, 1], np.float32))
    twice = labels.take(np.array([0, 1, 1, 2, 3, 4, 4, 5]))
    one, other = (adapt(two_camps, said, rule=rule) for said in (strong, twice))
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-4)
    assert one.spread == pytest.approx(other.spread, abs=1e-5)
    assert np.abs(one.vector - adapt(two_camps, labels, rule=rule).vector).max() > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_strength_is_read_beside_what_is_usual_in_the_study(two_camps, rule):
    def firm(labels: Comparisons) -> Comparisons:
        return replace(labels, strength=np.full(len(labels), 3, np.float32))

    labels = says(1, 8)
    one, other = (
        adapt(two_camps, labels, rule=rule),
        adapt(replace(two_camps, labels=firm(two_camps.labels)), firm(labels), rule=rule),
    )
    np.testing.assert_array_equal(one.vector, other.vector)
    assert one.spread == other.spread
    ties = replace(labels, outcome=np.full(8, 0.5, np.float32))
    for state in (two_camps, replace(two_camps, labels=NO_LABELS)):
        assert set(adapting.label_weights(state, labels)) == {1.0}
        assert set(adapting.label_weights(state, ties)) == {adapting.TIE_WEIGHT}


def test_the_vector_is_the_most_probable_one(two_camps):
    prior, labels = Prior.of(two_camps), says(0, 6)
    best = prior.explain(two_camps, labels)
    whole = np.append(best.vector, best.side + two_camps.side)
    design = (
        np.column_stack(
            [two_camps.response_vectors[labels.left] - two_camps.response_vectors[labels.right], np.ones(6)]
        )
        / two_camps.temperature
    )
    bias = (two_camps.response_bias[labels.left] - two_camps.response_bias[labels.right]) / two_camps.temperature
    residual = labels.outcome - 1 / (1 + np.exp(-(design @ whole + bias)))
    pull = prior.root @ (prior.root.T @ design.T @ residual)  # covariance times the likelihood's slope
    np.testing.assert_allclose(whole - prior.mean, pull, atol=1e-4)


def test_a_prior_handed_in_changes_nothing(two_camps):
    alone, given = adapt(two_camps, says(0, 5)), adapt(two_camps, says(0, 5), prior=Prior.of(two_camps))
    np.testing.assert_array_equal(alone.vector, given.vector)
    assert alone.spread == given.spread
