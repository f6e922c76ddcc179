"""How well a fit predicts held-out labels, compared with methods that ignore who the user is.

All methods learn from the same labels and are tested on the same held-out ones.  Intervals come from a bootstrap over
users; those of the gain over ``global`` from a bootstrap of the paired difference.
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
    """(figures by method, gain over ``global``) on the test labels; ({}, None) where too few of them are decided.

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
    return by_method, _gain(logits["copl"], logits["global"], test, seed)


def _intervals(logits: np.ndarray, test: Comparisons, seed: int) -> dict:
    hits, losses, user = _per_label(logits, test)
    return {
        "accuracy_interval": list(interval(hits, user, seed)),
        "log_loss_interval": list(interval(losses, user, seed)),
    }


def _gain(personal: np.ndarray, common: np.ndarray, test: Comparisons, seed: int) -> dict:
    """The gain from personalisation: accuracy personal − common, and log-loss common − personal (less is better)."""
    hits, losses, user = _per_label(personal, test)
    common_hits, common_losses, _ = _per_label(common, test)
    return {
        "over": "global",
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
