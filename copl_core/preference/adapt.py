"""Infer a user's vector from their labels alone: no training, numpy only, milliseconds.

Neighbours of a new user are the users who labelled one of the same responses, with either sign (two hops away).  Each
neighbour k is weighted by the likelihood of the labels under their vector, ``log w_k = ρ Σ log σ(s_k(preferred) −
s_k(rejected))``, and ``e* = Σ w_k ê_k``: a posterior over "I am like user k" that sharpens with every label.  ρ < 1
tempers it, since neighbours are few and their labels noisy.

CoPL (arXiv 2503.01658, eq. 9) takes the mean log-likelihood at temperature 0.07 over preferred edges only, so that
its posterior never sharpens: ``rule="published"``.

The default, ``rule="map"``, is the most probable vector under a Gaussian prior fitted to the known users (Newton steps
on the log posterior).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit

from copl_core.logistic import MAX_STEPS, TOLERANCE, fraction, penalised_logistic
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons

TEMPER = 0.5  # ρ of the sharpening posterior
PUBLISHED_TEMPERATURE = 0.07
TIE_WEIGHT = 0.5  # of a tie, relative to a decided label
MAX_NEIGHBOURS = 256  # neighbours listed in a placement
MOST_KNOWN = 100_000  # users from whom a prior is fitted: more take a second, and change it by a few thousandths
WIDEN = 1.5  # factor on the standard deviations of the known users' vectors
# Variance of the prior in every direction, relative to the total variance of the known users' vectors.  Between 0.6 and
# 1.5 the log-loss of new users of three data sets, with nine graphs, hardly changes; simulated users of four groups,
# who do vary in few directions, lose from 1 on.
ISOTROPIC = 0.6
RULES = ("map", "sharpening", "published")


@dataclass(frozen=True, slots=True)
class Placement:
    """A user's inferred vector, and the neighbours it rests on."""

    vector: np.ndarray  # (d,)
    source: str  # "neighbours" | "population mean"
    n_neighbours: int
    user_ids: np.ndarray  # (K,) ids of the neighbours of largest weight, in descending order
    weights: np.ndarray  # (K,) sum to 1; both are empty without neighbours
    spread: float  # posterior over prior standard deviation: 1 without labels, towards 0 with many
    position_bias: float = 0.0  # log-odds that this user adds to the left position


