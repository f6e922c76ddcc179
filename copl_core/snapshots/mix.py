"""Weights of the graph and of the two text rewards: non-negative numbers learned on held-out labels.

For a label of user u on responses a and b, with the margins of the graph g = s(u,a) − s(u,b), of the experts
t = r(u,a) − r(u,b) (``reward.model``) and of the linear text reward l = w_u·(x_a − x_b) (``reward.linear``),

    P(a ≻ b) = σ(v_g·g + v_t·t + v_l·l)       for responses that the graph knows,
    P(a ≻ b) = σ(v_g'·g' + v_t'·t + v_l'·l)   for unseen texts, where g' is the margin of the positions that the graph
                                              predicts from the texts.

The weights minimise the log-loss of labels that no part was fitted to, v' that of labels with a text that no part has
seen.  The prior of v is a Gaussian around the graph alone, that of v' one around three parts of the graph and one of
the linear text reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.logistic import penalised_logistic

# Means of the priors of the weights of graph, experts and linear text reward, and their strengths in labels
# (``fit_mix``).  A few hundred labels hardly tell which part to trust.  For known responses the graph alone is hard to
# beat.  For unseen texts graph and linear text reward in this proportion are level with the better of the two, or
# ahead, on three sets of real labels (``benchmarks.mix``).
Parts = tuple[float, float, float]
KNOWN_MEAN: Parts = (1.0, 0.0, 0.0)
KNOWN_STRENGTH: Parts = (30.0, 30.0, 30.0)
NEW_MEAN: Parts = (0.75, 0.0, 0.25)
NEW_STRENGTH: Parts = (100.0, 30.0, 100.0)
LEAST_PRECISION = 1e-6  # of the prior of a component that is zero for all labels; its weight is the prior mean


@dataclass(frozen=True, slots=True)
class Mix:
    graph: float = 1.0  # weight of the graph margin where both responses are known
    text: float = 0.0  # weight of the experts' margin there
    n: int = 0  # held-out labels that these were learned on
    graph_new: float = 0.0  # weight of the graph margin for unseen texts, at their predicted positions
    text_new: float = 1.0  # weight of the experts' margin there
    n_new: int = 0  # held-out labels with an unseen text that these were learned on
    linear: float = 0.0  # weight of the linear text reward for known responses
    linear_new: float = 0.0  # weight of the linear text reward for unseen texts

    @classmethod
    def read(cls, facts: dict) -> Mix:
        """From the JSON of ``asdict``; "text_alone" in older snapshots is the text reward's weight on unseen texts."""
        return cls(**{{"text_alone": "text_new"}.get(name, name): value for name, value in facts.items()})


def fit_mix(margins: np.ndarray, outcome: np.ndarray, new: np.ndarray) -> Mix:
    """Learn the weights from margins (3, N) of graph, experts and linear text reward, and outcomes (N,) in {0, ½, 1}.

    The non-negative weights minimise log-loss + ½ Σ strength ((v − prior mean) · size)².  ``size`` is the root mean
    square of a margin over all labels, so that the strength counts in labels whatever the scale of a margin.
    Without labels the weights are the means of their priors.

    Args:
        new: (N,) marks labels with a text that no part has seen; their graph margin is that of the predicted positions.
    """
    design = np.asarray(margins, np.float64).T
    known, unseen = (
        fit_weights(design[rows], outcome[rows], mean, strength, size_of(design))
        for rows, mean, strength in ((~new, KNOWN_MEAN, KNOWN_STRENGTH), (new, NEW_MEAN, NEW_STRENGTH))
    )
    return Mix(
        graph=float(known[0]),
        text=float(known[1]),
        n=int((~new).sum()),
        graph_new=float(unseen[0]),
        text_new=float(unseen[1]),
        n_new=int(new.sum()),
        linear=float(known[2]),
        linear_new=float(unseen[2]),
    )


def size_of(design: np.ndarray) -> np.ndarray:
    """Root mean square (k,) of margins (N, k); 1 without labels."""
    return np.sqrt((design**2).mean(0)) if len(design) else np.ones(design.shape[1])


def fit_weights(
    design: np.ndarray, outcome: np.ndarray, mean: Parts, strength: Parts, size: np.ndarray | None = None
) -> np.ndarray:
    """The non-negative weights (3,) of margins (N, 3) under a prior around ``mean``, see ``fit_mix``.

    Args:
        size: (3,) of the margins; that of these labels by default.
    """
    size = size_of(design) if size is None else size
    precision = np.diag(np.maximum(np.array(strength) * size**2, LEAST_PRECISION))
    return penalised_logistic(design, 0.0, outcome, 1.0, np.array(mean), precision, nonnegative=True).mode
