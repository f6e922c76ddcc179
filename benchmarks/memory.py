"""A person's own labelled texts as a memory that is left out in training: a form of the text reward to compare with.

    logit P(a ≻ b | u) = μ · (x_a − x_b) + (s ∘ m_u) · (z_a − z_b) + θ_a − θ_b + γ,

    m_u = Σ_i ± (z_i,preferred − z_i,other) / √(n_u + 4)     over the n_u labels of u,     z = V x

V are the leading directions of the texts.  μ, the scales s, θ and γ are fitted together.  In training, the memory of a
label lacks this label and all others of the user about one of its responses, so that s learns what a memory is worth
for texts that are not in it.  ``reward.linear`` fits the own part of a user jointly instead.  Numpy and scipy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from copl_core.preference.adapt import label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.reward.linear import TextFeatures

DIRECTIONS = 64  # of V
SHRINK = 4.0  # labels that a memory must outweigh
COMMON, RESPONSE = 0.3, 1.0  # prior variances of μ and θ, as in ``LinearConfig``
SCALE, OWN_SCALE = 4.0, 0.25  # prior variances of what all scales share, and of what each has beside it
STEPS = 80


def memories(labels: Comparisons, steps: np.ndarray) -> np.ndarray:
    """m (N, k) of each label's user, without the labels that share a response with it.

    Args:
        steps: (N, k) z_left − z_right times 2 y − 1, so that a tie counts as nothing.
    """
    out = np.zeros_like(steps)
    order = np.argsort(labels.user, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels.user[order])) + 1):
        ends = np.stack([labels.left[rows], labels.right[rows]], 1)
        apart = ~(ends[:, None, :, None] == ends[None, :, None, :]).any((2, 3))
        out[rows] = apart @ steps[rows] / np.sqrt(apart.sum(1) + SHRINK)[:, None]
    return out


@dataclass(frozen=True)
class MemoryReward:
    """A fitted memory: weights μ (p,), directions V (p, k), scales s (k,) and the memories (U, k) of the users."""

    features: TextFeatures
    common: np.ndarray
    directions: np.ndarray
    scales: np.ndarray
    memory: np.ndarray

    def margins(self, phi: np.ndarray, labels: Comparisons) -> np.ndarray:
        """Log-odds (N,) of left for users of the fit, on texts with φ (T, P)."""
        x = self.features(phi)
        weights = self.common + (self.memory * self.scales) @ self.directions.T  # (U, p)
        return np.einsum("np,np->n", x[labels.left] - x[labels.right], weights[labels.user])


def fit_memory(state: GraphState, phi: np.ndarray, style: float = 0.0) -> MemoryReward:
    """From the labels of a graph's fit; φ (R, P) has the rows of its responses.

    Args:
        style: as in ``LinearConfig``.
    """
    labels, features = state.labels, TextFeatures.of(phi, style, state.features_version)
    x = features(phi)
    directions = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:DIRECTIONS].T
    difference = x[labels.left] - x[labels.right]
    along = difference @ directions
    steps = along * (2 * labels.outcome - 1)[:, None]
    design = along * memories(labels, steps)
    found = _fitted(labels, label_weights(state, labels), difference, design, len(phi))
    total = np.zeros((len(state.user_ids), directions.shape[1]))
    np.add.at(total, labels.user, steps)
    count = np.bincount(labels.user, minlength=len(total))
    return MemoryReward(features, found[0], directions, found[1], total / np.sqrt(count + SHRINK)[:, None])


def _fitted(
    labels: Comparisons, weight: np.ndarray, difference: np.ndarray, design: np.ndarray, n_responses: int
) -> tuple[np.ndarray, np.ndarray]:
    """μ (p,) and s (k,) at the one minimum of the penalised log-loss."""
    p, k = difference.shape[1], design.shape[1]
    deviations = np.sqrt(np.repeat([COMMON, SCALE, OWN_SCALE, RESPONSE, 1.0], [p, 1, k, n_responses, 1]))
    ends = np.cumsum([p, 1, k, n_responses])

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        common, shared, own, strength, side = np.split(v * deviations, ends)
        margin = difference @ common + design @ (shared + own) + strength[labels.left] - strength[labels.right]
        margin = margin + side * labels.position_known
        slope = weight * (expit(margin) - labels.outcome)
        of_scales = design.T @ slope
        of_strength = np.bincount(labels.left, slope, n_responses) - np.bincount(labels.right, slope, n_responses)
        parts = [difference.T @ slope, [of_scales.sum()], of_scales, of_strength, [slope @ labels.position_known]]
        value = (weight * (np.logaddexp(0, margin) - labels.outcome * margin)).sum() + 0.5 * (v @ v)
        return float(value), np.concatenate(parts) * deviations + v

    found = minimize(loss, np.zeros(len(deviations)), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
    common, shared, own, *_ = np.split(found * deviations, ends)
    return common, shared + own
