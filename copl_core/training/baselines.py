"""Baselines without text and graph: what CoPL has to beat.

One logistic model in three nested forms, fitted by L-BFGS under Gaussian priors::

    logit P(a ≻ b | u) = θ_a − θ_b + β·Δlength + γ              global:       Bradley–Terry, length, position bias
                         + β_u·Δlength + γ_u                    side-length:  each user's own terms for both
                         + p_u·(q_a − q_b)                      mf:           a rank-k user × response term

Δlength is the difference of log word counts, standardised; γ is the position bias of the left side, which labels with
an unknown position do not have.
The prior precision of the user terms (side-length, mf) and the rank (mf) are chosen on validation labels: those of a
given ``ValidationSplit``, else a random part of the training labels.  Global has no options and is fitted once.  All
labels have the same weight, whatever their strength.  An unseen response has θ = q = 0; the terms of an unseen user are
fitted to the user's context labels under the same priors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from copl_core.features import FEATURE_NAMES, measure_many
from copl_core.logistic import penalised_logistic
from copl_core.records import Comparisons, TrainingData
from copl_core.training.metrics import log_losses
from copl_core.training.split import ValidationSplit, hold_out

RANKS = (5, 10, 2)
PRECISIONS = (3.0, 1.0, 10.0, 20.0)
STRENGTH_PRECISION = 1.0
HOLDOUT = 0.1
Option = tuple[int, float]  # rank, prior precision


@dataclass(frozen=True)
class Logistic:
    """A fitted baseline.  ``length`` and item tables cover every response of the dataset, (R_all,)."""

    length: np.ndarray  # (R_all,) standardised log words
    strength: np.ndarray  # (R_all,) θ
    items: np.ndarray  # (R_all, k) q
    beta: float
    gamma: float
    users: np.ndarray  # (U, k + 2): p_u, β_u, γ_u
    precision: float  # of the priors on p_u
    personal: bool  # whether users have their own terms

    def logits(self, test: Comparisons, context: Comparisons | None = None) -> np.ndarray:
        """Log-odds (N,) of left.  Users past the end of ``users`` are new; ``context`` holds labels given by them."""
        users = self.users
        n_new = int(max(test.user.max(initial=-1) + 1 - len(users), 0))
        users = np.concatenate([users, np.zeros((n_new, users.shape[1]))])
        if self.personal and context is not None:
            for user in np.unique(context.user[context.user >= len(self.users)]):
                if user < len(users):
                    users[user] = self._fit_user(context.take(np.flatnonzero(context.user == user)))
        return self._common(test) + (users[test.user] * self._design(test)).sum(1)

    def _common(self, labels: Comparisons) -> np.ndarray:
        longer = self.length[labels.left] - self.length[labels.right]
        common = self.beta * longer + self.gamma * labels.position_known
        return self.strength[labels.left] - self.strength[labels.right] + common

    def _design(self, labels: Comparisons) -> np.ndarray:
        """Features (N, k + 2) that a user's own terms multiply."""
        return np.column_stack(
            [
                self.items[labels.left] - self.items[labels.right],
                self.length[labels.left] - self.length[labels.right],
                labels.position_known,
            ]
        )

    def _fit_user(self, labels: Comparisons) -> np.ndarray:
        """A new user's own terms (k + 2,) from the user's labels, all shared terms fixed."""
        labels = labels.take(labels.decided)
        x, outcome = self._design(labels), labels.outcome.astype(np.float64)
        mean, precision = np.zeros(x.shape[1]), self.precision * np.eye(x.shape[1])
        return penalised_logistic(x, self._common(labels), outcome, 1.0, mean, precision).mode


def fit_global(data: TrainingData, texts: list[str], seed: int, validation: ValidationSplit | None = None) -> Logistic:
    """Bradley–Terry strengths with length and position bias, the same for all users; ``validation`` is not read."""
    labels = data.labels.take(data.labels.decided)
    return _fit(labels, _standard_length(texts), data.n_users, 0, PRECISIONS[0], personal=False, seed=seed)


def fit_side_length(
    data: TrainingData, texts: list[str], seed: int, validation: ValidationSplit | None = None
) -> Logistic:
    """Global, and each user's own position bias and preference for length."""
    return _chosen(data, texts, seed, (0,), validation)


def fit_mf(data: TrainingData, texts: list[str], seed: int, validation: ValidationSplit | None = None) -> Logistic:
    """Matrix factorisation: side-length, and a user × response term of low rank."""
    return _chosen(data, texts, seed, RANKS, validation)


