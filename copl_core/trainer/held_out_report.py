"""Where a fit stands on labels that it has not seen, beside what a method without people's tastes reaches on them.

Every method learns from the same labels and is asked the same ones; intervals are bootstraps over users, and of the
gain over ``global``, bootstraps of the paired difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from copl_core.records import Comparisons, TrainingData
from copl_core.training import baselines
from copl_core.training.metrics import correct, interval, log_losses, measures

BASELINES = {"global": baselines.fit_global, "side-length": baselines.fit_side_length}
FEWEST = 2  # held-out decided labels


def standing(
    learned: TrainingData, asked: Comparisons, logits: Mapping[str, np.ndarray], seed: int
) -> tuple[dict, dict | None]:
    """(figures by method, gain over ``global``) on the asked labels; both empty where too few are decided.

    Args:
        learned: what every method is fitted to.
        asked: labels (N,) kept from all of them, by row of ``learned``.
        logits: log-odds (N,) of the methods that are fitted already, the product's own as "copl".
    """
    if asked.decided.sum() < FEWEST:
        return {}, None
    texts = list(learned.responses)
    logits = dict(logits) | {name: fit(learned, texts, seed).logits(asked) for name, fit in BASELINES.items()}
    told = {name: measures(own, asked.outcome) | _intervals(own, asked, seed) for name, own in logits.items()}
    return told, _gain(logits["copl"], logits["global"], asked, seed)


def _intervals(logits: np.ndarray, asked: Comparisons, seed: int) -> dict:
    hits, losses, user = _scored(logits, asked)
    return {
        "accuracy_interval": list(interval(hits, user, seed)),
        "log_loss_interval": list(interval(losses, user, seed)),
    }


def _gain(own: np.ndarray, everybody: np.ndarray, asked: Comparisons, seed: int) -> dict:
    """What knowing people adds, in accuracy and in log-loss (less is better, so the gain is everybody − own)."""
    hits, losses, user = _scored(own, asked)
    their_hits, their_losses, _ = _scored(everybody, asked)
    return {
        "over": "global",
        "n": len(hits),
        "people": len(np.unique(user)),
        "accuracy": float((hits - their_hits).mean()),
        "accuracy_interval": list(interval(hits - their_hits, user, seed)),
        "log_loss": float((their_losses - losses).mean()),
        "log_loss_interval": list(interval(their_losses - losses, user, seed)),
    }


def _scored(logits: np.ndarray, asked: Comparisons) -> Sequence[np.ndarray]:
    """(right or not, log-loss, user) of each decided label."""
    decided = asked.decided
    own, outcome = np.asarray(logits, np.float64)[decided], asked.outcome[decided].astype(np.float64)
    return correct(own, outcome).astype(float), log_losses(own, outcome), asked.user[decided]
