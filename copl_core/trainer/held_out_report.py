"""How well a fit predicts held-out labels, compared with methods that ignore who the user is.

All methods learn from the same labels and are tested on the same held-out ones.  Intervals come from a bootstrap over
users; those of a gain from a bootstrap of the paired difference.  The gain that counts is the one over the baseline
that is most often right on the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from copl_core.records import Comparisons, TrainingData
from copl_core.training import baselines
from copl_core.training.metrics import correct, interval, log_losses, measures

BASELINES = {"global": baselines.fit_global, "side-length": baselines.fit_side_length}
FEWEST = 2  # held-out decided labels


def report(
    training: TrainingData, test: Comparisons, logits: Mapping[str, np.ndarray], seed: int
) -> tuple[dict, dict | None]:
    """(figures by method, gain) on the test labels; ({}, None) where too few of them are decided.

    The gain is the one over ``global``; its entry "strongest" holds the same figures over the most accurate baseline.

    Args:
        training: the data that every method is fitted to.
        test: labels (N,) held out from all methods, by row of ``training``.
        logits: log-odds (N,) of the methods that are fitted already, the product's own as "copl".
    """
    if test.decided.sum() < FEWEST:
        return {}, None
    texts = list(training.responses)
    logits = dict(logits) | {name: fit(training, texts, seed).logits(test) for name, fit in BASELINES.items()}
    by_method = {
        name: measures(values, test.outcome) | _intervals(values, test, seed) for name, values in logits.items()
    }
    strongest = max(BASELINES, key=lambda name: by_method[name]["accuracy"])
    gain, over_strongest = (_gain(logits, name, test, seed) for name in ("global", strongest))
    return by_method, gain | {"strongest": over_strongest}


def _intervals(logits: np.ndarray, test: Comparisons, seed: int) -> dict:
    hits, losses, user = _per_label(logits, test)
    return {
        "accuracy_interval": list(interval(hits, user, seed)),
        "log_loss_interval": list(interval(losses, user, seed)),
    }


def _gain(logits: Mapping[str, np.ndarray], over: str, test: Comparisons, seed: int) -> dict:
    """The gain of "copl" over a baseline: its accuracy − theirs, and their log-loss − its own (less is better)."""
    hits, losses, user = _per_label(logits["copl"], test)
    common_hits, common_losses, _ = _per_label(logits[over], test)
    return {
        "over": over,
        "n": len(hits),
        "people": len(np.unique(user)),  # the stored name of the number of users
        "accuracy": float((hits - common_hits).mean()),
        "accuracy_interval": list(interval(hits - common_hits, user, seed)),
        "log_loss": float((common_losses - losses).mean()),
        "log_loss_interval": list(interval(common_losses - losses, user, seed)),
    }


def _per_label(logits: np.ndarray, test: Comparisons) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1 right, 0 wrong or ½ for a zero logit; log-loss; user) of each decided label."""
    decided = test.decided
    logits, outcome = np.asarray(logits, np.float64)[decided], test.outcome[decided].astype(np.float64)
    return correct(logits, outcome).astype(float), log_losses(logits, outcome), test.user[decided]
