"""A person's taste as weights on what a text is like, with the spread of tastes among people learned beside them.

A logistic regression with random effects::

    logit P(a ≻ b | u) = θ_a − θ_b + w_u·(x_a − x_b) + γ_u,     (w_u, γ_u) ~ N(μ, Σ),   θ_r ~ N(0, τ²)

x are style features and principal directions of the text embedding, so a text nobody has labelled has a place; γ is the
pull of the left side.  μ and Σ are fitted by EM with a Laplace approximation of each person's posterior (penalised
quasi-likelihood: Breslow & Clayton, JASA 1993), Σ drawn towards a multiple of the identity as if by ``NU`` people more.
A new person is the posterior mode given their few labels under N(μ, Σ): what goes together among people is told by Σ.
Numpy only.

Shapes: N labels, R texts, U people, d = features + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.features import FEATURE_NAMES
from copl_core.records import Comparisons, TrainingData

DIRECTIONS = 30  # of the text embedding
STYLE = 0.5  # how loud a standardised style feature is beside the first direction
ROUNDS = 12  # of EM
SPREAD, NU = 0.05, 10.0  # Σ is drawn towards SPREAD · I, by NU
TAU = 0.7  # standard deviation of what everybody likes, beyond what its features say
TIE_WEIGHT = 0.5  # of a tie beside a decided label


@dataclass(frozen=True)
class Tastes:
    """A fitted regression.  Tables of texts cover every text it may be asked about."""

    x: np.ndarray  # (R_all, d − 1)
    strength: np.ndarray  # (R_all,) θ
    people: np.ndarray  # (U, d)
    mean: np.ndarray  # (d,) μ
    precision: np.ndarray  # (d, d) Σ⁻¹

    def logits(self, asked: Comparisons, context: Comparisons) -> np.ndarray:
        """Log-odds (N,) of left.  Users past the table are new; ``context`` holds the labels given of them."""
        beyond = max(int(asked.user.max(initial=-1)), int(context.user.max(initial=-1))) + 1 - len(self.people)
        people = np.concatenate([self.people, np.tile(self.mean, (max(beyond, 0), 1))])
        for user in np.unique(context.user[context.user >= len(self.people)]):
            given = context.take(context.user == user)
            people[user] = self._explain(given)
        return (people[asked.user] * _design(self.x, asked)).sum(1) + _apart(self.strength, asked)

    def _explain(self, given: Comparisons, steps: int = 8) -> np.ndarray:
        rows, w = _Rows.of(self.x, given), self.mean
        offset = _apart(self.strength, given)
        for _ in range(steps):
            w, _ = rows.step(w, offset, self.mean, self.precision)
        return w


@dataclass(frozen=True)
class _Rows:
    """Labels of one person."""

    design: np.ndarray  # (n, d)
    outcome: np.ndarray  # (n,)
    weight: np.ndarray  # (n,)

    @classmethod
    def of(cls, x: np.ndarray, labels: Comparisons) -> _Rows:
        return cls(_design(x, labels), labels.outcome.astype(np.float64), np.where(labels.decided, 1.0, TIE_WEIGHT))

    def step(
        self, w: np.ndarray, offset: np.ndarray, mean: np.ndarray, precision: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One Newton step on the log posterior → w (d,), and the Laplace covariance (d, d) where it was taken."""
        p = _sigmoid(offset + self.design @ w)
        bend = self.weight * np.maximum(p * (1 - p), 1e-3)
        covariance = np.linalg.inv(precision + self.design.T @ (self.design * bend[:, None]))
        slope = self.design.T @ (self.weight * (p - self.outcome)) + precision @ (w - mean)
        return w - covariance @ slope, covariance


def fit_tastes(data: TrainingData, phi: np.ndarray) -> Tastes:
    """Fit to all labels of ``data``.

    Args:
        phi: (R_all, P), the texts of ``data`` first; what a text is like is scaled by those.
    """
    labels, x = data.labels, read_features(phi, data.n_responses)
    everybody = _Rows.of(x, labels)
    order = np.argsort(labels.user, kind="stable")
    ends = np.searchsorted(labels.user[order], np.arange(data.n_users + 1))
    mine = [order[ends[user] : ends[user + 1]] for user in range(data.n_users)]
    d = x.shape[1] + 1
    people, strength, mean, spread = np.zeros((data.n_users, d)), np.zeros(len(x)), np.zeros(d), SPREAD * np.eye(d)
    for done in range(ROUNDS):
        precision, offset, doubt = np.linalg.inv(spread), _apart(strength, labels), np.zeros((d, d))
        for user, rows in enumerate(mine):
            own = _Rows(everybody.design[rows], everybody.outcome[rows], everybody.weight[rows])
            for _ in range(1 if done else 4):  # later rounds start where the last one ended
                people[user], covariance = own.step(people[user], offset[rows], mean, precision)
            doubt += covariance
        mean = people.mean(0)
        from_mean = people - mean
        spread = (from_mean.T @ from_mean + doubt + NU * SPREAD * np.eye(d)) / (data.n_users + NU)
        strength = _strengths(strength, labels, everybody, (everybody.design * people[labels.user]).sum(1))
    return Tastes(x, strength, people, mean, np.linalg.inv(spread))


def read_features(phi: np.ndarray, n_known: int) -> np.ndarray:
    """Raw φ (R_all, P) → what a taste is about (R_all, F): style, standardised, and the first directions of the text.

    Directions keep their proportions; the first has variance one.  Everything is scaled by the first ``n_known`` rows.
    """
    style, text = phi[:, -len(FEATURE_NAMES) :].astype(np.float64), phi[:, : -len(FEATURE_NAMES)].astype(np.float64)
    mean, scale = style[:n_known].mean(0), style[:n_known].std(0)
    told = scale > 1e-6
    style = STYLE * np.clip((style[:, told] - mean[told]) / scale[told], -4, 4)
    if not text.shape[1]:
        return style
    centre = text[:n_known].mean(0)
    axes = np.linalg.svd(text[:n_known] - centre, full_matrices=False)[2][:DIRECTIONS]
    along = (text - centre) @ axes.T
    return np.column_stack([style, along / (along[:n_known].std(0)[0] or 1.0)])


def _strengths(strength: np.ndarray, labels: Comparisons, rows: _Rows, personal: np.ndarray) -> np.ndarray:
    """θ (R_all,) after a few damped diagonal Newton steps, tastes held still."""
    n = len(strength)
    for _ in range(4):
        p = _sigmoid(personal + _apart(strength, labels))
        miss, bend = rows.weight * (p - rows.outcome), rows.weight * np.maximum(p * (1 - p), 1e-3)
        slope = np.bincount(labels.left, miss, n) - np.bincount(labels.right, miss, n) + strength / TAU**2
        bends = np.bincount(labels.left, bend, n) + np.bincount(labels.right, bend, n) + 1 / TAU**2
        strength = strength - 0.7 * slope / bends
    return strength


def _design(x: np.ndarray, labels: Comparisons) -> np.ndarray:
    """(N, d): difference of features, and one for the side."""
    return np.column_stack([x[labels.left] - x[labels.right], np.ones(len(labels))])


def _apart(values: np.ndarray, labels: Comparisons) -> np.ndarray:
    return values[labels.left] - values[labels.right]


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z, -60, 60)))
