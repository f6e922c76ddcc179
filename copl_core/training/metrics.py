"""The figures every method is judged by, from log-odds of left over right.  Numpy only."""

from __future__ import annotations

import numpy as np

from copl_core.records import Comparisons

BINS = 10


def figures(logits: np.ndarray, labels: Comparisons) -> dict[str, float | int]:
    """Accuracy, log-loss (nats), expected calibration error and n of logits (N,), over labels that prefer one side."""
    decided = labels.decided
    logits, outcome = np.asarray(logits, np.float64)[decided], labels.outcome[decided].astype(np.float64)
    if not len(logits):
        return {"accuracy": float("nan"), "log_loss": float("nan"), "calibration_error": float("nan"), "n": 0}
    return {"accuracy": float(right(logits, outcome).mean()),
            "log_loss": float(log_losses(logits, outcome).mean()),
            "calibration_error": calibration_error(logits, outcome),
            "n": len(logits)}


def right(logits: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """(N,) 1 where the sign agrees with the outcome, ½ where the logit is zero."""
    return 0.5 + 0.5 * np.sign(logits) * np.sign(outcome - 0.5)


def log_losses(logits: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """(N,) −[y log σ(z) + (1 − y) log σ(−z)], finite for any finite z."""
    return np.logaddexp(0, logits) - outcome * logits


def calibration_error(logits: np.ndarray, outcome: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) over ten equal bins of P(left)."""
    p = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(place, p, BINS) - np.bincount(place, outcome, BINS))
    return float(gaps.sum() / len(p))
