"""How much the graph and the text reward each say: two non-negative weights learned on held-out labels.

For a label of user u between responses a and b, with graph margin g = s(u,a) − s(u,b) and text margin
t = r(u,a) − r(u,b),

    P(a ≻ b) = σ(w_g·g + w_t·t)            for responses that the graph knows,
    P(a ≻ b) = σ(w_g'·g' + w_t'·t)         for texts it has never seen, with g' the margin of where it places them by
                                           what they say.

The weights minimise the log-loss of labels that neither part was fitted to, the second pair that of labels about texts
that neither part ever saw, with a weak pull towards the middle.  A ``Mix`` is what a snapshot serves; a ``Stacking`` mixes
any number of such voices for ``evaluate``, with weights of their own where a text, a person or both are new.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True, slots=True)
class Mix:
    graph: float = 1.0  # weight of the graph margin where both responses are known
    text: float = 0.0  # weight of the text margin there
    n: int = 0  # held-out labels these two were learned on
    graph_new: float = 0.0  # weight, for texts it has not seen, of the margin of where the graph places them
    text_new: float = 1.0  # weight of the text margin there
    n_new: int = 0  # held-out labels about unseen texts that these two were learned on

    @classmethod
    def read(cls, facts: dict) -> Mix:
        """What ``asdict`` wrote; a mix of earlier snapshots let the text reward alone speak on unseen texts."""
        return cls(**{{"text_alone": "text_new"}.get(name, name): value for name, value in facts.items()})


def fit_mix(
    graph_margin: np.ndarray, text_margin: np.ndarray, outcome: np.ndarray, new: np.ndarray, pull: float = 1.0
) -> Mix:
    """Learn the weights from margins (N,) and outcomes (N,) in {0, ½, 1} of held-out labels.

    ``new`` (N,) marks labels about texts that neither part saw; their graph margin is that of the placed texts.
    ``pull`` counts as that many labels' worth of preference for ½ and ½, so that a handful of labels cannot set the mix
    to an extreme.  No label gives exactly that middle.
    """
    margins, middle = np.column_stack([graph_margin, text_margin]), np.array([0.5, 0.5])

    def weights(rows: np.ndarray) -> np.ndarray:
        def loss(w: np.ndarray) -> float:
            z = margins[rows] @ w
            return float((np.logaddexp(0, z) - outcome[rows] * z).sum() + pull * ((w - middle) ** 2).sum())

        return minimize(loss, middle, bounds=[(0, None)] * 2).x

    known, unseen = weights(~new), weights(new)
    return Mix(float(known[0]), float(known[1]), int((~new).sum()), float(unseen[0]), float(unseen[1]), int(new.sum()))


@dataclass(frozen=True, slots=True)
class Stacking:
    """Weights (4, V) of V voices, for labels with: nothing new, a new text, a new person, both."""

    weights: np.ndarray
    n: np.ndarray  # (4,) labels that each row was learned on

    def logits(self, voices: np.ndarray, new_text: np.ndarray, new_user: np.ndarray) -> np.ndarray:
        """Log-odds (N,) from those of the voices (N, V)."""
        return (voices * self.weights[kind_of(new_text, new_user)]).sum(1)


def fit_blend(
    voices: np.ndarray,
    outcome: np.ndarray,
    new_text: np.ndarray,
    new_user: np.ndarray,
    middle: np.ndarray,
    pull: np.ndarray | float = 10.0,
) -> Stacking:
    """Learn how far to believe each voice (N, V) from labels (N,) that none of them was fitted to.

    One set of non-negative weights is learned for each kind of label, by log-loss + ½ Σ pull ((w − middle) · size)²,
    where size is the root mean square of a voice over all labels, so that ``pull`` counts in labels whatever a voice's
    scale.  ``middle`` is (V,) or one row a kind (4, V); ``pull`` one number, or one a voice (V,).
    """
    decided = outcome != 0.5
    voices, outcome, kind = voices[decided], outcome[decided].astype(np.float64), kind_of(new_text, new_user)[decided]
    size = np.sqrt((voices**2).mean(0)) if len(voices) else np.ones(voices.shape[1])

    def learn(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
        z, y = voices[rows], outcome[rows]

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            logits, apart = z @ w, (w - centre) * size
            miss = 1 / (1 + np.exp(-np.clip(logits, -60, 60))) - y
            return float(
                (np.logaddexp(0, logits) - y * logits).sum() + 0.5 * (pull * apart**2).sum()
            ), z.T @ miss + pull * apart * size

        return minimize(loss, centre, jac=True, bounds=[(0, None)] * len(centre)).x

    middles = np.broadcast_to(np.asarray(middle, np.float64), (4, voices.shape[1]))
    return Stacking(np.stack([learn(kind == k, middles[k]) for k in range(4)]), np.bincount(kind, minlength=4))


def kind_of(new_text: np.ndarray, new_user: np.ndarray) -> np.ndarray:
    """(N,) row of a blend's weights: 0 nothing new, 1 a new text, 2 a new person, 3 both."""
    return np.asarray(new_text, np.int64) + 2 * np.asarray(new_user, np.int64)
