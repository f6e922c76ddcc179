"""People's rows with a bound on what one label changes: (ε, δ)-private for each label, given the responses' vectors.

A person's row is the minimum of a convex loss under the prior of everybody (``adapt``), in coordinates in which that
prior is N(0, I).  Two ways to privacy:

- *Output perturbation* (Chaudhuri and Monteleoni, NIPS 2008): the loss is 1-strongly convex, so a label whose gradient
  is at most ``CLIP`` long moves the minimum by ``CLIP`` at most, and noise on the minimum hides it.
- *DP-SGD* (Abadi et al., arXiv 1607.00133): few steps of gradient descent, each with the gradient of every label
  clipped and noise on their sum.  All labels of a person are in every step, so T steps with Gaussian noise are one with
  noise √T times smaller, and the accountant is exact (Dong, Roth, Su, arXiv 1905.02383, corollary 3.3).  Opacus' does
  the same: with noise whose ε is 8, its accountants say 8.01 (PRV) and 8.60 (Rényi).

The prior and the responses' vectors have learned from the label too, and are not covered.

Shapes: U people, N labels, q coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from copl_core.logistic import penalised_logistic
from copl_core.preference.adapt import Prior, label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons

CLIP = 1.0  # log-odds that one label may add to the slope of a private vector, in units of the prior
DELTA = 1e-5  # probability with which the bound may fail
STEPS, RATE, CLIP_OF_STEP = 5, 0.6, 0.3  # of descent: chosen on the demo by accuracy, for ε = 2 and 8


@dataclass(frozen=True, slots=True)
class _Rows:
    """The labels as a design in the coordinates of the prior."""

    prior: Prior
    x: np.ndarray  # (N, q)
    offset: np.ndarray  # (N,)
    weight: np.ndarray  # (N,)
    labels: Comparisons

    @classmethod
    def of(cls, state: GraphState, labels: Comparisons) -> _Rows:
        prior = Prior.of(state)
        vectors, bias = state.differences(labels.left, labels.right)
        design = np.column_stack([vectors, labels.position_known]) / state.temperature
        offset = bias / state.temperature + design @ prior.mean
        return cls(prior, design @ prior.root, offset, label_weights(state, labels), labels)

    def vectors(self, z: np.ndarray) -> np.ndarray:
        """Vectors (U, d) of coordinates (U, q)."""
        return (self.prior.mean + z @ self.prior.root.T)[:, :-1].astype(np.float32)


def private_vectors(state: GraphState, labels: Comparisons, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Vectors (U, d) placed by labels, with noise on the result."""
    rows = _Rows.of(state, labels)
    length = np.linalg.norm(rows.x, axis=1)
    weight = np.minimum(rows.weight, CLIP / np.maximum(length, 1e-12))
    q, sigma = rows.x.shape[1], noise_for(epsilon)
    z = np.zeros((len(state.user_vectors), q))
    for own in by_person(labels.user):
        found = penalised_logistic(
            rows.x[own], rows.offset[own], labels.outcome[own], weight[own], np.zeros(q), np.eye(q)
        )
        z[labels.user[own[0]]] = found.mode
    return rows.vectors(z + rng.normal(0, sigma, z.shape))


def by_descent(
    state: GraphState,
    labels: Comparisons,
    epsilon: float,
    rng: np.random.Generator,
    *,
    steps: int = STEPS,
    rate: float = RATE,
    clip: float = CLIP_OF_STEP,
) -> np.ndarray:
    """Vectors (U, d) placed by labels, with noise in every step of descent."""
    rows, sigma = _Rows.of(state, labels), clip * np.sqrt(steps) * noise_for(epsilon, sensitivity=1.0)
    z = np.zeros((len(state.user_vectors), rows.x.shape[1]))
    for _ in range(steps):
        slope = clipped_slopes(rows, z, clip)
        z = z - rate * (z + slope + rng.normal(0, sigma, z.shape))
    return rows.vectors(z)


def clipped_slopes(rows: _Rows, z: np.ndarray, clip: float) -> np.ndarray:
    """The sum (U, q) of each person's gradients, each at most ``clip`` long."""
    user, outcome = rows.labels.user, rows.labels.outcome
    margin = rows.offset + (rows.x * z[user]).sum(1)
    slope = (rows.weight * (expit(margin) - outcome))[:, None] * rows.x
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    slope = slope * np.minimum(1.0, clip / np.maximum(length, 1e-12))
    total = np.zeros_like(z)
    np.add.at(total, user, slope)
    return total


def noise_for(epsilon: float, delta: float = DELTA, sensitivity: float = CLIP) -> float:
    """Standard deviation of Gaussian noise for (ε, δ) (Balle and Wang, arXiv 1805.06530, theorem 8)."""

    def excess(sigma: float) -> float:
        a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
        return float(norm.cdf(a - b) - np.exp(epsilon + norm.logcdf(-a - b)) - delta)

    return float(brentq(excess, 1e-3 * sensitivity / epsilon, 1e3 * sensitivity / min(epsilon, 1.0)))


def by_person(user: np.ndarray) -> list[np.ndarray]:
    """The rows of each person's labels."""
    order = np.argsort(user, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(user[order])) + 1) if len(user) else []
