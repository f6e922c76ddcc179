"""Penalised logistic regression against a general optimiser, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from copl_core.logistic import penalised_logistic


def problem(seed: int, n: int, d: int = 4, scale: float = 1.0) -> tuple[np.ndarray, ...]:
    """Design, offset, outcome, weight, mean and precision, all random; some labels are ties."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return (
        scale * rng.normal(size=(n, d)),
        scale * rng.normal(size=n),
        rng.integers(0, 3, n) / 2,
        rng.uniform(0.5, 1.5, n),
        rng.random(d),
        root @ root.T + 0.1 * np.eye(d),
    )


def loss(w: np.ndarray, design, offset, outcome, weight, mean, precision) -> tuple[float, np.ndarray]:
    margin, deviation = offset + design @ w, w - mean
    value = weight @ (np.logaddexp(0, margin) - outcome * margin) + deviation @ precision @ deviation / 2
    return value, design.T @ (weight * (expit(margin) - outcome)) + precision @ deviation


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("n", [1, 6, 50])
def test_no_weights_have_a_lower_loss(nonnegative, scale, n):
    for seed in range(5):
        given = problem(seed, n, scale=scale)
        bounds = [(0, None)] * 4 if nonnegative else None
        options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000}
        best = minimize(loss, given[4], given, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
        mode = penalised_logistic(*given, nonnegative=nonnegative).mode
        assert loss(mode, *given)[0] <= best.fun + 1e-8
        assert not nonnegative or (mode >= 0).all()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_without_labels_the_mode_is_the_mean(nonnegative):
    *_, mean, precision = problem(0, 5)
    nothing = np.zeros(0)
    found = penalised_logistic(np.zeros((0, 4)), nothing, nothing, nothing, mean, precision, nonnegative=nonnegative)
    assert found.mode.tolist() == mean.tolist()
    np.testing.assert_array_equal(found.precision, precision)


def test_swapping_the_outcomes_and_the_design_changes_nothing():
    design, offset, outcome, *rest = problem(1, 30)
    one = penalised_logistic(design, offset, outcome, *rest)
    other = penalised_logistic(-design, -offset, 1 - outcome, *rest)
    np.testing.assert_allclose(one.mode, other.mode, atol=1e-9)


def test_a_label_of_weight_two_counts_as_two_labels():
    design, offset, outcome, _, mean, precision = problem(2, 20)
    twice = np.repeat(np.arange(20), 2)
    once = penalised_logistic(design, offset, outcome, 2.0, mean, precision)
    again = penalised_logistic(design[twice], offset[twice], outcome[twice], 1.0, mean, precision)
    np.testing.assert_allclose(once.mode, again.mode, atol=1e-7)


def test_the_precision_is_the_hessian_of_the_loss():
    given = problem(3, 40)
    found = penalised_logistic(*given)
    step = 1e-5 * np.eye(4)
    slopes = [(loss(found.mode + s, *given)[1] - loss(found.mode - s, *given)[1]) / 2e-5 for s in step]
    np.testing.assert_allclose(found.precision, np.array(slopes), rtol=1e-4, atol=1e-4)


def test_enormous_margins_stay_finite():
    design = np.array([[1000.0, -1000.0], [-1000.0, 1000.0], [1000.0, -1000.0]])
    for nonnegative in (False, True):
        mode = penalised_logistic(
            design, 0.0, np.array([1.0, 0.0, 0.0]), 1.0, np.full(2, 0.5), np.eye(2), nonnegative=nonnegative
        ).mode
        assert np.isfinite(mode).all()
