"""Place a user by their labels alone: no training, numpy only, milliseconds.

Neighbours of a new user are the users who labelled one of the same responses, with either sign (two hops away).  Each
is asked how well they explain the labels, ``log w_k = ρ Σ log σ(s_k(preferred) − s_k(rejected))``, and ``e* = Σ w_k
ê_k``: a posterior over "I am like user k" that sharpens with every label.  ρ < 1 tempers it, since neighbours are few
and their labels noisy.

CoPL (arXiv 2503.01658, eq. 9) takes the mean log-likelihood at temperature 0.07 over preferred edges only, so that
its posterior never sharpens: ``rule="published"``.

The default refines e* under a Gaussian prior fitted to the known users: the vector that best explains the labels
while staying where people are (Newton steps on the log posterior).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.preference.state import GraphState
from copl_core.records import Comparisons

TEMPER = 0.5  # ρ of the sharpening posterior
PUBLISHED_TEMPERATURE = 0.07
TIE_WEIGHT = 0.5  # of a tie beside a decided label
MOST = 256  # neighbours kept
SETTLED = 1e-5  # a Newton step this short leaves an error of its square
STEPS = 40  # of Newton's method; a handful is enough unless margins are sharp
SHORTEST = 1e-6  # part of a step that is tried; where none lowers the loss, rounding is all that is left
WIDEN = 1.5  # of the prior over people; 1.5 is best on new users of three data sets
RULES = ("map", "sharpening", "published")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a user stands, and on whose account."""

    vector: np.ndarray  # (d,)
    source: str  # "neighbours" | "population mean"
    n_neighbours: int
    user_ids: np.ndarray  # (K,) ids of the neighbours that weigh most, heaviest first
    weights: np.ndarray  # (K,) sum to 1; both empty without neighbours
    spread: float  # 1 where nothing is known, towards 0 as labels settle the vector
    side: float = 0.0  # log-odds this user adds to the left side


def adapt(
    state: GraphState,
    labels: Comparisons,
    rule: str = "map",
    temper: float = TEMPER,
    prior: Prior | None = None,
    besides: int | None = None,
) -> Placement:
    """Place a user from ``labels``, whose responses are rows of ``state``; the user column is not read.

    Labels count beside one another as they do in a fit (``label_weights``), but for the published rule, which knows of
    no strength.  Without a neighbour the population mean is returned, and says so.

    Args:
        prior: ``Prior.of(state)``, for callers who place many users in one state.
        besides: id of the user themself where the state knows them: nobody is a neighbour of their own.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; one of {', '.join(RULES)} is needed")
    near = neighbours(state, labels, preferred_only=rule == "published")
    if len(near) == 0 or len(labels) == 0:
        nobody = np.zeros(0)
        return Placement(state.population, "population mean", 0, nobody.astype(np.int64), nobody, 1.0)
    others = near if besides is None else near[state.user_ids[near] != besides]
    weights = _likeness(state, labels, others, rule, temper)
    vector = (weights @ state.user_vectors[others]).astype(np.float32) if len(others) else state.population
    side = 0.0
    refined = (prior or Prior.of(state)).explain(state, labels)
    if rule == "map":
        vector, side = refined.vector, refined.side
    order = np.argsort(-weights, kind="stable")[:MOST]
    heaviest = weights[order] / weights[order].sum() if len(order) else weights
    return Placement(vector, "neighbours", len(others), state.user_ids[others[order]], heaviest, refined.spread, side)


def neighbours(state: GraphState, labels: Comparisons, preferred_only: bool = False) -> np.ndarray:
    """Rows of the users who labelled a response of ``labels``; ``preferred_only`` asks for a shared preference."""
    known = state.labels
    shown = np.zeros(len(state.response_vectors) + 1, bool)  # the last is no response: where neither was preferred
    if preferred_only:
        mine, theirs = (
            np.where(one.outcome > 0.5, one.left, np.where(one.outcome < 0.5, one.right, -1)) for one in (labels, known)
        )
        shown[mine] = True
        shown[-1] = False
        shared = shown[theirs]
    else:
        shown[labels.left] = shown[labels.right] = True
        shared = shown[known.left] | shown[known.right]
    near = np.zeros(len(state.user_vectors), bool)
    near[known.user[shared]] = True
    return np.flatnonzero(near)


def label_weights(state: GraphState, labels: Comparisons) -> np.ndarray:
    """How much each label (N,) counts beside a usual one of the state: by its strength.

    A tie counts half, as evidence that neither response is much better.
    """
    known = state.labels.strength
    usual = known.mean(dtype=np.float64) if len(known) else 1.0
    return np.where(labels.decided, 1.0, TIE_WEIGHT) * (labels.strength / usual)


def _likeness(state: GraphState, labels: Comparisons, near: np.ndarray, rule: str, temper: float) -> np.ndarray:
    """Posterior weight (K,) of each neighbour given the labels."""
    apart = state.response_vectors[labels.left] - state.response_vectors[labels.right]  # (N, d)
    bias = state.response_bias[labels.left] - state.response_bias[labels.right]
    margins = (state.user_vectors[near] @ apart.T + bias) / state.temperature  # (K, N)
    left = np.minimum(margins, 0) - np.log(1 + np.exp(-np.abs(margins)))  # log σ; log(1 − σ) is less by the margin
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
    vector: np.ndarray  # (d,)
    side: float
    spread: float


@dataclass(frozen=True, slots=True)
class Prior:
    """A Gaussian over user vectors and side nuisance, N(mean, covariance), fitted to the known users."""

    mean: np.ndarray  # (d + 1,), the last is the side
    root: np.ndarray  # (d + 1, q), covariance = root rootᵀ

    @classmethod
    def of(cls, state: GraphState, widen: float = WIDEN) -> Prior:
        """From the users with labels, each counting once.

        ``widen`` multiplies the standard deviations: fitted vectors are themselves drawn in by a prior, so that they
        lie closer together than people do.
        """
        known = np.flatnonzero(state.n_labels > 0)
        rows = np.column_stack([state.user_vectors[known], state.user_side[known] + state.side]).astype(np.float64)
        if len(rows) == 0:
            rows = np.zeros((1, state.user_vectors.shape[1] + 1))
        mean = rows.mean(0)
        centred = (rows - mean) * (widen / np.sqrt(len(rows)))
        variance, axes = np.linalg.eigh(centred.T @ centred)
        kept = variance > 1e-9 * max(variance[-1], 1e-30)
        return cls(mean, axes[:, kept] * np.sqrt(variance[kept]))

    def explain(self, state: GraphState, labels: Comparisons, steps: int = STEPS) -> Refined:
        """The most probable vector given the labels, by Newton steps on whitened coordinates z ~ N(0, I).

        They lower ``Σ w (log(1 + exp m) − y m) + |z|²/2`` over margins m = offset + x z.
        """
        apart = state.response_vectors[labels.left] - state.response_vectors[labels.right]
        design = np.column_stack([apart, np.ones(len(labels))]) / state.temperature  # (N, d + 1)
        offset = (
            state.response_bias[labels.left] - state.response_bias[labels.right]
        ) / state.temperature + design @ self.mean
        x = design @ self.root  # (N, q)
        weight = label_weights(state, labels)
        newton = _dual if x.shape[0] < x.shape[1] else _primal
        z, learned = newton(x, offset, weight, labels.outcome, (self.root**2).sum(0), steps)
        whole = self.mean + self.root @ z
        before = float((self.root**2).sum())
        spread = float(np.sqrt(max(before - learned, 0) / before)) if before > 0 else 1.0
        return Refined(whole[:-1].astype(np.float32), float(whole[-1] - state.side), spread)


def _slopes(margin: np.ndarray, weight: np.ndarray, outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the log-likelihood by each label's margin: first derivative (N,), and minus the second, D (N,) > 0."""
    p = 1 / (1 + np.exp(-np.clip(margin, -40, 40)))
    return weight * (outcome - p), weight * np.maximum(p * (1 - p), 1e-12)


