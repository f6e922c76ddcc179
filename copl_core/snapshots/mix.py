"""Weights of the graph and of the text reward: non-negative numbers learned on held-out labels.

For a label of user u on responses a and b, with graph margin g = s(u,a) − s(u,b) and text margin t = r(u,a) − r(u,b),

    P(a ≻ b) = σ(w_g·g + w_t·t)            for responses that the graph knows,
    P(a ≻ b) = σ(w_g'·g' + w_t'·t)         for unseen texts, where g' is the margin of the positions that the graph
                                           predicts from the texts.

The weights minimise the log-loss of labels that neither model was fitted to, w' that of labels about texts that
neither model has seen, with a weak Gaussian prior.  A ``Mix`` is what a snapshot serves.  A ``Stacking`` mixes any
number of components for ``evaluate``, with separate weights where a text, a user or both are new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.logistic import penalised_logistic

LEAST_PRECISION = 1e-6  # of the prior of a component that is zero for all labels; its weight is the prior mean


@dataclass(frozen=True, slots=True)
class Mix:
    graph: float = 1.0  # weight of the graph margin where both responses are known
    text: float = 0.0  # weight of the text margin there
    n: int = 0  # held-out labels that these two were learned on
    graph_new: float = 0.0  # weight of the graph margin for unseen texts, at their predicted positions
    text_new: float = 1.0  # weight of the text margin there
    n_new: int = 0  # held-out labels about unseen texts that these two were learned on

    @classmethod
    def read(cls, facts: dict) -> Mix:
        """From the JSON of ``asdict``; "text_alone" in older snapshots is the text reward's weight on unseen texts."""
        return cls(**{{"text_alone": "text_new"}.get(name, name): value for name, value in facts.items()})


def fit_mix(
    graph_margin: np.ndarray,
    text_margin: np.ndarray,
    outcome: np.ndarray,
    new: np.ndarray,
    prior_strength: float = 1.0,
) -> Mix:
    """Learn the weights from margins (N,) and outcomes (N,) in {0, ½, 1} of held-out labels.

    Args:
        new: (N,) marks labels about texts that neither model has seen; their graph margin is that of the predicted
            positions.
        prior_strength: half the precision of the prior around ½ and ½, so that a few labels cannot make the mix
            extreme.  Without labels the mix is exactly ½ and ½.
    """
    margins, prior_mean = np.column_stack([graph_margin, text_margin]).astype(np.float64), np.array([0.5, 0.5])

    def weights(rows: np.ndarray) -> np.ndarray:
        return penalised_logistic(
            margins[rows], 0.0, outcome[rows], 1.0, prior_mean, 2 * prior_strength * np.eye(2), nonnegative=True
        ).mode

    known, unseen = weights(~new), weights(new)
    return Mix(float(known[0]), float(known[1]), int((~new).sum()), float(unseen[0]), float(unseen[1]), int(new.sum()))


@dataclass(frozen=True, slots=True)
class Stacking:
    """Weights (4, C) of C components, one row for each kind of label (``label_kind``)."""

    weights: np.ndarray
    n: np.ndarray  # (4,) labels that each row was learned on

    def logits(self, components: np.ndarray, new_text: np.ndarray, new_user: np.ndarray) -> np.ndarray:
        """Log-odds (N,) from those of the components (N, C)."""
        return (components * self.weights[label_kind(new_text, new_user)]).sum(1)


def fit_stacking(
    components: np.ndarray,
    outcome: np.ndarray,
    new_text: np.ndarray,
    new_user: np.ndarray,
    prior_mean: np.ndarray,
    prior_strength: np.ndarray | float = 10.0,
) -> Stacking:
    """Learn the weights of components (N, C) from labels (N,) that none of them was fitted to.

    Each kind of label has its own non-negative weights, which minimise
    log-loss + ½ Σ prior_strength ((w − prior_mean) · size)².  ``size`` is the root mean square of a component over all
    labels, so that ``prior_strength`` counts in labels whatever the scale of a component.  Ties are left out.

    Args:
        prior_mean: (C,), or one row for each kind (4, C).
        prior_strength: one number, or one for each component (C,).
    """
    decided = outcome != 0.5
    components, outcome = components[decided], outcome[decided].astype(np.float64)
    kind = label_kind(new_text, new_user)[decided]
    size = np.sqrt((components**2).mean(0)) if len(components) else np.ones(components.shape[1])
    precision = np.diag(np.maximum(prior_strength * size**2, LEAST_PRECISION))

    def learned(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
        return penalised_logistic(components[rows], 0.0, outcome[rows], 1.0, mean, precision, nonnegative=True).mode

    means = np.broadcast_to(np.asarray(prior_mean, np.float64), (4, components.shape[1]))
    return Stacking(np.stack([learned(kind == k, means[k]) for k in range(4)]), np.bincount(kind, minlength=4))


def label_kind(new_text: np.ndarray, new_user: np.ndarray) -> np.ndarray:
    """(N,) 0 where nothing is new, 1 where a text is new, 2 where the user is new, 3 where both are."""
    return np.asarray(new_text, np.int64) + 2 * np.asarray(new_user, np.int64)
