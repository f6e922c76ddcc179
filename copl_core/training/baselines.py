"""What a method without text or graph gets: the measure that CoPL has to beat.

One logistic model, nested three ways, fitted by L-BFGS under Gaussian priors::

    logit P(a ≻ b | u) = θ_a − θ_b + β·Δlength + γ              global:       Bradley–Terry with length and side
                         + β_u·Δlength + γ_u                    side-length:  and each user's own taste in both
                         + p_u·(q_a − q_b)                      mf:           and a rank-k user × item term

Δlength is the difference of log words, standardised; side is a constant, since a label is told left over right.
For side-length the precision of the priors on users' terms, for mf that precision and then the rank, is chosen on a
held-out part of the training labels: a random draw, or where ``evaluate`` asks about new texts or new people and hands
in a trial, labels of that kind.  Global has neither, and is fitted once.  Labels count alike, whatever
their strength.  A response never seen in training has θ = q = 0; a user never seen has their own terms fitted to the
labels given as context, by the same priors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from copl_core.features import FEATURE_NAMES, measure_many
from copl_core.records import Comparisons, TrainingData
from copl_core.training.metrics import log_losses
from copl_core.training.split import ValidationSplit, uniform

RANKS = (5, 10, 2)
PRECISIONS = (3.0, 1.0, 10.0, 20.0)
STRENGTH_PRECISION = 1.0
HOLDOUT = 0.1
Missed = Callable[[tuple[int, float]], float]  # rank and precision → log-loss


@dataclass(frozen=True)
class Logistic:
    """A fitted baseline.  ``length`` and item tables cover every response it may be asked about, (R_all,)."""

    length: np.ndarray  # (R_all,) standardised log words
    strength: np.ndarray  # (R_all,) θ
    items: np.ndarray  # (R_all, k) q
    beta: float
    gamma: float
    users: np.ndarray  # (U, k + 2): p_u, β_u, γ_u
    precision: float  # of the priors on p_u
    own: bool  # whether users have terms of their own

    def logits(self, asked: Comparisons, context: Comparisons | None = None) -> np.ndarray:
        """Log-odds (N,) of left.  Users past the table are new; ``context`` holds the labels given of them."""
        users = self.users
        beyond = int(max(asked.user.max(initial=-1) + 1 - len(users), 0))
        users = np.concatenate([users, np.zeros((beyond, users.shape[1]))])
        if self.own and context is not None:
            for user in np.unique(context.user[context.user >= len(self.users)]):
                if user < len(users):
                    users[user] = self._explain(context.take(np.flatnonzero(context.user == user)))
        return self._common(asked) + (users[asked.user] * self._design(asked)).sum(1)

    def _common(self, labels: Comparisons) -> np.ndarray:
        apart = self.length[labels.left] - self.length[labels.right]
        return self.strength[labels.left] - self.strength[labels.right] + self.beta * apart + self.gamma

    def _design(self, labels: Comparisons) -> np.ndarray:
        """What a user's own terms multiply (N, k + 2)."""
        return np.column_stack(
            [
                self.items[labels.left] - self.items[labels.right],
                self.length[labels.left] - self.length[labels.right],
                np.ones(len(labels)),
            ]
        )

    def _explain(self, labels: Comparisons) -> np.ndarray:
        """A new user's own terms (k + 2,) from their labels, everything shared held still."""
        labels = labels.take(labels.decided)
        x, offset, y = self._design(labels), self._common(labels), labels.outcome.astype(np.float64)
        precision = _precisions(self.items.shape[1], self.precision)

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            z = offset + x @ w
            miss = expit(z) - y
            value = (np.logaddexp(0, z) - y * z).sum() + 0.5 * (precision * w * w).sum()
            return float(value), x.T @ miss + precision * w

        return minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x


def fit_global(data: TrainingData, texts: list[str], seed: int, trial: ValidationSplit | None = None) -> Logistic:
    """Bradley–Terry strengths with length and side, the same for everybody; nothing is chosen, and no trial read."""
    labels = data.labels.take(data.labels.decided)
    return _fit(labels, _standard_length(texts), data.n_users, 0, PRECISIONS[0], own=False, seed=seed)


def fit_side_length(data: TrainingData, texts: list[str], seed: int, trial: ValidationSplit | None = None) -> Logistic:
    """Global, and each user's own pull towards a side and towards length."""
    return _chosen(data, texts, seed, (0,), trial)


def fit_mf(data: TrainingData, texts: list[str], seed: int, trial: ValidationSplit | None = None) -> Logistic:
    """Matrix factorisation: side-length, and a user × item term of low rank."""
    return _chosen(data, texts, seed, RANKS, trial)


