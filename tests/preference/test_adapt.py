from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from copl_core.preference import adapt as adapting
from copl_core.preference.adapt import RULES, Prior, adapt, neighbours
from copl_core.records import Comparisons
from tests.preference.camps import all_pairs, camps
from tests.worlds import graph_state

NO_LABELS = Comparisons.build([], [], [], [])


def given_by(camp: int, n: int) -> Comparisons:
    """n labels of a user of a camp (0: even, 1: odd), in alternating positions."""
    left = 2 * np.arange(n) + np.arange(n) % 2
    right = 2 * np.arange(n) + 1 - np.arange(n) % 2
    return Comparisons.build(np.zeros(n), left, right, (left % 2 == camp).astype(float))


@pytest.mark.parametrize("rule", RULES)
def test_a_user_without_labels_gets_the_population_mean(two_camps, rule):
    placement = adapt(two_camps, NO_LABELS, rule=rule)
    assert (placement.source, placement.n_neighbours, placement.spread) == ("population mean", 0, 1.0)
    np.testing.assert_array_equal(placement.vector, two_camps.population)


def test_labels_without_neighbours_give_the_population_mean(two_camps):
    alone = replace(two_camps, labels=two_camps.labels.take(two_camps.labels.left > 3))
    placement = adapt(alone, Comparisons.build([0], [0], [2], [1]))
    assert placement.source == "population mean"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("camp", [0, 1])
def test_a_newcomer_is_understood_from_eight_labels(two_camps, rule, camp):
    placement = adapt(two_camps, given_by(camp, 8), rule=rule)
    pairs = all_pairs(24, user=0)
    even = two_camps.margins(pairs, np.tile(placement.vector, (24, 1))) > 0
    assert (even == (camp == 0)).mean() > 0.9
    assert placement.source == "neighbours"


def test_the_neighbours_of_largest_weight_are_of_the_users_own_camp(two_camps):
    placement = adapt(two_camps, given_by(1, 8))
    assert (placement.user_ids[:5] % 2 == 1).all()
    assert placement.weights.sum() == pytest.approx(1)
    assert (np.diff(placement.weights) <= 1e-12).all()


def test_no_user_is_their_own_neighbour(two_camps):
    own = int(two_camps.user_ids[1])
    with_own, without = adapt(two_camps, given_by(1, 8)), adapt(two_camps, given_by(1, 8), exclude_user=own)
    assert own in with_own.user_ids and own not in without.user_ids
    assert without.n_neighbours == with_own.n_neighbours - 1 and without.weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(without.vector, with_own.vector)  # inferred from the same labels


@pytest.mark.parametrize("rule", RULES)
def test_labels_shared_with_nobody_else_give_a_vector_and_no_neighbour(two_camps, rule):
    own = two_camps.labels.user == 1
    alone = replace(two_camps, labels=two_camps.labels.take(own))
    placement = adapt(alone, given_by(1, 8), rule=rule, exclude_user=int(two_camps.user_ids[1]))
    assert (placement.n_neighbours, len(placement.user_ids), len(placement.weights)) == (0, 0, 0)
    assert np.isfinite(placement.vector).all()
    assert (placement.vector != two_camps.population).any() == (rule == "map")


def test_more_labels_settle_the_vector_and_sharpen_the_posterior(two_camps):
    placements = [adapt(two_camps, given_by(0, n), rule="sharpening") for n in (1, 4, 8, 16)]
    spreads = [placement.spread for placement in placements]
    own_camp = [placement.weights[placement.user_ids % 2 == 0].sum() for placement in placements]
    assert spreads == sorted(spreads, reverse=True)
    assert 0 < spreads[-1] < spreads[0] < 1
    assert own_camp[0] < own_camp[-1]


def test_the_published_posterior_does_not_sharpen_where_ours_does(two_camps):
    once = given_by(0, 4)
    thrice = once.take(np.tile(np.arange(4), 3))
    published = [adapt(two_camps, labels, rule="published").weights for labels in (once, thrice)]
    np.testing.assert_allclose(published[0], published[1], atol=1e-5)
    ours = [adapt(two_camps, labels, rule="sharpening").weights for labels in (once, thrice)]
    assert ours[1].max() > ours[0].max()


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_labels_does_not_matter(two_camps, rule):
    labels = given_by(0, 8)
    one, other = adapt(two_camps, labels, rule=rule), adapt(two_camps, labels.take(np.arange(8)[::-1]), rule=rule)
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


@pytest.mark.parametrize("rule", ["sharpening", "published"])
def test_swapping_the_sides_does_not_matter(two_camps, rule):
    labels = given_by(1, 8)
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


def test_ties_alone_still_give_a_vector(two_camps):
    ties = replace(given_by(0, 6), outcome=np.full(6, 0.5, np.float32))
    placement = adapt(two_camps, ties)
    assert np.isfinite(placement.vector).all()
    assert placement.spread < 1


