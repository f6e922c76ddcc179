"""How strongly the model expects each label, with the label itself left out, and which labels may be wrong.

After arXiv 2401.06080 (Secrets of RLHF in Large Language Models, part II): a label's *strength* is the mean over the
members of an ensemble of the margin of its own choice, and a label whose mean margin is clearly negative is likely to
be wrong.  Here no refit is needed.  A user's vector is the most probable one under the prior of all users
(``preference.adapt``), and the vector without one label follows from it in closed form (approximate leave-one-out, K.
Rahnama Rad and A. Maleki, arXiv 1801.10243).  With whitened design rows x, p = σ(m), D = w p (1 − p), r = w (y − p),
precision H = I + xᵀ D x and h_i = x_iᵀ H⁻¹ x_i::

    z_(without i)  =  z − H⁻¹ x_i r_i / (1 − h_i D_i)

The vectors of responses have seen the label; many users share them, so a single label moves them little.  On injected
flips this finds about as many as fits of the graph that never saw the label (``benchmarks.suspects``).  The vectors of
a fit's own members cannot serve here: they carry the messages of all labels, held out or not.  numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from copl_core.insight.quality import Share
from copl_core.preference.adapt import Prior, label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons

# Mean log-odds of a label's own choice below which it may be wrong: with 5 to 10 % of labels flipped, more than half
# of the suspects are flips on every file of ``benchmarks.suspects``.
THRESHOLD = -1.5
FEWEST_LABELS = 10  # decided labels of a user below which none of them is called suspect
CHANCE = 0.5  # the whole interval of a user's predicted labels must lie above it
_STEPS, _TOLERANCE = 30, 1e-6
_CELLS = 4_000_000  # users × labels × coordinates computed at once


def learned_prior(state: GraphState) -> Prior:
    """The prior of users whose labels the state has learned: as for new users, without the isotropic part.

    The vectors of responses carry these labels.  In directions in which the fitted vectors of users hardly vary they
    would explain a wrong label by what it has left in the responses.
    """
    return Prior.of(state, isotropic=0.0)


@dataclass(frozen=True, slots=True)
class Strengths:
    """For N labels of M members: log-odds of each label's own choice, the label itself left out; NaN for ties."""

    members: np.ndarray  # (M, N)

    @property
    def mean(self) -> np.ndarray:
        """(N,) mean over the members."""
        return self.members.mean(0)

    @property
    def against(self) -> np.ndarray:
        """Mask (N,) of labels against which all members vote."""
        return np.all(self.members < 0, axis=0)


def label_strengths(state: GraphState, prior: Prior, labels: Comparisons) -> Strengths:
    """The strength of each label of any users, known to the state or not.

    The position bias belongs to the label and not to the preference, so it explains the other labels and never makes
    one stronger.

    Args:
        labels: (N,) with responses as rows of ``state``; the user column only says which labels belong together.
    """
    members = _members(state)
    found = np.full((members, len(labels)), np.nan)
    difference, bias = state.differences(labels.left, labels.right)
    weight = label_weights(state, labels)
    for rows, size in _alike(labels.user, prior.root.shape[1]):
        vectors = _without_each(state, prior, labels, weight, rows, size)  # (n, d)
        by_member = (vectors * difference[rows]).reshape(len(rows), members, -1).sum(2)
        found[:, rows] = (members * by_member + bias[rows, None]).T / state.temperature
    sign = np.where(labels.decided, np.where(labels.outcome > 0.5, 1.0, -1.0), np.nan)
    return Strengths(found * sign)


def suspects(strengths: Strengths, threshold: float = THRESHOLD) -> np.ndarray:
    """Rows of the labels that may be wrong, the most suspect first: all members vote against, and the mean is below
    the threshold.

    A vote of all members says more than the mean only near zero: below the threshold both hardly ever differ.
    """
    mean = strengths.mean
    rows = np.flatnonzero(strengths.against & (mean < threshold))
    return rows[np.argsort(mean[rows], kind="stable")]


def predicted(strengths: Strengths, user: np.ndarray) -> dict[int, Share]:
    """User → of their decided labels, those that the model predicts when each is left out."""
    mean = strengths.mean
    known = np.isfinite(mean)
    users, row = np.unique(user[known], return_inverse=True)
    hits, n = np.bincount(row, mean[known] > 0), np.bincount(row)
    return {one: Share(int(hit), int(count)) for one, hit, count in zip(users.tolist(), hits, n, strict=True)}


def well_known(share: Share) -> bool:
    """Whether the model predicts a user well enough to ask about one of their labels."""
    return share.n >= FEWEST_LABELS and share.interval[0] > CHANCE


def _members(state: GraphState) -> int:
    """Members of the ensemble; 1 where the width of the vectors does not show them."""
    members = int(state.config.get("members", 1))
    return 1 if state.response_vectors.shape[1] % members else members