def _chosen(
    data: TrainingData, texts: list[str], seed: int, ranks: tuple[int, ...], validation: ValidationSplit | None
) -> Logistic:
    """Choose the precision, then the rank, by validation log-loss; then fit all training labels.

    Args:
        texts: all responses (R_all,).
        validation: where options are compared; None holds out a random part of the training labels.
    """
    labels = data.labels.take(data.labels.decided)
    length = _standard_length(texts)
    loss_of = (
        _random_loss(labels, length, data.n_users, seed)
        if validation is None
        else _validation_loss(validation, length[validation.text_rows], seed)
    )
    losses = {option: loss_of(option) for option in ((ranks[0], precision) for precision in PRECISIONS)}
    precision = min(losses, key=lambda option: losses[option])[1]
    losses |= {(rank, precision): loss_of((rank, precision)) for rank in ranks[1:]}
    rank, precision = min(losses, key=lambda option: losses[option])
    return _fit(labels, length, data.n_users, rank, precision, personal=True, seed=seed)


def _random_loss(labels: Comparisons, length: np.ndarray, n_users: int, seed: int) -> Callable[[Option], float]:
    """Log-loss of an option on a random part of the labels.

    About ``HOLDOUT`` of the labels are held out, by ``hold_out``.
    """
    train, test = map(labels.take, hold_out(labels.user, labels.left, labels.right, HOLDOUT, seed))

    def loss_of(option: Option) -> float:
        logits = _fit(train, length, n_users, *option, personal=True, seed=seed).logits(test)
        return float(log_losses(logits, test.outcome).mean()) if len(test) else 0.0

    return loss_of


def _validation_loss(split: ValidationSplit, length: np.ndarray, seed: int) -> Callable[[Option], float]:
    """Weighted log-loss of an option on the test labels of a split; ``length`` (R,) has the rows of the split."""
    labels = split.train.labels.take(split.train.labels.decided)

    def loss_of(option: Option) -> float:
        fit = _fit(labels, length, split.train.n_users, *option, personal=True, seed=seed)
        return float(log_losses(fit.logits(split.test, split.context), split.test.outcome) @ split.weight)

    return loss_of


def _standard_length(texts: list[str]) -> np.ndarray:
    length = measure_many(texts)[:, FEATURE_NAMES.index("length")].astype(np.float64)
    return (length - length.mean()) / (length.std() or 1.0)


def _fit(
    labels: Comparisons, length: np.ndarray, n_users: int, rank: int, precision: float, personal: bool, seed: int
) -> Logistic:
    """All parameters (θ, q, p_u, β_u, γ_u, β, γ) at once, with the analytic gradient."""
    n_items, y = len(length), labels.outcome.astype(np.float64)
    u, a, b = labels.user, labels.left, labels.right
    longer, known = length[a] - length[b], labels.position_known.astype(np.float64)
    width = rank + 2
    sizes = np.cumsum([n_items, n_items * rank, n_users * width])

    def parts(w: np.ndarray) -> tuple[np.ndarray, ...]:
        theta, items, users, common = np.split(w, sizes)
        return theta, items.reshape(n_items, rank), users.reshape(n_users, width), common

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        theta, items, users, common = parts(w)
        design = np.column_stack([items[a] - items[b], longer, known])
        z = theta[a] - theta[b] + common[0] * longer + common[1] * known + (users[u] * design).sum(1) * personal
        residual = expit(z) - y
        g_theta = np.bincount(a, residual, n_items) - np.bincount(b, residual, n_items) + STRENGTH_PRECISION * theta
        by_user = np.stack([np.bincount(u, residual * column, n_users) for column in design.T], 1)
        g_users = by_user * personal + precision * users
        to_items = users[u, :rank] * residual[:, None]
        g_items = precision * items
        for k in range(rank):
            g_items[:, k] += np.bincount(a, to_items[:, k], n_items) - np.bincount(b, to_items[:, k], n_items)
        penalty = STRENGTH_PRECISION * (theta**2).sum() + precision * (items**2).sum() + (precision * users**2).sum()
        value = float((np.logaddexp(0, z) - y * z).sum() + 0.5 * penalty)
        return value, np.concatenate([g_theta, g_items.ravel(), g_users.ravel(), [residual @ longer, residual @ known]])

    start = np.zeros(sizes[-1] + 2)
    start[n_items:] = np.random.default_rng(seed).normal(0, 0.1 if rank else 0.0, len(start) - n_items)
    if not known.any():
        start[-1] = 0.0  # γ, which has no prior and would stay where it starts
    theta, items, users, common = parts(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x)
    return Logistic(length, theta, items, float(common[0]), float(common[1]), users * personal, precision, personal)