def test_an_unknown_rule_is_refused(two_camps):
    with pytest.raises(ValueError, match="sharpening"):
        adapt(two_camps, given_by(0, 2), rule="guess")


@pytest.mark.parametrize("n", [1, 5, 11, 12, 13, 40])
def test_equations_by_label_and_by_coordinate_have_the_same_solution(n):
    rng = np.random.default_rng(n)
    x, offset, outcome = rng.normal(size=(n, 12)), rng.normal(size=n), rng.integers(0, 3, n) / 2
    problem = x, offset, np.where(outcome == 0.5, 0.5, 1.0), outcome, np.linspace(2, 0.1, 12), 30
    (z, explained), (again, as_much) = adapting._primal(*problem), adapting._dual(*problem)
    np.testing.assert_allclose(z, again, atol=1e-6)
    assert explained == pytest.approx(as_much, rel=1e-6) and 0 < explained < problem[4].sum()


@pytest.mark.parametrize("by", ["_primal", "_dual"])
@pytest.mark.parametrize("sharpness", [1, 10, 30])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_however_large_the_margins_no_vector_explains_labels_better(by, sharpness, noise):
    rng = np.random.default_rng(sharpness)
    for n in (4, 20, 60):
        x, offset = sharpness * rng.normal(size=(n, 12)), sharpness * rng.normal(size=n)
        outcome = ((offset + x @ rng.normal(size=12) > 0) != (rng.random(n) < noise)).astype(float)
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
    labels = given_by(0, 6)
    labels.outcome[4] = 0.5
    strong = replace(labels, strength=np.array([1, 2, 1, 1, 2, 1], np.float32))
    twice = labels.take(np.array([0, 1, 1, 2, 3, 4, 4, 5]))
    one, other = (adapt(two_camps, given, rule=rule) for given in (strong, twice))
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-4)
    assert one.spread == pytest.approx(other.spread, abs=1e-5)
    assert np.abs(one.vector - adapt(two_camps, labels, rule=rule).vector).max() > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_strength_is_relative_to_the_mean_of_the_study(two_camps, rule):
    def strong(labels: Comparisons) -> Comparisons:
        return replace(labels, strength=np.full(len(labels), 3, np.float32))

    labels = given_by(1, 8)
    one, other = (
        adapt(two_camps, labels, rule=rule),
        adapt(replace(two_camps, labels=strong(two_camps.labels)), strong(labels), rule=rule),
    )
    np.testing.assert_array_equal(one.vector, other.vector)
    assert one.spread == other.spread
    ties = replace(labels, outcome=np.full(8, 0.5, np.float32))
    for state in (two_camps, replace(two_camps, labels=NO_LABELS)):
        assert set(adapting.label_weights(state, labels)) == {1.0}
        assert set(adapting.label_weights(state, ties)) == {adapting.TIE_WEIGHT}


def test_the_vector_is_the_most_probable_one(two_camps):
    prior, labels = Prior.of(two_camps), given_by(0, 6)
    best = prior.explain(two_camps, labels)
    whole = np.append(best.vector, best.position_bias + two_camps.position_bias)
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
    alone, given = adapt(two_camps, given_by(0, 5)), adapt(two_camps, given_by(0, 5), prior=Prior.of(two_camps))
    np.testing.assert_array_equal(alone.vector, given.vector)
    assert alone.spread == given.spread


def test_a_new_user_may_differ_where_no_known_user_does():
    """Known users vary in the first direction only; the new one answers by the second, against the common order."""
    state = graph_state(n_users=6, n_responses=20)
    vectors, responses = np.zeros((6, 4), np.float32), state.response_vectors.copy()
    vectors[:, 0], vectors[:, 1] = [-1, 1, -1, 1, -1, 1], 0.5
    state = replace(state, user_vectors=vectors, response_vectors=responses)
    left, right = np.arange(10), np.arange(10, 20)
    taste = np.float32([0, -2, 0, 0])
    own = Comparisons.build(np.zeros(10), left, right, (responses[left] - responses[right]) @ taste > 0)
    test = (responses[:, None] - responses).reshape(-1, 4)
    test = test[np.abs(test @ taste) > 1]

    def agreement(prior: Prior) -> float:
        return float((np.sign(test @ prior.explain(state, own).vector) == np.sign(test @ taste)).mean())

    assert agreement(Prior.of(state)) > 0.8
    assert agreement(Prior.of(state, isotropic=0.0)) < 0.5


def test_the_prior_is_wider_than_the_known_users_in_every_direction(two_camps):
    prior = Prior.of(two_camps, widen=1.2, isotropic=0.3)
    known = np.column_stack([two_camps.user_vectors, two_camps.user_position_bias + two_camps.position_bias])
    own = np.cov(known.T, bias=True)
    expected = 1.44 * own + 0.3 * np.trace(own[:-1, :-1]) * np.diag([*np.ones(len(own) - 1), 0])
    np.testing.assert_allclose(prior.root @ prior.root.T, expected, atol=1e-6 * np.trace(own))