def adapt(
    state: GraphState,
    labels: Comparisons,
    rule: str = "map",
    temper: float = TEMPER,
    prior: Prior | None = None,
    exclude_user: int | None = None,
) -> Placement:
    """Infer a user's vector from ``labels``, whose responses are rows of ``state``; the user column is not read.

    Labels are weighted by their strength as in a fit (``label_weights``); the published rule ignores strength.  Without
    a neighbour the result is the population mean, and its ``source`` says so.

    Args:
        rule: a name of ``RULES``.
        temper: ρ of the sharpening posterior.
        prior: ``Prior.of(state)``, for callers who adapt to many users in one state.
        exclude_user: id of the user, if the state has them: no user is their own neighbour.
    Raises:
        ValueError: if the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; one of {', '.join(RULES)} is needed")
    near = neighbours(state, labels, preferred_only=rule == "published")
    if len(near) == 0 or len(labels) == 0:
        none = np.zeros(0)
        return Placement(state.population, "population mean", 0, none.astype(np.int64), none, 1.0)
    others = near if exclude_user is None else near[state.user_ids[near] != exclude_user]
    weights = _likeness(state, labels, others, rule, temper)
    vector = (weights @ state.user_vectors[others]).astype(np.float32) if len(others) else state.population
    position_bias = 0.0
    refined = (prior or Prior.of(state)).explain(state, labels)
    if rule == "map":
        vector, position_bias = refined.vector, refined.position_bias
    order = np.argsort(-weights, kind="stable")[:MAX_NEIGHBOURS]
    largest = weights[order] / weights[order].sum() if len(order) else weights
    user_ids = state.user_ids[others[order]]
    return Placement(vector, "neighbours", len(others), user_ids, largest, refined.spread, position_bias)


def neighbours(state: GraphState, labels: Comparisons, preferred_only: bool = False) -> np.ndarray:
    """Rows (K,) of the users who labelled a response of ``labels``; with ``preferred_only``, who preferred the same
    one."""
    known = state.labels
    shown = np.zeros(len(state.response_vectors) + 1, bool)  # the last row stands for a label without a preference
    if preferred_only:
        own, others = (
            np.where(one.outcome > 0.5, one.left, np.where(one.outcome < 0.5, one.right, -1)) for one in (labels, known)
        )
        shown[own] = True
        shown[-1] = False
        shared = shown[others]
    else:
        shown[labels.left] = shown[labels.right] = True
        shared = shown[known.left] | shown[known.right]
    near = np.zeros(len(state.user_vectors), bool)
    near[known.user[shared]] = True
    return np.flatnonzero(near)


def label_weights(state: GraphState, labels: Comparisons) -> np.ndarray:
    """Weight (N,) of each label: its strength relative to the mean strength in the state.

    A tie has half the weight, as evidence that neither response is much better.
    """
    known = state.labels.strength
    mean = known.mean(dtype=np.float64) if len(known) else 1.0
    return np.where(labels.decided, 1.0, TIE_WEIGHT) * (labels.strength / mean)


def _likeness(state: GraphState, labels: Comparisons, near: np.ndarray, rule: str, temper: float) -> np.ndarray:
    """Posterior weight (K,) of each neighbour given the labels."""
    margins = state.log_odds(state.user_vectors[near], labels.left, labels.right)  # (K, N)
    left = log_expit(margins)  # log σ(m); log(1 − σ(m)) is log σ(m) − m
    if rule == "published":
        decided = labels.decided
        explained = left[:, decided] - margins[:, decided] * (labels.outcome[decided] == 0)
        score = explained.mean(1) / PUBLISHED_TEMPERATURE if decided.any() else np.zeros(len(near))
    else:
        weight = label_weights(state, labels).astype(np.float32)
        of_right = weight * (1 - labels.outcome.astype(np.float32))
        score = temper * (left @ weight - margins @ of_right)
    weights = np.exp(score - score.max(initial=-np.inf))
    return weights / weights.sum() if len(weights) else weights


@dataclass(frozen=True, slots=True)
class Refined:
    """The most probable vector under the prior."""

    vector: np.ndarray  # (d,)
    position_bias: float
    spread: float  # posterior over prior standard deviation


@dataclass(frozen=True, slots=True)
class Prior:
    """A Gaussian over user vectors and position bias, N(mean, covariance), fitted to the known users.

    Fitted vectors vary less than users do, since the fit shrinks them.  Where users have few labels, most directions
    are shrunk to almost nothing: the vectors of 1,500 users with 6 labels each vary in two or three.  Hence
    ``covariance = widen² C + isotropic tr(C) I``, with C the covariance of the known vectors.  The identity is over the
    vector alone; the position bias has the first term only.
    """

    mean: np.ndarray  # (d + 1,), the last is the position bias
    root: np.ndarray  # (d + 1, q), covariance = root rootᵀ

    @classmethod
    def of(cls, state: GraphState, widen: float = WIDEN, isotropic: float = ISOTROPIC) -> Prior:
        """From the users with labels, all of the same weight; from an even sample of more than ``MOST_KNOWN``."""
        known = np.flatnonzero(state.n_labels > 0)
        if len(known) > MOST_KNOWN:
            known = known[np.linspace(0, len(known) - 1, MOST_KNOWN).astype(int)]
        position_bias = state.user_position_bias[known] + state.position_bias
        rows = np.column_stack([state.user_vectors[known], position_bias]).astype(np.float64)
        if len(rows) == 0:
            rows = np.zeros((1, state.user_vectors.shape[1] + 1))
        mean = rows.mean(0)
        centred = (rows - mean) / np.sqrt(len(rows))
        covariance = centred.T @ centred
        everywhere = np.full(len(mean), isotropic * np.trace(covariance[:-1, :-1]))
        everywhere[-1] = 0.0
        variance, axes = np.linalg.eigh(widen**2 * covariance + np.diag(everywhere))
        kept = variance > 1e-9 * max(variance[-1], 1e-30)
        return cls(mean, axes[:, kept] * np.sqrt(variance[kept]))

    def explain(self, state: GraphState, labels: Comparisons, steps: int = MAX_STEPS) -> Refined:
        """The most probable vector given the labels, by Newton steps on whitened coordinates z ~ N(0, I).

        The steps minimise ``Σ w (log(1 + exp m) − y m) + |z|²/2`` over margins m = offset + x z.
        """
        difference, bias = state.differences(labels.left, labels.right)
        design = np.column_stack([difference, labels.position_known]) / state.temperature  # (N, d + 1)
        offset = bias / state.temperature + design @ self.mean
        x = design @ self.root  # (N, q)
        weight = label_weights(state, labels)
        newton = _dual if x.shape[0] < x.shape[1] else _primal
        z, explained = newton(x, offset, weight, labels.outcome, (self.root**2).sum(0), steps)
        found = self.mean + self.root @ z
        before = float((self.root**2).sum())
        spread = float(np.sqrt(max(before - explained, 0) / before)) if before > 0 else 1.0
        return Refined(found[:-1].astype(np.float32), float(found[-1] - state.position_bias), spread)


def _slopes(margin: np.ndarray, weight: np.ndarray, outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the log-likelihood by each label's margin: the first (N,), and minus the second, D (N,) > 0."""
    p = expit(margin)
    return weight * (outcome - p), weight * np.maximum(p * (1 - p), 1e-12)


def _primal(
    x: np.ndarray, offset: np.ndarray, weight: np.ndarray, outcome: np.ndarray, variance: np.ndarray, steps: int
) -> tuple[np.ndarray, float]:
    """z (q,) and the variance that the labels explain, by systems of q equations."""
    q = x.shape[1]
    found = penalised_logistic(x, offset, outcome, weight, np.zeros(q), np.eye(q), steps=steps)
    return found.mode, float(variance.sum() - np.diag(np.linalg.inv(found.precision)) @ variance)


def _dual(
    x: np.ndarray, offset: np.ndarray, weight: np.ndarray, outcome: np.ndarray, variance: np.ndarray, steps: int
) -> tuple[np.ndarray, float]:
    """The same by systems of N equations, for fewer labels than coordinates.

    With z = xᵀa, (I + xᵀDx)⁻¹xᵀ = xᵀ(I + Dxxᵀ)⁻¹ gives the steps of a, and Woodbury's identity the variance:
    (I + xᵀDx)⁻¹ = I − xᵀ(D⁻¹ + xxᵀ)⁻¹x.
    """
    gram = x @ x.T  # (N, N)
    a, margin = np.zeros(len(x)), offset
    for _ in range(steps):
        g, curve = _slopes(margin, weight, outcome)
        system = np.eye(len(a)) + curve[:, None] * gram
        move = np.linalg.solve(system, g - a)
        along = gram @ move
        converged = np.abs(x.T @ move).max(initial=0) < TOLERANCE
        size = 1.0 if converged else fraction(margin, along, outcome, weight, float(a @ along), float(move @ along))
        a, margin = a + size * move, margin + size * along
        if converged or size == 0:
            break
    reduction = np.linalg.solve(np.diag(1 / curve) + gram, x * variance)
    return x.T @ a, float((x * reduction).sum())
