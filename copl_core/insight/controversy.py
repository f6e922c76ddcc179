"""What divides people: disagreement between groups, apart from noise within people and from the model's uncertainty.

For a pair (a, b) let p_um = P(u prefers a) by member m of the graph ensemble.  Draw a user and a member at random: the
user's predicted answer is a coin with variance p̄ (1 − p̄), and the law of total variance splits it::

    p̄ (1 − p̄)  =  between  +  within  +  aleatoric  +  epistemic

    between    Σ_g π_g (p̄_g − p̄)²: the groups answer differently
    within     Σ_g π_g Var_{u∈g}(p̄_u): users of one group answer differently
    aleatoric  mean of p_um (1 − p_um): each single user is undecided
    epistemic  what the members disagree on: the model has seen too few labels

Means over K members differ between groups even where the truth does not, by a K-th of the members' disagreement.  The
two terms *between* and *within* therefore come from products of *different* members, into which no member's error
enters twice.  From the variance v̄ of the mean and the mean variance of the single members that is
(K v̄ − mean_m v_m) / (K − 1), clipped at 0.  All terms are variances of a coin, so ¼ is their largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from copl_core.preference.state import GraphState


@dataclass(frozen=True, slots=True)
class VarianceDecomposition:
    """For P questions: how each group is predicted to answer, and how far the groups are apart."""

    between: np.ndarray  # (P,) variance between groups, 0 to ¼
    within: np.ndarray  # (P,) variance within groups
    aleatoric: np.ndarray  # (P,) mean p (1 − p)
    epistemic: np.ndarray  # (P,) disagreement of the ensemble; 0 for a single member, which cannot show any
    by_group: np.ndarray  # (P, G) mean probability that the first response is preferred
    ensemble_std: np.ndarray  # (P, G) standard deviation of ``by_group`` over the members
    groups: np.ndarray  # (G,) the group of each column

    @property
    def consensus(self) -> np.ndarray:
        """(P,) how clearly all groups prefer one response: that of the least decided group, ½ where they differ."""
        if not len(self.groups):
            return np.full(len(self.between), 0.5)
        return np.maximum(0.5, np.maximum(self.by_group.min(1), 1 - self.by_group.max(1)))

    @property
    def split(self) -> np.ndarray:
        """Mask (P,) of questions on which groups prefer different responses, each by more than two ensemble_std."""
        clear = np.abs(self.by_group - 0.5) > 2 * self.ensemble_std
        for_first, for_second = clear & (self.by_group > 0.5), clear & (self.by_group < 0.5)
        return np.logical_and(for_first.any(1), for_second.any(1))

    def order(self, *, consensus: bool = False) -> np.ndarray:
        """(P,) rows: the most divisive questions first, or with ``consensus`` those with the clearest consensus."""
        return np.argsort(-self.consensus if consensus else -self.between, kind="stable")


def decompose_variance(
    probabilities: np.ndarray, group: np.ndarray, share: np.ndarray | None = None
) -> VarianceDecomposition:
    """Split the variance of predicted answers into its four terms.

    Args:
        probabilities: (K, N, P), P(user prefers the first response) by each member; (N, P) is one member.
        group: (N,) group of each user; users with a negative value belong to no group and are ignored.
        share: (G,) true share of each group, in the order of the groups, where the users are a sample of them;
            by default the shares among these users.
    """
    p = probabilities if probabilities.ndim == 3 else probabilities[None]
    p, group = p[:, group >= 0], group[group >= 0]
    groups = np.unique(group)
    members, n_questions = len(p), p.shape[2]
    if not len(groups):
        empty, none = np.zeros(n_questions), np.zeros((n_questions, 0))
        return VarianceDecomposition(empty, empty, empty, empty, none, none, groups)
    member = (group[:, None] == groups).astype(p.dtype)  # (N, G)
    share = member.mean(0) if share is None else np.asarray(share, p.dtype)
    member = (member / member.sum(0)).T  # (G, N), rows sum to 1
    means, squares = member @ p, member @ p**2  # (K, G, P)
    mean = means.mean(0)  # (G, P)
    overall = share @ mean  # (P,)
    square_of_mean = member @ p.mean(0) ** 2
    b, b_single = share @ (mean - overall) ** 2, (share @ (means - (share @ means)[:, None]) ** 2).mean(0)
    w, w_single = share @ (square_of_mean - mean**2), (share @ (squares - means**2)).mean(0)
    between, within = (_unbiased(v, single, members) for v, single in ((b, b_single), (w, w_single)))
    aleatoric = share @ (means - squares).mean(0)
    whole = overall * (1 - overall)
    epistemic = np.maximum(0, whole - between - within - aleatoric) if members > 1 else 0 * aleatoric
    ensemble_std = means.std(0, ddof=1) if members > 1 else 0 * mean
    return VarianceDecomposition(between, within, aleatoric, epistemic, mean.T, ensemble_std.T, groups)


def _unbiased(of_mean: np.ndarray, of_single: np.ndarray, members: int) -> np.ndarray:
    """A variance without the members' errors, from that of the mean and the mean of the members' own."""
    found = of_mean if members == 1 else (members * of_mean - of_single) / (members - 1)
    return np.maximum(0, found)


def win_rates(probabilities: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each response is predicted to win against those it is paired with.

    Args:
        probabilities: (K, N, P), P(first response preferred).
        sides: (P, 2) ids of the pairs' responses.

    Returns:
        ids (R,) of the responses, and (K, N, R) the mean probability that each is preferred to the other one.
    """
    ids, index = np.unique(sides, return_inverse=True)
    index = index.reshape(sides.shape)
    row = np.arange(len(sides))
    sign = np.repeat(np.array([1, -1], probabilities.dtype), len(sides))  # the second response wins with 1 − p
    link = csr_array((sign, (index.T.ravel(), np.tile(row, 2))), shape=(len(ids), len(sides)))
    flat = probabilities.reshape(-1, len(sides))  # (K·N, P)
    won = (link @ flat.T).T + np.bincount(index[:, 1], minlength=len(ids))
    n_pairs = np.bincount(index.ravel(), minlength=len(ids))
    return ids, (won / n_pairs).reshape(*probabilities.shape[:2], len(ids))


def member_preferences(state: GraphState, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """P(user prefers the first response) by each member, (K, N, P), for users (N, d) and pairs of rows (P, 2).

    A state keeps only the mean of the members' response biases, so what everybody likes enters as that mean.
    """
    members = int(state.config.get("members", 1))
    if state.response_vectors.shape[1] % members:
        members = 1
    width = state.response_vectors.shape[1] // members
    apart, bias = state.differences(rows[:, 0], rows[:, 1])  # (P, d), (P,)
    chance = np.empty((members, len(vectors), len(rows)), np.float32)
    for m in range(members):
        part = slice(m * width, (m + 1) * width)
        np.matmul(vectors[:, part] * (members / state.temperature), apart[:, part].T, out=chance[m])
    chance += np.float32(1 / state.temperature) * bias
    return expit(chance, out=chance)


def concatenate(parts: Sequence[VarianceDecomposition]) -> VarianceDecomposition:
    """One decomposition of all questions from decompositions of some questions each, over the same users."""
    columns = {
        spec.name: np.concatenate([getattr(part, spec.name) for part in parts])
        for spec in fields(VarianceDecomposition)
        if spec.name != "groups"
    }
    return VarianceDecomposition(**columns, groups=parts[0].groups)
