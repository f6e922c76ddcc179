"""Weights of the graph and of the text reward: non-negative numbers learned on held-out labels.

For a label of user u on responses a and b, with graph margin g = s(u,a) − s(u,b) and text margin t = r(u,a) − r(u,b),

    P(a ≻ b) = σ(w_g·g + w_t·t)            for responses that the graph knows,
    P(a ≻ b) = σ(w_g'·g' + w_t'·t)         for unseen texts, where g' is the margin of the positions that the graph
                                           predicts from the texts.

The weights minimise the log-loss of labels that neither model was fitted to, w' that of labels about texts that
neither model has seen, with a Gaussian prior around the graph alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.logistic import penalised_logistic

# Of the prior of both weights, around the graph alone, in labels (``fit_mix``).  On cuts of real labels the text reward
# helps in one and harms in another, and a few hundred labels hardly tell which.
PRIOR_MEAN, PRIOR_STRENGTH = (1.0, 0.0), 30.0
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
) -> Mix:
    """Learn the weights from margins (N,) and outcomes (N,) in {0, ½, 1} of held-out labels.

    The non-negative weights minimise log-loss + ½ Σ PRIOR_STRENGTH ((w − prior mean) · size)².  ``size`` is the root
    mean square of a margin over all labels, so that the strength counts in labels whatever the scale of a margin.
    Without labels the mix is the graph alone.

    Args:
        new: (N,) marks labels about texts that neither model has seen; their graph margin is that of the predicted
            positions.
    """
    margins = np.column_stack([graph_margin, text_margin]).astype(np.float64)
    size = np.sqrt((margins**2).mean(0)) if len(margins) else np.ones(2)
    precision = np.diag(np.maximum(PRIOR_STRENGTH * size**2, LEAST_PRECISION))

    def weights(rows: np.ndarray) -> np.ndarray:
        return penalised_logistic(
            margins[rows], 0.0, outcome[rows], 1.0, np.array(PRIOR_MEAN), precision, nonnegative=True
        ).mode

    known, unseen = weights(~new), weights(new)
    return Mix(float(known[0]), float(known[1]), int((~new).sum()), float(unseen[0]), float(unseen[1]), int(new.sum()))
