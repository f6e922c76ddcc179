"""Two controls that a real personal gain has to pass.

User swap: each label is scored with the user vector of another, randomly drawn user.  The gain of a method over
``global`` comes from knowing the user and must vanish; a gain that stays has another source.

Label flip: a method that learns from the opposite of every label must be as wrong as it was right.  If its accuracy
does not mirror, its predictions come from something other than the labels.
"""

from __future__ import annotations

import numpy as np

from copl_core.evaluation.dataset import EvalDataset
from copl_core.training.metrics import correct, interval, measures


def user_swap(own: np.ndarray, swapped: np.ndarray, common: np.ndarray, dataset: EvalDataset, seed: int) -> dict:
    """Accuracy with another user's vector, and the gain over ``common`` with the own and with the other vector.

    Args:
        own: log-odds (N,) of the test labels by a method.
        swapped: log-odds (N,) by the same method for swapped users.
        common: log-odds (N,) by ``global``.
    """
    decided = dataset.test.decided
    outcome, user = dataset.test.outcome[decided], dataset.test.user[decided]
    own_hits, swapped_hits, common_hits = (correct(logits[decided], outcome) for logits in (own, swapped, common))
    return {
        "accuracy": float(swapped_hits.mean()),
        "gain_own": float((own_hits - common_hits).mean()),
        "gain": float((swapped_hits - common_hits).mean()),
        "gain_interval": list(interval(swapped_hits - common_hits, user, seed)),
    }


def label_flip(flipped: np.ndarray, own: np.ndarray, dataset: EvalDataset) -> dict:
    """Metrics of a method that learned from flipped labels, and "mirror": one minus its accuracy on the real labels.

    Args:
        flipped: log-odds (N,) of the test labels, learned from flipped labels.
        own: log-odds (N,), learned from the labels as they are.
    """
    outcome = dataset.test.outcome
    return measures(flipped, outcome) | {"mirror": 1 - measures(own, outcome)["accuracy"]}
