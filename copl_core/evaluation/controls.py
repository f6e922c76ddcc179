"""Three controls that a real personal gain has to pass.

User swap: each label is scored with the user vector of another, randomly drawn user.  The gain of a method over
``global`` comes from knowing the user and must vanish; a gain that stays has another source.

Label flip: a method that learns from the opposite of every label must be as wrong as it was right.  If its accuracy
does not mirror, its predictions come from something other than the labels.

Flip at fold-in: only the labels that a new user has given are reversed, and nothing is fitted again.  The predictions
for this user that rest on their own labels turn; what does not turn is what everybody prefers.
"""

from __future__ import annotations

import numpy as np

from copl_core.evaluation.dataset import EvalDataset
from copl_core.records import Comparisons
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


def fold_in_flip(flipped: np.ndarray, own: np.ndarray, dataset: EvalDataset) -> dict | None:
    """How far new users' own labels decide the predictions about responses that these labels do not contain.

    Args:
        flipped: log-odds (N,) of the test labels, where new users are placed from their context labels reversed.
        own: log-odds (N,), where they are placed from their context labels.
    Returns:
        Of the decided test labels of users with context labels, about two responses that are in none of them: "n",
        "turned" (the share whose prediction has the other sign), "accuracy" and "accuracy_flipped".  None if there is
        no such label.
    """
    rows = np.flatnonzero(dataset.test.decided & _about_other_responses(dataset.context, dataset.test))
    if len(rows) == 0:
        return None
    outcome = dataset.test.outcome[rows]
    return {
        "n": len(rows),
        "turned": float((np.sign(flipped[rows]) != np.sign(own[rows])).mean()),
        "accuracy": float(correct(own[rows], outcome).mean()),
        "accuracy_flipped": float(correct(flipped[rows], outcome).mean()),
    }


def _about_other_responses(context: Comparisons, test: Comparisons) -> np.ndarray:
    """Mask (N,) of the test labels of users with context labels that share no response with the user's own."""
    n_responses = 1 + max(int(side.max(initial=0)) for one in (context, test) for side in (one.left, one.right))

    def edges(labels: Comparisons, side: np.ndarray) -> np.ndarray:
        return labels.user.astype(np.int64) * n_responses + side

    known = np.concatenate([edges(context, context.left), edges(context, context.right)])
    shared = np.isin(edges(test, test.left), known) | np.isin(edges(test, test.right), known)
    return np.isin(test.user, context.user) & ~shared