def _stride(
    margin: np.ndarray, along: np.ndarray, weight: np.ndarray, outcome: np.ndarray, slope: float, square: float
) -> float:
    """How much of a move to make: the whole, or the first of ½, ¼, … by which the loss does not rise; 0 if none.

    Where margins are sharp, a whole Newton step lands beyond the other side of the valley, and the next one further.

    Args:
        along: change (N,) of the margins by the whole move.
        slope: z·move.
        square: |move|².
    """
    before, size = np.logaddexp(0, margin), 1.0
    while size > SHORTEST:
        change = size * along
        rise = weight @ (np.logaddexp(0, margin + change) - before - outcome * change)
        if rise + size * (slope + size * square / 2) <= 0:
            return size
        size /= 2
    return 0.0


def _primal(
    x: np.ndarray, offset: np.ndarray, weight: np.ndarray, outcome: np.ndarray, variance: np.ndarray, steps: int
) -> tuple[np.ndarray, float]:
    """(z (q,), variance that the labels took away) by systems of q equations: (I + xᵀDx) move = xᵀg − z."""
    z, margin = np.zeros(x.shape[1]), offset
    for _ in range(steps):
        g, curve = _slopes(margin, weight, outcome)
        root = x * np.sqrt(curve)[:, None]
        precision = np.eye(len(z)) + root.T @ root  # a product with itself costs half
        move = np.linalg.solve(precision, x.T @ g - z)
        along = x @ move
        settled = np.abs(move).max(initial=0) < SETTLED
        size = 1.0 if settled else _stride(margin, along, weight, outcome, z @ move, move @ move)
        z, margin = z + size * move, margin + size * along
        if settled or size == 0:
            break
    return z, float(variance.sum() - np.diag(np.linalg.inv(precision)) @ variance)


def _dual(
    x: np.ndarray, offset: np.ndarray, weight: np.ndarray, outcome: np.ndarray, variance: np.ndarray, steps: int
) -> tuple[np.ndarray, float]:
    """The same by systems of N equations, for fewer labels than coordinates.

    z = xᵀa, so that (I + xᵀDx)⁻¹xᵀ = xᵀ(I + Dxxᵀ)⁻¹ gives a's steps, and Woodbury's identity the variance:
    (I + xᵀDx)⁻¹ = I − xᵀ(D⁻¹ + xxᵀ)⁻¹x.
    """
    alike = x @ x.T  # (N, N)
    a, margin = np.zeros(len(x)), offset
    for _ in range(steps):
        g, curve = _slopes(margin, weight, outcome)
        system = np.eye(len(a)) + curve[:, None] * alike
        move = np.linalg.solve(system, g - a)
        along = alike @ move
        settled = np.abs(x.T @ move).max(initial=0) < SETTLED
        size = 1.0 if settled else _stride(margin, along, weight, outcome, a @ along, move @ along)
        a, margin = a + size * move, margin + size * along
        if settled or size == 0:
            break
    spent = np.linalg.solve(np.diag(1 / curve) + alike, x * variance)
    return x.T @ a, float((x * spent).sum())
