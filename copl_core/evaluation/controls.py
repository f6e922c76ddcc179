"""Two controls that an honest personal gain has to pass.

User swap: each label is scored as if another, randomly drawn user had been asked.  What a method gains over ``global``
by knowing *people* must vanish; a gain that stays was made of something else.

Label flip: learned from the opposite of every label, a method must be as wrong as it was right; one that stays right
reads its answers from somewhere else.
"""

from __future__ import annotations

import numpy as np

from copl_core.evaluation.dataset import EvalDataset
from copl_core.training.metrics import correct, interval, measures


def user_swap(own: np.ndarray, swapped: np.ndarray, everybody: np.ndarray, world: EvalDataset, seed: int) -> dict:
    """Accuracy with another user's vector, and the gain over ``everybody`` with one's own and with another's.

    Args:
        own, swapped, everybody: log-odds (N,) of the asked labels by a method, by it for strangers, and by global.
    """
    decided = world.asked.decided
    outcome, user = world.asked.outcome[decided], world.asked.user[decided]
    mine, theirs, shared = (correct(logits[decided], outcome) for logits in (own, swapped, everybody))
    return {
        "accuracy": float(theirs.mean()),
        "gain_own": float((mine - shared).mean()),
        "gain": float((theirs - shared).mean()),
        "gain_interval": list(interval(theirs - shared, user, seed)),
    }


def label_flip(mirrored: np.ndarray, own: np.ndarray, world: EvalDataset) -> dict:
    """Figures of a method that learned from the opposite of every label, and one minus its accuracy as it was.

    Args:
        mirrored, own: log-odds (N,) of the asked labels, learned from flipped labels and from the labels as they are.
    """
    return measures(mirrored, world.asked.outcome) | {"mirror": 1 - measures(own, world.asked.outcome)["accuracy"]}