def _chosen(
    data: TrainingData, texts: list[str], seed: int, ranks: tuple[int, ...], trial: ValidationSplit | None
) -> Logistic:
    """Precision, then rank by held-out log-loss, then a fit on everything.

    Args:
        texts: all responses (R_all,).
        trial: where options are tried; a random part of the labels is held out without one.
    """
    labels = data.labels.take(data.labels.decided)
    length = _standard_length(texts)
    missed = (
        _missed_at_random(labels, length, data.n_users, seed)
        if trial is None
        else _missed_on(trial, length[trial.text_rows], seed)
    )
    losses = {option: missed(option) for option in ((ranks[0], precision) for precision in PRECISIONS)}
    precision = min(losses, key=losses.get)[1]
    losses |= {(rank, precision): missed((rank, precision)) for rank in ranks[1:]}
    rank, precision = min(losses, key=losses.get)
    return _fit(labels, length, data.n_users, rank, precision, own=True, seed=seed)


def _missed_at_random(labels: Comparisons, length: np.ndarray, n_users: int, seed: int) -> Missed:
    """Log-loss, by option, on a part of the labels drawn at random."""
    held = _held_out(labels, seed)
    seen, asked = labels.take(~held), labels.take(held)

    def missed(option: tuple[int, float]) -> float:
        logits = _fit(seen, length, n_users, *option, own=True, seed=seed).logits(asked)
        return float(log_losses(logits, asked.outcome).mean()) if len(asked) else 0.0

    return missed


def _missed_on(trial: ValidationSplit, length: np.ndarray, seed: int) -> Missed:
    """Log-loss, by option, on what a trial asks; ``length`` (R,) by row of its world."""
    seen = trial.train.labels.take(trial.train.labels.decided)

    def missed(option: tuple[int, float]) -> float:
        fit = _fit(seen, length, trial.train.n_users, *option, own=True, seed=seed)
        return float(log_losses(fit.logits(trial.test, trial.context), trial.test.outcome) @ trial.weight)

    return missed


def _held_out(labels: Comparisons, seed: int) -> np.ndarray:
    """Mask (N,) of about ``HOLDOUT`` of the labels: all that a user said about some responses, as the graph does it."""
    salt = np.full(len(labels), seed)
    drawn = np.minimum(uniform(salt, labels.user, labels.left), uniform(salt, labels.user, labels.right))
    return drawn < HOLDOUT / 2


def _standard_length(texts: list[str]) -> np.ndarray:
    length = measure_many(texts)[:, FEATURE_NAMES.index("length")].astype(np.float64)
    return (length - length.mean()) / (length.std() or 1.0)


def _precisions(rank: int, precision: float) -> np.ndarray:
    return np.full(rank + 2, precision)


def _fit(
    labels: Comparisons, length: np.ndarray, n_users: int, rank: int, precision: float, own: bool, seed: int
) -> Logistic:
    """All parameters at once: (θ, q, p, β_u, γ_u, β, γ), with the gradient written out."""
    n_items, y = len(length), labels.outcome.astype(np.float64)
    u, a, b = labels.user, labels.left, labels.right
    apart = length[a] - length[b]
    width = rank + 2
    sizes = np.cumsum([n_items, n_items * rank, n_users * width])
    of_user = _precisions(rank, precision)

    def parts(w: np.ndarray) -> tuple[np.ndarray, ...]:
        theta, items, users, common = np.split(w, sizes)
        return theta, items.reshape(n_items, rank), users.reshape(n_users, width), common

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        theta, items, users, common = parts(w)
        design = np.column_stack([items[a] - items[b], apart, np.ones(len(y))])
        z = theta[a] - theta[b] + common[0] * apart + common[1] + (users[u] * design).sum(1) * own
        miss = expit(z) - y
        g_theta = np.bincount(a, miss, n_items) - np.bincount(b, miss, n_items) + STRENGTH_PRECISION * theta
        g_users = np.stack([np.bincount(u, miss * column, n_users) for column in design.T], 1) * own + of_user * users
        pull = users[u, :rank] * miss[:, None]
        g_items = precision * items
        for k in range(rank):
            g_items[:, k] += np.bincount(a, pull[:, k], n_items) - np.bincount(b, pull[:, k], n_items)
        held = STRENGTH_PRECISION * (theta**2).sum() + precision * (items**2).sum() + (of_user * users**2).sum()
        value = float((np.logaddexp(0, z) - y * z).sum() + 0.5 * held)
        return value, np.concatenate([g_theta, g_items.ravel(), g_users.ravel(), [miss @ apart, miss.sum()]])

    start = np.zeros(sizes[-1] + 2)
    start[n_items:] = np.random.default_rng(seed).normal(0, 0.1 if rank else 0.0, len(start) - n_items)
    theta, items, users, common = parts(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x)
    return Logistic(length, theta, items, float(common[0]), float(common[1]), users * own, precision, own)
