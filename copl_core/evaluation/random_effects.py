"""A user's preferences as weights on text features, with the covariance of the weights among users learned too.

A logistic regression with random effects::

    logit P(a ≻ b | u) = θ_a − θ_b + w_u·(x_a − x_b) + γ_u,     (w_u, γ_u) ~ N(μ, Σ),   θ_r ~ N(0, τ²)

x are style features and principal directions of the text embedding, so unseen texts have features too; γ is the
position bias of the left side, which labels with an unknown position do not have.  μ and Σ are fitted by EM with a
Laplace approximation of each user's posterior (penalised quasi-likelihood: Breslow & Clayton, JASA 1993).  Σ is shrunk
towards a multiple of the identity, with the weight of ``NU`` users.  A new user has the posterior mode given the
context labels under N(μ, Σ), so that Σ carries what a few labels say about some weights over to the others.

Shapes: N labels, R texts, U users, d = features + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from copl_core.features import FEATURE_NAMES
from copl_core.logistic import penalised_logistic
from copl_core.records import Comparisons, TrainingData

DIRECTIONS = 30  # of the text embedding
STYLE = 0.5  # standard deviation of a style feature, where the first direction has 1
ROUNDS = 12  # of EM
SPREAD, NU = 0.05, 10.0  # Σ is shrunk towards SPREAD · I, with the weight of NU users
TAU = 0.7  # standard deviation of θ
TIE_WEIGHT = 0.5  # of a tie, where a decided label has 1


@dataclass(frozen=True)
class RandomEffects:
    """A fitted regression.  Tables of texts cover every text of the dataset."""

    x: np.ndarray  # (R_all, d − 1)
    strength: np.ndarray  # (R_all,) θ
    users: np.ndarray  # (U, d) posterior modes of (w_u, γ_u)
    mean: np.ndarray  # (d,) μ
    precision: np.ndarray  # (d, d) Σ⁻¹

    def logits(self, test: Comparisons, context: Comparisons) -> np.ndarray:
        """Log-odds (N,) of left.  Users past the end of ``users`` are new; ``context`` holds labels given by them."""
        n_all = max(int(test.user.max(initial=-1)), int(context.user.max(initial=-1))) + 1
        n_new = max(n_all - len(self.users), 0)
        users = np.concatenate([self.users, np.tile(self.mean, (n_new, 1))])
        for user in np.unique(context.user[context.user >= len(self.users)]):
            users[user] = self._fit_user(context.take(context.user == user))
        return (users[test.user] * _design(self.x, test)).sum(1) + _difference(self.strength, test)

    def _fit_user(self, labels: Comparisons) -> np.ndarray:
        """Posterior mode (d,) of a new user."""
        rows, offset = _Rows.of(self.x, labels), _difference(self.strength, labels)
        return penalised_logistic(rows.design, offset, rows.outcome, rows.weight, self.mean, self.precision).mode


@dataclass(frozen=True)
class _Rows:
    """Labels of one user, or of all users."""

    design: np.ndarray  # (n, d)
    outcome: np.ndarray  # (n,)
    weight: np.ndarray  # (n,)

    @classmethod
    def of(cls, x: np.ndarray, labels: Comparisons) -> _Rows:
        return cls(_design(x, labels), labels.outcome.astype(np.float64), np.where(labels.decided, 1.0, TIE_WEIGHT))


def fit_random_effects(data: TrainingData, phi: np.ndarray) -> RandomEffects:
    """Fit to all labels of ``data``.

    Args:
        phi: (R_all, P) embeddings, the texts of ``data`` first; features are scaled by those.
    """
    labels, x = data.labels, text_features(phi, data.n_responses)
    rows_of_all = _Rows.of(x, labels)
    order = np.argsort(labels.user, kind="stable")
    ends = np.searchsorted(labels.user[order], np.arange(data.n_users + 1))
    rows_of_user = [order[ends[user] : ends[user + 1]] for user in range(data.n_users)]
    d = x.shape[1] + 1
    users, strength, mean, sigma = np.zeros((data.n_users, d)), np.zeros(len(x)), np.zeros(d), SPREAD * np.eye(d)
    for done in range(ROUNDS):
        precision, offset = np.linalg.inv(sigma), _difference(strength, labels)
        posterior = np.zeros((d, d))  # sum of the users' Laplace covariances
        for user, rows in enumerate(rows_of_user):
            found = penalised_logistic(
                rows_of_all.design[rows],
                offset[rows],
                rows_of_all.outcome[rows],
                rows_of_all.weight[rows],
                mean,
                precision,
                start=users[user],
                steps=1 if done else 4,  # later rounds start where the last one ended
            )
            users[user] = found.mode
            posterior += np.linalg.inv(found.precision)
        mean = users.mean(0)
        deviation = users - mean
        sigma = (deviation.T @ deviation + posterior + NU * SPREAD * np.eye(d)) / (data.n_users + NU)
        personal = (rows_of_all.design * users[labels.user]).sum(1)
        strength = _fit_strength(strength, labels, rows_of_all, personal)
    return RandomEffects(x, strength, users, mean, np.linalg.inv(sigma))


def text_features(phi: np.ndarray, n_known: int) -> np.ndarray:
    """Raw φ (R_all, P) → features (R_all, F): standardised style features, and the first directions of the embedding.

    Directions keep their relative scale; the first has variance one.  The first ``n_known`` rows set the scale of all.
    """
    style, text = phi[:, -len(FEATURE_NAMES) :].astype(np.float64), phi[:, : -len(FEATURE_NAMES)].astype(np.float64)
    mean, scale = style[:n_known].mean(0), style[:n_known].std(0)
    varies = scale > 1e-6
    style = STYLE * np.clip((style[:, varies] - mean[varies]) / scale[varies], -4, 4)
    if not text.shape[1]:
        return style
    centre = text[:n_known].mean(0)
    axes = np.linalg.svd(text[:n_known] - centre, full_matrices=False)[2][:DIRECTIONS]
    along = (text - centre) @ axes.T
    return np.column_stack([style, along / (along[:n_known].std(0)[0] or 1.0)])


def _fit_strength(strength: np.ndarray, labels: Comparisons, rows: _Rows, personal: np.ndarray) -> np.ndarray:
    """θ (R_all,) after a few damped diagonal Newton steps, the users' terms ``personal`` (N,) fixed."""
    n = len(strength)
    for _ in range(4):
        p = expit(personal + _difference(strength, labels))
        residual, curvature = rows.weight * (p - rows.outcome), rows.weight * np.maximum(p * (1 - p), 1e-3)
        gradient = np.bincount(labels.left, residual, n) - np.bincount(labels.right, residual, n) + strength / TAU**2
        diagonal = np.bincount(labels.left, curvature, n) + np.bincount(labels.right, curvature, n) + 1 / TAU**2
        strength = strength - 0.7 * gradient / diagonal
    return strength


def _design(x: np.ndarray, labels: Comparisons) -> np.ndarray:
    """(N, d): differences of features, and for the position bias 1 where the position is known."""
    return np.column_stack([x[labels.left] - x[labels.right], labels.position_known])


def _difference(values: np.ndarray, labels: Comparisons) -> np.ndarray:
    """(N,) value of the left response minus that of the right one."""
    return values[labels.left] - values[labels.right]
