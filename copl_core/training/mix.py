"""How much the graph and the text reward each say: two non-negative weights learned on held-out labels.

For a label of user u between responses a and b, with graph margin g = s(u,a) − s(u,b) and text margin
t = r(u,a) − r(u,b),

    P(a ≻ b) = σ(w_g·g + w_t·t)            for responses that the graph knows,
    P(a ≻ b) = σ(w_t'·t)                   for texts it has never seen.

The weights minimise the log-loss of labels that neither part was fitted to, with a weak pull towards the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True, slots=True)
class Mix:
    graph: float = 1.0  # weight of the graph margin where both responses are known
    text: float = 0.0  # weight of the text margin there
    text_alone: float = 1.0  # weight of the text margin for texts the graph has not seen
    n: int = 0  # held-out labels it was learned on

    def logits(self, graph_margin: np.ndarray, text_margin: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Log-odds, elementwise; ``known`` marks the pairs of which the graph knows both responses."""
        return np.where(known, self.graph * graph_margin + self.text * text_margin, self.text_alone * text_margin)


def fit_mix(graph_margin: np.ndarray, text_margin: np.ndarray, outcome: np.ndarray, pull: float = 1.0) -> Mix:
    """Learn the weights from margins (N,) and outcomes (N,) in {0, ½, 1} of held-out labels.

    ``pull`` counts as that many labels' worth of preference for (½, ½, 1), so that a handful of labels cannot set the
    mix to an extreme.  No label gives exactly that middle.
    """
    def weights(margins: np.ndarray, middle: np.ndarray) -> np.ndarray:
        def loss(w: np.ndarray) -> float:
            z = margins @ w
            return float((np.logaddexp(0, z) - outcome * z).sum() + pull * ((w - middle) ** 2).sum())

        return minimize(loss, middle, bounds=[(0, None)] * len(middle)).x

    both = weights(np.column_stack([graph_margin, text_margin]), np.array([0.5, 0.5]))
    alone = weights(text_margin[:, None], np.array([1.0]))
    return Mix(graph=float(both[0]), text=float(both[1]), text_alone=float(alone[0]), n=len(outcome))