def _alike(user: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of users with about as many labels, (n,), and the largest number of labels of one of them.

    Users are computed together as a stack, padded to the largest; their numbers differ at most by a factor of two.
    ``width`` is 0 where people of the snapshot do not differ, as in a study of one person.
    """
    order = np.argsort(user, kind="stable")
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    by_count = np.argsort(count, kind="stable")
    at = 0
    while at < len(by_count):
        most = 2 * count[by_count[at]]
        end = int(np.searchsorted(count[by_count], most, side="right"))
        end = min(end, at + max(1, _CELLS // max(1, int(most * width))))
        taken = by_count[at:end]
        yield np.concatenate([order[start[one] : start[one] + count[one]] for one in taken]), int(count[taken].max())
        at = end


def _without_each(
    state: GraphState, prior: Prior, labels: Comparisons, weight: np.ndarray, rows: np.ndarray, size: int
) -> np.ndarray:
    """Vector (n, d) of the user of each label of ``rows`` (n,) without that label; users stand one after the other."""
    difference, bias = state.differences(labels.left[rows], labels.right[rows])
    design = np.column_stack([difference, labels.position_known[rows]]) / state.temperature  # (n, d + 1)
    user = np.unique(labels.user[rows], return_inverse=True)[1]
    order = np.argsort(user, kind="stable")
    slot = np.empty(len(rows), np.int64)
    slot[order] = np.arange(len(rows)) - np.searchsorted(user[order], user[order])

    def stacked(values: np.ndarray) -> np.ndarray:
        """Values of labels by user, (B, size, …); zero where a user has fewer labels."""
        whole = np.zeros((user.max(initial=-1) + 1, size, *values.shape[1:]))
        whole[user, slot] = values
        return whole

    x = stacked(design @ prior.root)
    offset, outcome = stacked(bias / state.temperature + design @ prior.mean), stacked(labels.outcome[rows])
    z = leave_one_out(x, offset, outcome, stacked(weight[rows]))[user, slot]  # (n, q)
    return (prior.mean + z @ prior.root.T)[:, :-1]


def leave_one_out(x: np.ndarray, offset: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Most probable z of each user without each of their labels, (B, n, q), approximately.

    Args:
        x: (B, n, q) design of n labels of B users in coordinates z ~ N(0, I).
        offset, outcome, weight: (B, n); a label of weight 0 is no label.
    """
    z = _most_probable(x, offset, outcome, weight)
    p = expit(offset + np.einsum("bnq,bq->bn", x, z))
    curve, residual = weight * p * (1 - p), weight * (outcome - p)
    moved = _solved(x, curve, x)  # (B, n, q), rows H⁻¹ x_i
    leverage = np.einsum("bnq,bnq->bn", moved, x) * curve  # h_i D_i, below 1
    return z[:, None] - moved * (residual / np.maximum(1 - leverage, 1e-6))[..., None]


def _most_probable(x: np.ndarray, offset: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """z (B, q) by Newton steps; where a step would raise the loss it is halved."""
    z = np.zeros((len(x), x.shape[2]))

    def loss(at: np.ndarray) -> np.ndarray:
        margin = offset + np.einsum("bnq,bq->bn", x, at)
        return (weight * (np.logaddexp(0, margin) - outcome * margin)).sum(1) + (at**2).sum(1) / 2

    now, size = loss(z), np.ones(len(x))
    for _ in range(_STEPS):
        p = expit(offset + np.einsum("bnq,bq->bn", x, z))
        slope = np.einsum("bnq,bn->bq", x, weight * (outcome - p)) - z
        step = _solved(x, weight * p * (1 - p), slope[:, None])[:, 0]
        following = loss(z + size[:, None] * step)
        better = following <= now + 1e-12
        z = np.where(better[:, None], z + size[:, None] * step, z)
        now = np.where(better, following, now)
        size = np.where(better, 1.0, size / 2)
        if (np.abs(step) < _TOLERANCE).all():
            break
    return z


def _solved(x: np.ndarray, curve: np.ndarray, right: np.ndarray) -> np.ndarray:
    """H⁻¹ v for each row v of ``right`` (B, k, q), with H = I + xᵀ D x.

    With fewer labels than coordinates by Woodbury's identity: I − x̃ᵀ (I + x̃ x̃ᵀ)⁻¹ x̃ with x̃ = √D x.
    """
    scaled = x * np.sqrt(curve)[..., None]  # (B, n, q)
    turned = scaled.transpose(0, 2, 1)
    n, q = x.shape[1:]
    if n <= q:
        inner = np.linalg.solve(np.eye(n) + scaled @ turned, scaled @ right.transpose(0, 2, 1))  # (B, n, k)
        return right - inner.transpose(0, 2, 1) @ scaled
    return np.linalg.solve(np.eye(q) + turned @ scaled, right.transpose(0, 2, 1)).transpose(0, 2, 1)
